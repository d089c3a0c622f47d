"""Portraits cut to a fixed frame by five face points, and the way back into the original picture.

Landmarks are (x, y) in pixels, x right, y down, as files hold them. A `Placement` says where a reference face lies in
a picture and how large it is; a `CropTransform` is the cut that follows from it. Source: preprocess-pipeline.md §5, §6.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.data.image_io import resize_picture

FIVE_POINTS_OF_98 = (96, 97, 54, 76, 82)
"""Image-left and image-right pupil, nose tip, image-left and image-right mouth corner among the 98 WFLW points."""

REFERENCE_POINTS = (
    (-0.31148657, 0.09036078, 0.13377953),
    (0.30979887, 0.08972035, 0.13179526),
    (0.0032535, -0.24617933, 0.55244243),
    (-0.25216928, -0.5813392, 0.22405732),
    (0.2484662, -0.5812824, 0.22235769),
)
"""The five points of the reference face, x right, y up, z to the viewer."""

_MOST_RESIZED_PIXELS = 1 << 26  # larger results are computed in the crop's part only, which may change a level or two


@dataclass(frozen=True)
class CropKind:
    """A frame for faces.

    Attributes:
        size: pixels per side.
        face_scale: pixels per unit of the reference face.
        raised: added to y of the reference points; their origin comes to the middle of the frame.
        advanced: added to z of the reference points.
        kernel: of the resize, see `resize_picture`.
        repeat_edge: whether the picture's edge is repeated outside it, where it is black otherwise.
    """

    size: int
    face_scale: float
    raised: float = 0.0
    advanced: float = 0.0
    kernel: str = "bilinear"
    repeat_edge: bool = False


PORTRAIT = CropKind(512, 180.0, raised=0.1, advanced=0.4, kernel="lanczos", repeat_edge=True)
"""The frame of prepared folders, which the networks are trained on."""

REGRESSOR = CropKind(224, 102.0)
"""The frame that the Deep3DFace network sees."""


class Placement(NamedTuple):
    """How a face lies in a picture.

    Attributes:
        scale: factor that brings the picture to the frame.
        shift: (x, y) of the reference face's origin in pixels of the picture, **y up**: H - 1 - y.
    """

    scale: float
    shift: tuple[float, float]


@dataclass(frozen=True)
class CropTransform:
    """A picture resized by `placement.scale`, then cut.

    Attributes:
        image_size: (width, height) of the original picture.
        placement: of the face in it.
        kind: of frame.
    """

    image_size: tuple[int, int]
    placement: Placement
    kind: CropKind = PORTRAIT

    @property
    def resized_size(self) -> tuple[int, int]:
        """(width, height) of the whole picture after the resize, cut to integers."""
        width, height = self.image_size
        return int(width * self.placement.scale), int(height * self.placement.scale)

    @property
    def corner(self) -> tuple[int, int]:
        """(left, upper) pixel of the resized picture that becomes the crop's first one; may lie outside."""
        (width, height), (new_width, new_height) = self.image_size, self.resized_size
        (x, y), scale, half = self.placement.shift, self.placement.scale, self.kind.size / 2
        return (
            int(new_width / 2 - half + (x - width / 2) * scale),
            int(new_height / 2 - half + (height / 2 - y) * scale),
        )

    @property
    def image_to_crop(self) -> Tensor:
        """(2, 3) float64 affine transform of pixel indices, as `warp_affine` takes it: original to crop.

        Exact for pixels: each axis has the factor that the resize to whole pixels really had.
        """
        factors = [new / old for new, old in zip(self.resized_size, self.image_size, strict=True)]
        rows = [
            [factor * (axis == 0), factor * (axis == 1), 0.5 * factor - 0.5 - first]
            for axis, (factor, first) in enumerate(zip(factors, self.corner, strict=True))
        ]
        return torch.tensor(rows, dtype=torch.float64)

    @property
    def crop_to_image(self) -> Tensor:
        """(2, 3) float64, the inverse of `image_to_crop`: what pastes a result back into the original picture."""
        matrix = self.image_to_crop
        inverse = torch.linalg.inv(matrix[:, :2])
        return torch.cat([inverse, -inverse @ matrix[:, 2:]], 1)

    def landmarks_to_crop(self, points: Tensor, exact: bool = False) -> Tensor:
        """Carry landmarks of the picture into the crop.

        Args:
            points: (..., N, 2 or more) in pixels of the picture, y down; columns after y are dropped.
            exact: follow the pixels (`image_to_crop`) instead of the published files, whose landmarks lie by up to a
                few pixels off them: they are not cut to integers as the crop is, and y is turned over asymmetrically.

        Returns:
            (..., N, 2) float64 in pixels of the crop, y down.
        """
        points = points[..., :2].double()
        if exact:
            matrix = self.image_to_crop.to(points.device)
            return points @ matrix[:, :2].T + matrix[:, 2]
        (width, height), (new_width, new_height) = self.image_size, self.resized_size
        (shift_x, shift_y), scale, half = self.placement.shift, self.placement.scale, self.kind.size / 2
        x = (points[..., 0] - shift_x + width / 2) * scale - (new_width / 2 - half)
        y_up = (height - 1 - points[..., 1] - shift_y + height / 2) * scale - (new_height / 2 - half)
        return torch.stack([x, self.kind.size - y_up], -1)


class PortraitCrop(NamedTuple):
    """A portrait in its frame.

    Attributes:
        image: (3, S, S) float32 in [-1, 1].
        landmarks98: (98, 2) float64 in pixels of the crop, y down.
        landmarks68: (68, 2) likewise, or None if none were given.
        transform: between the original picture and the crop.
    """

    image: Tensor
    landmarks98: Tensor
    landmarks68: Tensor | None
    transform: CropTransform


def crop_portrait(
    image: Tensor,
    landmarks98: Tensor,
    landmarks68: Tensor | None = None,
    kind: CropKind = PORTRAIT,
    placement: Placement | None = None,
) -> PortraitCrop:
    """Cut a face to its frame and carry its landmarks along.

    Args:
        image: (3, H, W) in [-1, 1].
        landmarks98: (98, 2) WFLW points in pixels of the picture, y down.
        landmarks68: (68, 2 or 3) likewise, or None.
        kind: of frame.
        placement: a smoothed one for instance; None fits it to the landmarks.

    Raises:
        ValueError: other shapes, or landmarks that make no face.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image: expected shape (3, H, W), got {tuple(image.shape)}")
    height, width = image.shape[1:]
    placement = fit_placement(landmarks98, height, kind) if placement is None else placement
    transform = CropTransform((width, height), placement, kind)
    moved68 = None if landmarks68 is None else transform.landmarks_to_crop(landmarks68)
    return PortraitCrop(cut_crop(image, transform), transform.landmarks_to_crop(landmarks98), moved68, transform)


def fit_placement(landmarks98: Tensor, image_height: int, kind: CropKind = PORTRAIT) -> Placement:
    """Fit the reference face to landmarks by least squares, as an affine camera sees it.

    Args:
        landmarks98: (98, 2) WFLW points in pixels of a picture, y down.
        image_height: of that picture in pixels.
        kind: of frame.

    Raises:
        ValueError: another shape, or points that are not finite or lie all in one place.

    Source: preprocess-pipeline.md §5.2.
    """
    if landmarks98.shape != (98, 2):
        raise ValueError(f"landmarks98: expected shape (98, 2), got {tuple(landmarks98.shape)}")
    points = landmarks98.detach().cpu().double()[list(FIVE_POINTS_OF_98)]
    points = torch.stack([points[:, 0], image_height - 1 - points[:, 1]], -1)
    *axes, shift = _reference_inverse(kind) @ points
    length = torch.stack(axes).norm(dim=0).mean().item()
    if not math.isfinite(length) or length < 1e-6:
        raise ValueError(f"landmarks98: expected the points of a face, got one of {length:.3g} pixels")
    return Placement(kind.face_scale / length, tuple(shift.tolist()))


def cut_crop(image: Tensor, transform: CropTransform) -> Tensor:
    """Resize a picture (3, H, W) in [-1, 1] and cut its crop (3, S, S) float32, on the CPU.

    Raises:
        ValueError: a picture of another size than the transform's, or one that the resize would make vanish.
    """
    if (image.shape[2], image.shape[1]) != transform.image_size:
        expected, actual = transform.image_size, (image.shape[2], image.shape[1])
        raise ValueError(f"image: expected width and height {expected}, got {actual}")
    size = transform.kind.size
    whole = math.prod(transform.resized_size) <= _MOST_RESIZED_PIXELS
    wanted, kept, spans, box = [], [], [], []
    for first, new, old in zip(transform.corner, transform.resized_size, transform.image_size, strict=True):
        pixels = torch.arange(first, first + size)
        inside = pixels.clamp(0, max(new - 1, 0))
        start, end = (0, new) if whole else (int(inside[0]), int(inside[-1]) + 1)
        wanted.append(inside - start)
        kept.append(pixels == inside)
        spans.append(end - start)
        box.append((start * old / new if new else 0, end * old / new if new else old))
    (left, right), (upper, lower) = box
    part = resize_picture(image, tuple(spans), transform.kind.kernel, None if whole else (left, upper, right, lower))
    crop = part[:, wanted[1]][:, :, wanted[0]]
    if transform.kind.repeat_edge:
        return crop
    return torch.where(kept[1][:, None] & kept[0], crop, -1.0)


@lru_cache
def _reference_inverse(kind: CropKind) -> Tensor:
    """Return the (4, 5) matrix from five points to the least-squares images of the axes and of the origin."""
    points = torch.tensor(REFERENCE_POINTS, dtype=torch.float64)
    points = points + torch.tensor([0, kind.raised, kind.advanced], dtype=torch.float64)
    return torch.linalg.pinv(torch.cat([points, torch.ones(5, 1, dtype=torch.float64)], 1))
