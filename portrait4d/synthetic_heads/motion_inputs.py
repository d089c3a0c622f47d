"""The few numbers that motion vectors of the open head world are made of, as tensors, and their mirror images.

A motion vector (548,) = inputs @ matrix, see `motions.motion_vector`. Angles that no motion of that world has (rolling
eyes, a turned jaw) are left out.
"""

from functools import cache

import torch
from torch import Tensor

from portrait4d.geometry.head_params import HeadParams
from portrait4d.synthetic_heads.head_expressions import FULL_EXPRESSION
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.synthetic_heads.motions import BLOCKS, GAZE_SCALE_RAD, JAW_SCALE_RAD, motion_projection

EXPRESSION_INPUTS = tuple(dict.fromkeys(slot for _, _, slots in BLOCKS for slot in slots))
"""Expression slots that enter motion vectors, each once."""
MOTION_INPUTS = (*EXPRESSION_INPUTS, "gaze_pitch", "gaze_yaw", "jaw_open")
"""Names of all inputs in their order. Unit: the complete expression, 0.3 rad of gaze, 0.2 rad of jaw."""

_ANGLES = {"eye": ("gaze_pitch", "gaze_yaw"), "emotion": (), "mouth": ("jaw_open",)}
_ODD = ("jaw_side", "gaze_yaw")


def motion_inputs(params: HeadParams) -> Tensor:
    """Return the inputs (B, 27) of the motions of heads; the right eye is taken to look where the left one does."""
    slots = [open_head_extras().expression_slot(name) for name in EXPRESSION_INPUTS]
    parts = (
        params.expression[:, slots] / FULL_EXPRESSION,
        params.eye_pose[:, :2] / GAZE_SCALE_RAD,
        params.pose[:, 3:4] / JAW_SCALE_RAD,
    )
    return torch.cat(parts, dim=1)


@cache
def motion_input_matrix() -> Tensor:
    """Return the matrix (27, 548) float32 that makes motion vectors of inputs; shared, not to be changed."""
    columns = []
    for part, width, slots in BLOCKS:
        projection = torch.from_numpy(motion_projection(part))
        rows = torch.zeros(len(MOTION_INPUTS), width, dtype=torch.float64)
        for number, name in enumerate((*slots, *_ANGLES[part])):
            rows[MOTION_INPUTS.index(name)] = projection[number] / len(projection) ** 0.5
        columns.append(rows)
    return torch.cat(columns, dim=1).float()


def mirror_inputs(inputs: Tensor) -> Tensor:
    """Return the inputs (B, 27) of the mirrored motions: left and right change places, sideways turns round."""
    swapped = [MOTION_INPUTS.index(_other_side(name)) for name in MOTION_INPUTS]
    signs = [-1.0 if name in _ODD else 1.0 for name in MOTION_INPUTS]
    return inputs[:, swapped] * inputs.new_tensor(signs)


def _other_side(name: str) -> str:
    for side, other in (("_left", "_right"), ("_right", "_left")):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return name
