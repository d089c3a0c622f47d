"""What a tracker says of a face, whoever tracks: published networks, our open head world, or a prepared folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class CropPlace:
    """Where a crop lies in its picture.

    Attributes:
        image_size: (width, height) of the picture.
        crop_to_image: (2, 3) float64, affine map of pixel indices of the crop, y down, to those of the picture, as
            `geometry.face_alignment.warp_affine` takes it.
    """

    image_size: tuple[int, int]
    crop_to_image: np.ndarray

    @classmethod
    def whole(cls, size: int) -> "CropPlace":
        """Return the place of a crop that is its own picture of `size` pixels a side."""
        return cls((size, size), np.eye(2, 3))

    def resized(self, old: int, new: int) -> "CropPlace":
        """Return the place of the same crop when it has `new` instead of `old` pixels a side."""
        factor = old / new
        matrix = self.crop_to_image
        shift = matrix[:, 2] + matrix[:, :2].sum(axis=1) * (factor - 1) / 2
        return CropPlace(self.image_size, np.column_stack([factor * matrix[:, :2], shift]))


@dataclass(frozen=True)
class TrackedFrame:
    """A face that was found.

    Attributes:
        image: (3, S, S) float32 in [-1, 1], the aligned crop.
        label: (437,) float32 frame label, see `geometry/head_params.py`.
        landmarks_pixels: (68, 2) in pixels of the crop, y down.
        motion: (548,) float32 motion vector.
        crop: the way from the crop into its picture.
    """

    image: Tensor
    label: np.ndarray
    landmarks_pixels: np.ndarray
    motion: np.ndarray
    crop: CropPlace


class Tracker(Protocol):
    """Follows the largest face of one clip."""

    def track(self, pictures: Sequence[np.ndarray]) -> list[TrackedFrame | None]:
        """Track the next pictures of the clip, uint8 (H, W, 3) RGB, in order; None where there is no face."""
        ...


class TrackerMaker(Protocol):
    """Makes trackers; networks are loaded on the first call and then shared.

    Attributes:
        name: what tracks, and its version; what is cached of its results belongs to it.
        hint: what to tell a user in whose pictures no face is found.
    """

    name: str
    hint: str

    def __call__(self) -> Tracker:
        """Return a tracker for a new clip."""
        ...
