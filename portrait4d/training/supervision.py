"""What a reconstructor is trained on: pictures of one head from several sides, and everything known about them.

Who makes it (a generator, an open head world, a database) is a `Supervision`; the losses see only the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from portrait4d.geometry.head_params import HeadParams
from portrait4d.models.pretrained.motion_encoder import MotionEncoder
from portrait4d.synthetic_heads.motions import Motion, motion_vector

MotionOf = Callable[[Tensor, Tensor, HeadParams], Tensor]
"""Pictures (B, 3, S, S) in [-1, 1], their landmarks (B, 70, 2) in pixels with y **up**, and their head parameters to
motion vectors (B, D)."""


class PlaneSamples(NamedTuple):
    """What tri-planes hold at points: `points_world` (B, N, 3) before any deformation, `features` (B, N, F)."""

    points_world: Tensor
    features: Tensor


@dataclass(frozen=True)
class SupervisedBatch:
    """B subjects, each with a source, a driving and a target picture; driving and target share their motion.

    Pictures and masks are in [-1, 1], S pixels a side unless said; R is the number of rays a side.

    Attributes:
        source_image, driving_image, target_image: (B, 3, S, S).
        target_mask: (B, 1 or 3, R or S, R or S) of the head.
        target_correspondence: (B, 3, S, S) correspondence map of the target's mesh; None where no discriminator looks.
        camera: (B, 25) that sees the target with its neck posed.
        camera_upright: (B, 25) that sees the target with its neck unrotated, which discriminators are told.
        params: shape of the source; expression, pose and eyes of the driving view, which are the target's.
        source_motion, driving_motion: (B, D).
        is_still: (B,) bool, subjects without motion of their own, for which the reconstructor's motion scale is 0.
        depth: (B, 1, R, R) distance along the ray in world units, or None.
        features: (B, F, R, R) of head and background, colours first, or None.
        background: (B, F, R, R) of the background alone, or None.
        plane_samples: of the face's planes, or None.
    """

    source_image: Tensor
    driving_image: Tensor
    target_image: Tensor
    target_mask: Tensor
    target_correspondence: Tensor | None
    camera: Tensor
    camera_upright: Tensor
    params: HeadParams
    source_motion: Tensor
    driving_motion: Tensor
    is_still: Tensor
    depth: Tensor | None = None
    features: Tensor | None = None
    background: Tensor | None = None
    plane_samples: PlaneSamples | None = None

    def __len__(self) -> int:
        return len(self.target_image)

    def chunk(self, start: int, stop: int) -> "SupervisedBatch":
        """Return subjects `start` to `stop` (exclusive); nothing is copied.

        Raises:
            ValueError: unless 0 <= start < stop <= B.
        """
        if not 0 <= start < stop <= len(self):
            raise ValueError(f"start, stop: expected 0 <= start < stop <= {len(self)}, got {start} and {stop}")
        return _rebuild([self], lambda values: values[0][start:stop])

    def motion_scale(self, scale: float = 1.0) -> Tensor:
        """Return how strongly motion works on each subject, (B, 1, 1): `scale`, or 0 for still ones."""
        return scale * (~self.is_still).to(self.target_image.dtype)[:, None, None]


def join_batches(batches: Sequence[SupervisedBatch]) -> SupervisedBatch:
    """Join batches; of plane samples each subject keeps as many as the subject with the fewest has.

    Raises:
        ValueError: no batch, or an extra that some have and some have not.
    """
    if not batches:
        raise ValueError("batches: expected at least one, got none")
    return _rebuild(batches, torch.cat)


def _rebuild(batches: Sequence[SupervisedBatch], combine: Callable[[list[Tensor]], Tensor]) -> SupervisedBatch:
    """Build a batch whose tensors are combined from those of the same name."""

    def build(values: list) -> object:
        first = values[0]
        if any((value is None) != (first is None) for value in values):
            raise ValueError("batches: expected the same extras in all, got some without")
        if first is None or isinstance(first, Tensor):
            return None if first is None else combine(values)
        if isinstance(first, HeadParams):
            parts = [[getattr(value, part.name) for value in values] for part in fields(HeadParams)]
            return HeadParams(*(combine(part) for part in parts))
        fewest = min(value.points_world.shape[1] for value in values)
        return PlaneSamples(*(combine([samples[:, :fewest] for samples in part]) for part in zip(*values, strict=True)))

    names = [part.name for part in fields(SupervisedBatch)]
    return SupervisedBatch(**{name: build([getattr(batch, name) for batch in batches]) for name in names})


class Supervision(Protocol):
    """A source of supervised batches."""

    def sample(self, subjects: int, generator: torch.Generator | None = None) -> SupervisedBatch:
        """Draw a batch without gradient; everything random comes from `generator`, on any device."""
        ...


def cpu_generator(generator: torch.Generator | None) -> torch.Generator | None:
    """Return a generator on the CPU: this one if it is there, else one that starts from a number it draws."""
    if generator is None or generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))


def count_still(subjects: int, static: bool, half_static: bool) -> int:
    """Return how many subjects of a batch, its last ones, show one motion in all views (training-recon-v1.md §4).

    Raises:
        ValueError: less than one subject.
    """
    if subjects < 1:
        raise ValueError(f"subjects: expected at least 1, got {subjects}")
    if static:
        return subjects
    return subjects // 2 if half_static else 0


def flame_motion(images: Tensor, landmarks_pixels: Tensor, params: HeadParams) -> Tensor:
    """Return the head model's own motion (B, 109) = expression | jaw | eyes; a `MotionOf`."""
    del images, landmarks_pixels
    return params.flame_motion()


def synthetic_motion(images: Tensor, landmarks_pixels: Tensor, params: HeadParams) -> Tensor:
    """Return the motion vectors (B, 548) of the open head world, exactly as it stores them; a `MotionOf`.

    The right eye is taken to look where the left one does.
    """
    del images, landmarks_pixels
    still = np.zeros(3, np.float32)
    rows = [
        torch.from_numpy(motion_vector(Motion(expression, still, pose[3:], eyes[:3], still)))
        for expression, pose, eyes in zip(
            *(part.float().cpu().numpy() for part in (params.expression, params.pose, params.eye_pose)), strict=True
        )
    ]
    return torch.stack(rows).to(params.pose)


def encoded_motion(encoder: MotionEncoder) -> MotionOf:
    """Return the function that reads motion (B, 548) from pictures with an encoder on their device."""

    def motion(images: Tensor, landmarks_pixels: Tensor, params: HeadParams) -> Tensor:
        del params
        return encoder.encode_motion(images, landmarks_pixels, reverse_y=True)

    return motion
