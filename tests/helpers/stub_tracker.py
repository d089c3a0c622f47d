"""A stand-in for trackers: a picture's brightness is a head's turn, and dark pictures have no face."""

from collections.abc import Sequence

import numpy as np
import torch

from portrait4d.data.image_io import from_uint8
from portrait4d.geometry.cameras import FRONTAL_POSITION, intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.head_params import LABEL_DIM
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.inference.tracking import CropPlace, TrackedFrame
from portrait4d.ops.resize import resize_antialiased

SIDE = 64
DARK = 30
NECK = slice(425, 428)


def turned_label(yaw_rad: float) -> np.ndarray:
    """Return the label (437,) of a neutral head turned about the vertical axis, as fitting writes it."""
    label = torch.zeros(LABEL_DIM)
    label[426] = yaw_rad
    turn_back = torch.eye(4)
    turn_back[:3, :3] = axis_angle_to_matrix(label[NECK]).T
    frontal = orbit_cam2world(torch.zeros(()), torch.zeros(()), FRONTAL_POSITION)
    label[:25] = join_camera(turn_back @ frontal, intrinsics_from_fov())
    return label.numpy()


def grey_picture(level: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Return an even picture (H, W, 3); the level is the head's turn in hundredths of a radian."""
    return np.full((height, width, 3), level, np.uint8)


class StubTracker:
    """Finds a square in the middle of each picture; see `portrait4d.inference.tracking.Tracker`.

    Attributes:
        noise_rad: deviation of the turn, from frame to frame.
    """

    def __init__(self, noise_rad: float = 0.0) -> None:
        self.noise_rad = noise_rad
        self._random = np.random.default_rng(0)

    def track(self, pictures: Sequence[np.ndarray]) -> list[TrackedFrame | None]:
        """Track pictures."""
        return [None if rows.mean() < DARK else self._track(rows) for rows in pictures]

    def _track(self, rows: np.ndarray) -> TrackedFrame:
        height, width = rows.shape[:2]
        side = min(height, width) // 2
        left, upper = (width - side) // 2, (height - side) // 2
        crop = from_uint8(torch.from_numpy(rows[upper : upper + side, left : left + side]).permute(2, 0, 1))
        place = CropPlace((width, height), np.array([[1.0, 0, left], [0, 1.0, upper]])).resized(side, SIDE)
        turn = (rows.mean() - 128) / 100 + self.noise_rad * self._random.normal()
        motion = (0.1 * np.sin(np.arange(548) + 3 * turn)).astype(np.float32)
        points = np.tile([[SIDE / 2, SIDE / 2]], (68, 1))
        return TrackedFrame(resize_antialiased(crop[None], SIDE)[0], turned_label(turn), points, motion, place)


class StubTrackers:
    """Makes `StubTracker`s, and counts them; see `portrait4d.inference.tracking.TrackerMaker`."""

    name = "stub 1"
    hint = "take a brighter picture"

    def __init__(self, noise_rad: float = 0.0) -> None:
        self.noise_rad, self.made = noise_rad, 0

    def __call__(self) -> StubTracker:
        """Return a tracker."""
        self.made += 1
        return StubTracker(self.noise_rad)
