"""Training of the compact motion encoder on faces of the open head world, whose motions are known exactly."""

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.config.motion_training import MotionEncoderTraining, MotionLossConfig
from portrait4d.data.image_io import from_uint8, image_grid
from portrait4d.files.errors import UserError
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.synthetic_heads.motion_inputs import MOTION_INPUTS, motion_input_matrix
from portrait4d.training.distributed import Ranks
from portrait4d.training.examples_in_memory import OneNetworkTask, require_data
from portrait4d.training.head_choice import load_head
from portrait4d.training.motion_disturbance import MotionSample, disturb_colours, disturb_view
from portrait4d.training.motion_examples import MotionExample, MotionExamples, join_examples, read_clips, read_stills
from portrait4d.training.motion_measures import measure_encoder
from portrait4d.training.tasks import Moment, Step

GRID_COLUMNS, GRID_ROWS, GRID_SEED = 8, 4, 0
SMALL_PICTURES = 64
"""Held-out pictures are also measured at so many pixels a side."""
_WATCHED = ("blink_left", "blink_right", "gaze_pitch", "gaze_yaw", "jaw_open")


class MotionEncoderTask(OneNetworkTask[MotionSample]):
    """The encoder and its examples.

    Raises:
        UserError: no data, or a network of another number of inputs.
    """

    def __init__(self, config: MotionEncoderTraining, ranks: Ranks) -> None:
        if config.network.inputs != len(MOTION_INPUTS):
            raise UserError(f"network.inputs: expected {len(MOTION_INPUTS)}, got {config.network.inputs}")
        self.examples, self.held_out = _read_examples(config)
        deviation = self.examples.examples.inputs.std(dim=0).clamp_min(config.loss.least_deviation)
        encoder = CompactMotionEncoder(config.network, motion_input_matrix(), deviation)
        self.begin(config, ranks, encoder, self.examples)
        self.weights = loss_weights(config.loss).to(ranks.device)

    def load_chunks(self, moment: Moment) -> list[MotionSample]:
        """Fetch faces."""
        return [self._sample(MotionExample(*part)) for part in next(self.reader)]

    def compute_gradients(self, chunk: MotionSample, step: Step) -> None:
        """Add the gradients of the inputs' errors."""
        crops, truths = self._disturbed_crops(chunk, step.generator, step.host_generator)
        encoder = self.networks["G"]
        with self.autocast:
            answers = encoder(crops)
        answers, truths = answers / encoder.scale, truths / encoder.scale
        losses = self.weights * functional.huber_loss(answers, truths, "none", self.config.loss.knee)
        step.record("Loss/G/loss", losses.mean(dim=1))
        step.backward(losses.mean() * step.phase.gain)

    def draw_reals(self) -> Tensor:
        """Return crops of some faces as the network is given them."""
        sample = self._grid_sample()
        return image_grid(list(self._crops(sample).cpu()), GRID_COLUMNS)

    def draw_pictures(self) -> dict[str, Tensor]:
        """Return the same with the random changes of training."""
        generators = [torch.Generator(device).manual_seed(GRID_SEED) for device in (self.ranks.device, "cpu")]
        crops, _ = self._disturbed_crops(self._grid_sample(), *generators)
        return {"_disturbed": image_grid(list(crops.cpu()), GRID_COLUMNS)}

    def validate(self) -> dict[str, float]:
        """Measure the averaged network on held-out faces: errors of some inputs and of the motion vector."""
        if self.held_out is None:
            return {}
        errors = measure_encoder(self.average, self.held_out)
        small = measure_encoder(self.average, self.held_out, SMALL_PICTURES)
        found = {f"Valid/{name}": float(errors.absolute[MOTION_INPUTS.index(name)]) for name in _WATCHED}
        found |= {f"Valid/vector_{name}": value for name, value in errors.vector.items()}
        return found | {f"Valid/vector_all_{SMALL_PICTURES}px": small.vector["all"]}

    def _sample(self, batch: MotionExample) -> MotionSample:
        image, *rest = (values.to(self.ranks.device, non_blocking=True) for values in batch)
        return MotionSample(from_uint8(image), *rest)

    def _grid_sample(self) -> MotionSample:
        return self._sample(next(self.examples.batches(GRID_COLUMNS * GRID_ROWS)))

    def _crops(self, sample: MotionSample) -> Tensor:
        return self.average.crop(sample.images, sample.landmarks, reverse_y=True)

    def _disturbed_crops(
        self, sample: MotionSample, generator: torch.Generator, host_generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return crops as training shows them, and their inputs."""
        disturbed = disturb_view(sample, self.config.disturb, generator, host_generator)
        return disturb_colours(self._crops(disturbed), self.config.disturb, generator), disturbed.inputs


def loss_weights(config: MotionLossConfig) -> Tensor:
    """Return how much each input's error counts, (27,)."""
    special = {"blink": config.blink, "gaze": config.gaze, "jaw_open": config.jaw}
    return torch.tensor(
        [next((weight for part, weight in special.items() if name.startswith(part)), 1.0) for name in MOTION_INPUTS]
    )


def build_motion_encoder_task(config: MotionEncoderTraining, ranks: Ranks) -> MotionEncoderTask:
    """Build the training of the compact motion encoder."""
    return MotionEncoderTask(config, ranks)


def _read_examples(config: MotionEncoderTraining) -> tuple[MotionExamples, MotionExamples | None]:
    """Return what is learnt from and what is only measured."""
    data, size = config.data, config.network.picture_size
    require_data(data)
    head = load_head(config.head)
    parts = [
        read(path, head, size)
        for read, path in ((read_stills, data.path), (read_clips, data.clips))
        if path is not None
    ]
    return join_examples(parts), None if data.held_out is None else read_stills(data.held_out, head, size)
