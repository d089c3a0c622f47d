"""How far a reconstructed head is from the picture it should be: terms of both reconstructors' trainings.

Source: training-recon-v1.md §8, training-recon-v2.md §5. Pictures, features and masks are in [-1, 1] here, as they are
there; learned distances (LPIPS, face identity) are passed as functions.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.geometry.face_alignment import identity_crop
from portrait4d.ops.resize import resize_antialiased

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Two pictures (B, 3, H, W) to their distance, B numbers."""

Identity = Callable[[Tensor], Tensor]
"""Face crops (B, 3, 112, 112) to embeddings (B, D)."""

EYELIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
EYE_CORNERS = ((36, 39), (42, 45))
"""Pairs of landmarks that measure an eye's opening and its length."""

EMPHASISED = ((36, 42), (42, 48), (48, 68))
"""Landmarks, first and behind the last, of eyes and mouth."""


class HeadPictures(NamedTuple):
    """The four pictures of a head that are compared, of S and of R pixels a side.

    Attributes:
        full: (B, 3, S, S).
        raw: (B, 3, R, R).
        foreground: (B, 3, R, R) the head over black.
        background: (B, 3, R, R) without the head.
    """

    full: Tensor
    raw: Tensor
    foreground: Tensor
    background: Tensor


class ReconstructionTarget(NamedTuple):
    """What should come out.

    Attributes:
        pictures: see `HeadPictures`.
        mask: (B, 1 or 3, R, R) of the head, resized.
        background: (B, F, R, R) of the synthetic scene, resized; None for real pictures, of whose background only what
            the head does not hide is known.
    """

    pictures: HeadPictures
    mask: Tensor
    background: Tensor | None


def cut_out(picture: Tensor, mask: Tensor) -> Tensor:
    """Return what the mask shows of a picture, over black: 2 (x + 1) / 2 (m + 1) / 2 - 1.

    Args:
        picture: (B, C, H, W) in [-1, 1].
        mask: (B, 1 or C, H, W) in [-1, 1]; its negative shows the rest.
    """
    return (picture + 1) * (mask + 1) / 2 - 1


def build_target(
    image: Tensor, mask: Tensor, resolution: int, background: Tensor | None = None
) -> ReconstructionTarget:
    """Prepare what a rendering of `resolution` rays a side is compared with.

    Args:
        image: (B, 3, S, S).
        mask: (B, 1 or 3, H, W) of the head.
        resolution: R.
        background: (B, F >= 3, H, W) features of the synthetic background, colours first; None for real pictures.
    """
    raw, mask = resize_antialiased(image, resolution), resize_antialiased(mask, resolution)
    if background is not None:
        background = resize_antialiased(background, resolution)
    behind = cut_out(raw, -mask) if background is None else background[:, :3]
    return ReconstructionTarget(HeadPictures(image, raw, cut_out(raw, mask), behind), mask, background)


def paired_pictures(predicted: HeadPictures, target: ReconstructionTarget) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each predicted picture and its target; of a background only what is known, see `ReconstructionTarget`."""
    if target.background is None:
        predicted = predicted._replace(background=cut_out(predicted.background, -target.mask))
    yield from zip(predicted, target.pictures, strict=True)


def perceptual_loss(predicted: HeadPictures, target: ReconstructionTarget, perceptual: Perceptual) -> Tensor:
    """Return the sum (B,) of the perceptual distances of the four pictures."""
    return sum(perceptual(ours, theirs).flatten() for ours, theirs in paired_pictures(predicted, target))


def face_emphasis(landmarks_pixels: Tensor, size: int) -> Tensor:
    """Return where eyes and mouth are, (B, 1, S, S) in [0, 1]: one Gaussian each, as wide as the feature.

    Args:
        landmarks_pixels: (B, >= 68, 2), y up.
        size: S.
    """
    places = torch.arange(size, device=landmarks_pixels.device) + 0.5
    found = []
    for first, last in EMPHASISED:
        points = landmarks_pixels[:, first:last]
        centre = points.mean(dim=1)
        radius = (points.amax(dim=1) - points.amin(dim=1)).amax(dim=1, keepdim=True).clamp_min(1) * 0.6
        across = ((places - centre[:, :1]) / radius).square()
        down = ((size - places - centre[:, 1:2]) / radius).square()
        found.append(torch.exp(-(across[:, None, :] + down[:, :, None])))
    return torch.stack(found, dim=1).amax(dim=1, keepdim=True)


def emphasised_loss(image: Tensor, target: Tensor, emphasis: Tensor) -> Tensor:
    """Return the mean of |difference| * emphasis over pictures (B, 3, S, S), a scalar."""
    return ((image - target).abs() * emphasis).mean()


def absolute_loss(predicted: HeadPictures, target: ReconstructionTarget) -> Tensor:
    """Return the sum of the mean absolute differences of the four pictures, a scalar."""
    return sum(functional.l1_loss(ours, theirs) for ours, theirs in paired_pictures(predicted, target))


def identity_loss(image: Tensor, target: Tensor, landmarks_pixels: Tensor, identity: Identity) -> Tensor:
    """Return 1 - cosine (B,) between the face embeddings of two pictures (B, 3, S, S), cut out by the same landmarks.

    Args:
        image: predicted.
        target: to be resembled.
        landmarks_pixels: (B, 70, 2) of the head model, y up; they carry no gradient.
        identity: the embedding.
    """
    crops = (identity_crop(picture, landmarks_pixels, reverse_y=True)[0] for picture in (image, target))
    return 1 - functional.cosine_similarity(*(identity(crop) for crop in crops), dim=1)


def mask_loss(predicted: Tensor, target: ReconstructionTarget) -> Tensor:
    """Return the mean absolute difference of a predicted mask (B, 1, R, R) and each channel of the target's."""
    return (target.mask - predicted).abs().mean()


def depth_loss(predicted: Tensor, synthetic: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute difference of depths (B, 1, R, R), weighted by a mask (B, 1, R, R) in [0, 1]."""
    return ((synthetic - predicted) * mask).abs().mean()


def feature_loss(foreground: Tensor, background: Tensor, synthetic: Tensor, target: ReconstructionTarget) -> Tensor:
    """Compare feature maps (B, F, R, R) with those of the synthetic scene, head and background each by itself.

    Args:
        foreground: predicted features of the head over black.
        background: predicted features of the background.
        synthetic: features of the whole synthetic scene.
        target: with background.

    Raises:
        ValueError: on a target without background.
    """
    if target.background is None:
        raise ValueError("target: expected one with a synthetic background, got a real picture's")
    ours = functional.l1_loss(foreground, cut_out(synthetic, target.mask))
    return ours + functional.l1_loss(background, target.background)


def novel_view_loss(
    student: Tensor, student_mask: Tensor, teacher: Tensor, teacher_mask: Tensor, perceptual: Perceptual
) -> Tensor:
    """Return the perceptual distance (B,) of two renderings (B, 3, S, S) of a head, each cut out by its own mask.

    Masks (B, 1, R, R) are resized to S. Source: training-recon-v2.md §5, Greg, step 4.
    """
    size = student.shape[-1]
    cut = (
        cut_out(picture, resize_antialiased(mask, size))
        for picture, mask in ((student, student_mask), (teacher, teacher_mask))
    )
    return perceptual(*cut).flatten()


def teacher_box_scale(landmarks_pixels: Tensor) -> Tensor:
    """Return the factor on a teacher's box that makes its head as large as it should be, from how open its eyes are.

    e = mean opening / mean length of the eyes, at most 0.3; k = 0.97 + 0.1 e. Source: training-recon-v2.md §5.

    Args:
        landmarks_pixels: (B, >= 48, 2) seen from the front.

    Returns:
        (B,) in [0.97, 1].
    """

    def mean_distance(pairs: tuple[tuple[int, int], ...]) -> Tensor:
        first, second = (landmarks_pixels[:, list(ends)] for ends in zip(*pairs, strict=True))
        return ((first - second).square().sum(dim=-1) + 1e-10).sqrt().mean(dim=1)

    openness = (mean_distance(EYELIDS) / mean_distance(EYE_CORNERS)).clamp(0, 0.3)
    return torch.clamp(0.97 + 0.1 * openness, 0.97, 1.0)
