"""Held-out heads of the open head world, to measure a reconstructor while it learns.

Each head is reenacted by itself ("self") and by another person with the same motion ("cross"), and compared with its
exact rendering; so are the clips of `held_out_clips`, of which "jitter" tells how accelerations differ from the true
ones, in levels of 255. Beside the network's figures stand those of two answers that need no network: the source's
picture as it is ("copy"), and the mean of all true pictures ("mean").
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from portrait4d.config.networks import ReconstructorConfig
from portrait4d.config.recon_training import MotionSource, ValidationConfig
from portrait4d.geometry.flame import HeadModel
from portrait4d.losses.reconstruction import Perceptual
from portrait4d.metrics.frame_errors import LEVELS, jitter
from portrait4d.metrics.image_quality import depth_error, mask_overlap, psnr, ssim
from portrait4d.models.outputs import HeadRender
from portrait4d.ops.resize import resize_antialiased
from portrait4d.training.grids import GridTiles, depth_picture
from portrait4d.training.held_out_clips import CLIP_CROSS, CLIP_NOVEL, CLIP_SELF, render_clips
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

    @property
    def clip_kinds(self) -> tuple[str, ...]:
        """What is measured of clips besides."""
        if self.static or not self.config.clips or not self.config.subjects:
            return ()
        return (CLIP_SELF, CLIP_CROSS, CLIP_NOVEL) if "cross" in self.kinds else (CLIP_SELF, CLIP_NOVEL)

    def subjects(self, kind: str) -> SupervisedBatch:
        """Return the subjects of a kind; of clips frame after frame, clip after clip."""
        if kind not in self._subjects and kind in self.clip_kinds:
            clips = render_clips(self.config, self.network.image_resolution, self.clip_kinds)
            supervision = self._supervision()
            self._subjects |= {name: supervision.assemble(subjects) for name, subjects in clips.items()}
        elif kind not in self._subjects:
            generator = torch.Generator().manual_seed(self.config.seed)
            self._subjects[kind] = self._supervision(kind == "cross").sample(self.config.subjects, generator)
        return self._subjects[kind]

    def _supervision(self, cross_driving: bool = False) -> SyntheticHeadsSupervision:
        size = self.network.image_resolution
        return SyntheticHeadsSupervision(
            RenderedSubjects(size, self.network.render_resolution, cross_driving),
            self.head,
            SyntheticSupervisionConfig(size, static=self.static),
            motion_reader(self.motion, self.head.template.device),
        )

    @torch.no_grad()
    def measure(self, render: RenderBatch) -> dict[str, float]:
        """Return the mean of every measure over the subjects, as "Valid/<kind>/<measure>"."""
        found: dict[str, float] = {}
        for kind in (*self.kinds, *self.clip_kinds):
            subjects = self.subjects(kind)
            rows: dict[str, list[Tensor]] = {}
            mean = subjects.target_image.mean(dim=0, keepdim=True)
            is_clip = kind in self.clip_kinds
            for part in _parts(subjects, self.config.clip_frames if is_clip else CHUNK):
                for name, values in self._compare(render(part), part, mean, is_clip).items():
                    rows.setdefault(name, []).append(values)
            found |= {f"Valid/{kind}/{name}": float(torch.cat(values).mean()) for name, values in rows.items()}
        return found

    def _compare(self, picture: HeadRender, part: SupervisedBatch, mean: Tensor, is_clip: bool) -> dict[str, Tensor]:
        """Measure all answers; the frames of a clip are consecutive ones."""
        answers = {
            "": picture.image_sr.float().clamp(-1, 1),
            "copy_": part.source_image,
            "mean_": mean.expand_as(part.target_image),
        }
        rows: dict[str, Tensor] = {}
        for name, answer in answers.items():
            measures = compare_pictures(answer, part)
            if self.perceptual is not None:
                measures["lpips"] = self.perceptual(answer, part.target_image).flatten()
            if is_clip:
                measures["jitter"] = LEVELS * jitter(answer, part.target_image)
            rows |= {name + measure: values for measure, values in measures.items()}
        return rows | compare_shapes(picture, part)

    @torch.no_grad()
    def draw(self, render: RenderBatch) -> dict[str, Tensor]:
        """Return a picture of some subjects, a row each: source, driving, ours, truth, our depth."""
        pictures = {}
        for kind in (*self.kinds, *self.clip_kinds):
            tiles = GridTiles()
            subjects = self.subjects(kind)
            for part in _parts(subjects.chunk(0, min(self.config.shown, len(subjects))), CHUNK):
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


def _parts(batch: SupervisedBatch, size: int) -> Iterator[SupervisedBatch]:
    for start in range(0, len(batch), size):
        yield batch.chunk(start, min(start + size, len(batch)))
