"""What drives a head in one frame, as plain numbers, and how a driver's becomes the source's.

The face's numbers are expression 0:100 | jaw 100:103 | eyes 103:109 | motion 109:657, see `geometry/head_params.py`.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from portrait4d.config.networks import MOTION_DIMS
from portrait4d.geometry.cameras import CAMERA_DIM
from portrait4d.geometry.head_params import EXPRESSION_DIM, LABEL_DIM, SHAPE_DIM, HeadParams

FACE_PARTS = {
    "expression": slice(0, 100),
    "jaw": slice(100, 103),
    "eyes": slice(103, 109),
    "motion": slice(109, 657),
}
FACE_DIM = FACE_PARTS["motion"].stop
MOTION_DIM = MOTION_DIMS["pdfgc"]

_EXPRESSION = CAMERA_DIM + SHAPE_DIM
_NECK = _EXPRESSION + EXPRESSION_DIM


@dataclass(frozen=True)
class HeadState:
    """Pose and expression of a head, whoever it belongs to.

    Attributes:
        camera: (25,) float64, as labels hold it: the head upright.
        neck_rad: (3,) float64 axis-angle of the head's rotation.
        face: (657,) float64, the face's numbers.
    """

    camera: np.ndarray
    neck_rad: np.ndarray
    face: np.ndarray

    @classmethod
    def from_label(cls, label: np.ndarray, motion: np.ndarray) -> "HeadState":
        """Take the state out of a frame label (437,) and a motion vector (548,).

        Raises:
            ValueError: another shape, or numbers that are not finite.
        """
        if label.shape != (LABEL_DIM,) or motion.shape != (MOTION_DIM,):
            raise ValueError(f"label, motion: expected shapes (437,) and (548,), got {label.shape} and {motion.shape}")
        numbers = np.concatenate([label, motion]).astype(np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError("label, motion: expected finite numbers")
        face = np.concatenate([numbers[_EXPRESSION:_NECK], numbers[_NECK + 3 :]])
        return cls(numbers[:CAMERA_DIM], numbers[_NECK : _NECK + 3], face)

    def head_params(self, shape: torch.Tensor) -> HeadParams:
        """Return head parameters (batch size 1) on an identity (1, 300), on its device."""
        neck, face = (torch.from_numpy(part).to(shape)[None] for part in (self.neck_rad, self.face))
        expression, jaw, eyes, _ = (face[:, part] for part in FACE_PARTS.values())
        return HeadParams(shape, expression, torch.cat([neck, jaw], dim=1), eyes)

    def blend(self, other: "HeadState", share: float) -> "HeadState":
        """Go from this state to another one: 0 is this, 1 is the other; the camera is the other's."""
        turn = Rotation.from_rotvec(other.neck_rad) * Rotation.from_rotvec(self.neck_rad).inv()
        neck = Rotation.from_rotvec(share * turn.as_rotvec()) * Rotation.from_rotvec(self.neck_rad)
        return HeadState(other.camera, neck.as_rotvec(), self.face + share * (other.face - self.face))


@dataclass(frozen=True)
class Retargeting:
    """How a driver's states become those of a source.

    Attributes:
        own: the source's state in its photo.
        relative: take over what changes since the driver's first state, instead of the state.
        expression_scale: factor on the distance of expressions from the source's own, or on their change.
    """

    own: HeadState
    relative: bool = False
    expression_scale: float = 1.0

    def retarget(self, driver: HeadState, first: HeadState) -> HeadState:
        """Return the source's state when the driver is in `driver` and was in `first` at the beginning."""
        rest = first if self.relative else self.own
        neck_rad = driver.neck_rad
        if self.relative:
            neck, start, own = map(Rotation.from_rotvec, (driver.neck_rad, first.neck_rad, self.own.neck_rad))
            neck_rad = (neck * start.inv() * own).as_rotvec()
        face = self.own.face + self.expression_scale * (driver.face - rest.face)
        return replace(driver, neck_rad=neck_rad, face=face)
