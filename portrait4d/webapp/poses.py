"""What the sliders of the page mean: a motion of the open head, and where it is seen from."""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from portrait4d.files.errors import UserError
from portrait4d.geometry.cameras import FOV_DEG, FRONTAL_POSITION, intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.head_params import EXPRESSION_DIM, HeadParams
from portrait4d.synthetic_heads.head_expressions import FULL_EXPRESSION
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.synthetic_heads.motions import CAMERA_MEAN, Motion

JAW_RANGE_RAD = 0.24
"""How far the jaw is open at 1: the most that portraits of the open head world show."""
_EXPRESSIONS = {
    "smile": ("joy",),
    "sadness": ("sadness",),
    "surprise": ("surprise",),
    "anger": ("anger",),
    "blink": ("blink_left", "blink_right"),
}


@dataclass(frozen=True)
class HeadPose:
    """The sliders' values.

    Attributes:
        yaw_deg, pitch_deg: camera about the head, to the picture's right and up.
        zoom: factor on the size of the head in the picture.
        jaw, smile, sadness, surprise, anger, blink: 0 not at all, 1 completely.
        gaze_right_deg, gaze_up_deg: both eyes, to the picture's right and up.
    """

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    zoom: float = 1.0
    jaw: float = 0.0
    smile: float = 0.0
    sadness: float = 0.0
    surprise: float = 0.0
    anger: float = 0.0
    blink: float = 0.0
    gaze_right_deg: float = 0.0
    gaze_up_deg: float = 0.0


@dataclass(frozen=True)
class Slider:
    """A slider: the field of `HeadPose` that it sets, what the page calls it, its range and step."""

    field: str
    label: str
    low: float
    high: float
    step: float


SLIDERS = (
    Slider("yaw_deg", "Yaw (°)", -45, 45, 1),
    Slider("pitch_deg", "Pitch (°)", -30, 30, 1),
    Slider("zoom", "Zoom", 0.7, 2.0, 0.05),
    Slider("jaw", "Jaw open", 0, 1, 0.05),
    Slider("smile", "Smile", 0, 1, 0.05),
    Slider("sadness", "Sadness", 0, 1, 0.05),
    Slider("surprise", "Surprise", 0, 1, 0.05),
    Slider("anger", "Anger", 0, 1, 0.05),
    Slider("blink", "Eyes closed", 0, 1, 0.05),
    Slider("gaze_right_deg", "Gaze aside (°)", -19, 19, 1),
    Slider("gaze_up_deg", "Gaze up (°)", -11, 11, 1),
)
"""In the order of `HeadPose`."""


def pose_from_values(values: tuple[object, ...]) -> HeadPose:
    """Read slider values, in the order of `SLIDERS`, as a browser sends them.

    Raises:
        UserError: one is no number or out of range.
    """
    if len(values) != len(SLIDERS):
        raise UserError(f"Expected {len(SLIDERS)} sliders, got {len(values)}.")
    for slider, value in zip(SLIDERS, values, strict=True):
        is_number = isinstance(value, int | float) and math.isfinite(value)
        if not is_number or not slider.low <= value <= slider.high:
            raise UserError(f"{slider.label}: expected {slider.low:g} to {slider.high:g}.")
    return HeadPose(*map(float, values))


def default_value(slider: Slider) -> float:
    """Return what a slider shows at first."""
    return next(field.default for field in fields(HeadPose) if field.name == slider.field)


def pose_motion(pose: HeadPose) -> Motion:
    """Return the motion of the open head; the neck is not turned."""
    expression = np.zeros(EXPRESSION_DIM, np.float32)
    for name, slots in _EXPRESSIONS.items():
        for slot in slots:
            expression[open_head_extras().expression_slot(slot)] += FULL_EXPRESSION * getattr(pose, name)
    jaw = np.array([JAW_RANGE_RAD * pose.jaw, 0, 0], np.float32)
    gaze = np.array([-math.radians(pose.gaze_up_deg), math.radians(pose.gaze_right_deg), 0], np.float32)
    return Motion(expression, np.zeros(3, np.float32), jaw, gaze, CAMERA_MEAN.astype(np.float32))


def motion_params(motion: Motion, shape: Tensor) -> HeadParams:
    """Return a motion as head parameters of the identity `shape` (1, 300), on its device."""
    pose, eyes = np.concatenate([motion.neck_rad, motion.jaw_rad]), np.tile(motion.gaze_rad, 2)
    expression, pose, eyes = (torch.from_numpy(a)[None].to(shape.device) for a in (motion.expression, pose, eyes))
    return HeadParams(shape, expression, pose, eyes)


def pose_camera(pose: HeadPose) -> Tensor:
    """Return the camera (1, 25) that the sliders put before the upright head."""
    yaw, pitch = (torch.tensor([math.radians(angle)]) for angle in (pose.yaw_deg, pose.pitch_deg))
    fov_deg = 2 * math.degrees(math.atan(math.tan(math.radians(FOV_DEG) / 2) / pose.zoom))
    return join_camera(orbit_cam2world(yaw, pitch, FRONTAL_POSITION), intrinsics_from_fov(fov_deg)[None])
