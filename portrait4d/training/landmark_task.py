"""Training of the compact landmark network on faces of the open head world, whose landmarks are known exactly."""

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.config.landmark_training import LandmarkTraining
from portrait4d.data.image_io import from_uint8, image_grid
from portrait4d.files.errors import UserError
from portrait4d.models.compact_landmarks import CompactLandmarks
from portrait4d.training.distributed import Ranks
from portrait4d.training.examples_in_memory import OneNetworkTask
from portrait4d.training.head_choice import load_head
from portrait4d.training.landmark_examples import LandmarkExample, mean_face, read_landmarks
from portrait4d.training.landmark_measures import measure_landmarks
from portrait4d.training.landmark_views import Faces, Views, draw_views, mirror_faces
from portrait4d.training.motion_disturbance import disturb_colours, reduce_detail
from portrait4d.training.tasks import Moment, Step

GRID_COLUMNS, GRID_ROWS, GRID_SEED = 8, 4, 0
LANDMARKS = 70
_MEAN_OF = 2000
"""Faces that the mean face is the mean of."""


class LandmarkTask(OneNetworkTask[Faces]):
    """The network and its examples.

    Raises:
        UserError: no data, or a network of another number of points.
    """

    def __init__(self, config: LandmarkTraining, ranks: Ranks) -> None:
        if config.network.points != LANDMARKS:
            raise UserError(f"network.points: expected {LANDMARKS}, got {config.network.points}")
        self.examples, self.held_out = read_landmarks(config.data, load_head(config.head), config.view.source_size)
        network = CompactLandmarks(config.network, mean_face(next(self.examples.batches(_MEAN_OF)).points))
        self.begin(config, ranks, network, self.examples)

    def load_chunks(self, moment: Moment) -> list[Faces]:
        """Fetch faces."""
        return [self._faces(LandmarkExample(*part)) for part in next(self.reader)]

    def compute_gradients(self, chunk: Faces, step: Step) -> None:
        """Add the gradients of the points' and the presence's errors."""
        views = self._views(chunk, step.generator, step.host_generator)
        with self.autocast:
            reading = self.networks["G"](views.images)
        error = point_errors(reading.points, views.points)
        points = functional.huber_loss(error, torch.zeros_like(error), "none", self.config.loss.knee)
        points = views.presence * points.mean(dim=(1, 2)) / self.config.loss.knee
        presence = functional.binary_cross_entropy_with_logits(reading.presence, views.presence, reduction="none")
        step.record("Loss/G/points", points)
        step.record("Loss/G/presence", presence)
        step.backward((points + self.config.loss.presence * presence).mean() * step.phase.gain)

    def draw_reals(self) -> Tensor:
        """Return some views as training shows them."""
        return image_grid(list(self._grid_views().images.cpu()), GRID_COLUMNS)

    @torch.no_grad()
    def draw_pictures(self) -> dict[str, Tensor]:
        """Return the same with the points that the averaged network finds, where it sees a face."""
        images = self._grid_views().images
        reading = self.average(images)
        marked = mark_points(images, reading.points)
        shown = torch.where((reading.presence > 0)[:, None, None, None], marked, images)
        return {"_points": image_grid(list(shown.cpu()), GRID_COLUMNS)}

    def validate(self) -> dict[str, float]:
        """Measure the averaged network on held-out faces."""
        if not len(self.held_out):
            return {}
        return {f"Valid/{name}": value for name, value in measure_landmarks(self.average, self.held_out).items()}

    def _faces(self, batch: LandmarkExample) -> Faces:
        image, points = (values.to(self.ranks.device, non_blocking=True) for values in batch)
        return Faces(from_uint8(image), points)

    def _grid_views(self) -> Views:
        generators = [torch.Generator(device).manual_seed(GRID_SEED) for device in (self.ranks.device, "cpu")]
        return self._views(self._faces(next(self.examples.batches(GRID_COLUMNS * GRID_ROWS))), *generators)

    def _views(self, faces: Faces, generator: torch.Generator, host_generator: torch.Generator) -> Views:
        """Return views as training shows them."""
        disturb, size = self.config.disturb, self.config.network.picture_size
        if disturb.mirror:
            faces = mirror_faces(faces, generator)
        images, points = reduce_detail(faces.images, faces.points, disturb.lowest_size, host_generator)
        points = points * (faces.images.shape[-1] / images.shape[-1])  # fractions of the picture do not change
        jitter = torch.randn(points.shape, generator=generator, device=points.device)
        close = self.average.view_transforms(points + disturb.landmark_jitter * jitter)
        views = draw_views(Faces(images, points), size, close, self.config.view, generator)
        return views._replace(images=disturb_colours(views.images, disturb, generator))


def point_errors(found: Tensor, true: Tensor) -> Tensor:
    """Return differences of points (B, 70, 2) in units of the true faces' sizes, the mean side of their boxes.

    Points outside a view are looked for at its edge.
    """
    size = (true.amax(dim=1) - true.amin(dim=1)).mean(dim=1)
    return (found - true.clamp(0, 1)) / size[:, None, None]


def mark_points(images: Tensor, points: Tensor) -> Tensor:
    """Return pictures (B, 3, S, S) with a green pixel at each of the points (B, K, 2)."""
    marked, side = images.clone(), images.shape[-1]
    column, row = (points * side).long().clamp(0, side - 1).unbind(dim=2)
    number = torch.arange(len(images), device=images.device)[:, None].expand_as(row)
    marked[number, :, row, column] = images.new_tensor([-1.0, 1.0, -1.0])
    return marked


def build_landmark_task(config: LandmarkTraining, ranks: Ranks) -> LandmarkTask:
    """Build the training of the compact landmark network."""
    return LandmarkTask(config, ranks)
