"""Held-out heads of the open head world, to measure a reconstructor while it learns.

Each head is reenacted by itself ("self") and by another person with the same motion ("cross"), and compared with its
exact rendering. Beside the network's figures stand those of two answers that need no network: the source's picture as
it is ("copy"), and the mean of all true pictures ("mean").
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from portrait4d.config.networks import ReconstructorConfig
from portrait4d.config.recon_training import MotionSource, ValidationConfig
from portrait4d.geometry.flame import HeadModel
from portrait4d.losses.reconstruction import Perceptual
from portrait4d.metrics.image_quality import depth_error, mask_overlap, psnr, ssim
from portrait4d.models.outputs import HeadRender
from portrait4d.ops.resize import resize_antialiased
from portrait4d.training.grids import GridTiles, depth_picture
from portrait4d.training.motion_choice import motion_reader
from portrait4d.training.rendered_subjects import RenderedSubjects
from portrait4d.training.supervision import SupervisedBatch
from portrait4d.training.synthetic_supervision import SyntheticHeadsSupervision, SyntheticSupervisionConfig

CHUNK = 4
RenderBatch = Callable[[SupervisedBatch], HeadRender]


class Validation:
    """Held-out subjects, rendered when they are first asked for.

    Args:
        config: how many, and their seed.
        network: sizes of the reconstructor.
        head: the open head model.
        motion: where motion vectors come from; with vectors that are not read from pictures another person's are the
            same, and there is no "cross".
        static: the model has no motion: subjects show one motion from several sides.
        perceptual: a learned distance to report too ("lpips"), or None.
    """

    def __init__(
        self,
        config: ValidationConfig,
        network: ReconstructorConfig,
        head: HeadModel,
        motion: MotionSource,
        static: bool = False,
        perceptual: Perceptual | None = None,
    ) -> None:
        self.config, self.network, self.head, self.motion, self.static = config, network, head, motion, static
        self.perceptual = perceptual
        self._subjects: dict[str, SupervisedBatch] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is measured."""
        if not self.config.subjects:
            return ()
        reads_pictures = self.motion in ("pdfgc", "synthetic") and not self.static
        return ("self", "cross") if reads_pictures else ("self",)

    def subjects(self, kind: str) -> SupervisedBatch:
        """Return the subjects of a kind."""
        if kind not in self._subjects:
            rendered = RenderedSubjects(
                self.network.image_resolution, self.network.render_resolution, cross_driving=kind == "cross"
            )
            supervision = SyntheticHeadsSupervision(
                rendered,
                self.head,
                SyntheticSupervisionConfig(self.network.image_resolution, static=self.static),
                motion_reader(self.motion, self.head.template.device),
            )
            generator = torch.Generator().manual_seed(self.config.seed)
            self._subjects[kind] = supervision.sample(self.config.subjects, generator)
        return self._subjects[kind]

    @torch.no_grad()
    def measure(self, render: RenderBatch) -> dict[str, float]:
        """Return the mean of every measure over the subjects, as "Valid/<kind>/<measure>"."""
        found: dict[str, float] = {}
        for kind in self.kinds:
            subjects = self.subjects(kind)
            rows: dict[str, list[Tensor]] = {}
            mean = subjects.target_image.mean(dim=0, keepdim=True)
            for part in _parts(subjects):
                picture = render(part)
                answers = {
                    "": picture.image_sr.float().clamp(-1, 1),
                    "copy_": part.source_image,
                    "mean_": mean.expand_as(part.target_image),
                }
                for name, answer in answers.items():
                    measures = compare_pictures(answer, part)
                    if self.perceptual is not None:
                        measures["lpips"] = self.perceptual(answer, part.target_image).flatten()
                    for measure, values in measures.items():
                        rows.setdefault(name + measure, []).append(values)
                for measure, values in compare_shapes(picture, part).items():
                    rows.setdefault(measure, []).append(values)
            found |= {f"Valid/{kind}/{name}": float(torch.cat(values).mean()) for name, values in rows.items()}
        return found

    @torch.no_grad()
    def draw(self, render: RenderBatch) -> dict[str, Tensor]:
        """Return a picture of some subjects, a row each: source, driving, ours, truth, our depth."""
        pictures = {}
        for kind in self.kinds:
            tiles = GridTiles()
            subjects = self.subjects(kind)
            for part in _parts(subjects.chunk(0, min(self.config.shown, len(subjects)))):
                result = render(part)
                depth = depth_picture(result.depth, result.transmittance)
                depth = torch.nn.functional.interpolate(depth, part.target_image.shape[-2:], mode="nearest")
                columns = (part.source_image, part.driving_image, result.image_sr, part.target_image, depth)
                for row in zip(*columns, strict=True):
                    for tile in row:
                        tiles.add(f"_valid_{kind}", tile[None])
            pictures |= tiles.lay_out(5)
        return pictures


def compare_pictures(answer: Tensor, truth: SupervisedBatch) -> dict[str, Tensor]:
    """Measure pictures (B, 3, S, S) against the subjects' true ones, (B,) each."""
    head = (resize_antialiased(truth.target_mask[:, :1], answer.shape[-1]) + 1) / 2
    return {
        "psnr": psnr(answer, truth.target_image),
        "psnr_head": psnr(answer, truth.target_image, head),
        "ssim": ssim(answer, truth.target_image),
    }


def compare_shapes(render: HeadRender, truth: SupervisedBatch) -> dict[str, Tensor]:
    """Measure mask and depth of a rendering against the subjects' true ones, (B,) each."""
    mask = (resize_antialiased(truth.target_mask[:, :1], render.mask.shape[-1]) + 1) / 2
    found = {"mask_iou": mask_overlap((render.mask + 1) / 2, mask)}
    if truth.depth is not None:
        found["depth_error"] = depth_error(render.depth, truth.depth, mask)
    return found


def _parts(batch: SupervisedBatch) -> Iterator[SupervisedBatch]:
    for start in range(0, len(batch), CHUNK):
        yield batch.chunk(start, min(start + CHUNK, len(batch)))
