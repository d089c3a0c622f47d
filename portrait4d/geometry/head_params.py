"""Parameters of one head in one frame, and the 437-number label that stores them with a camera.

Label (`flame-fitting.md` section 1), float32: camera 0:25 | shape 25:325 | expression 325:425 | head rotation 425:428 |
jaw 428:431 | left eye 431:434 | right eye 434:437; rotations are axis-angle in radians. The label holds the head
rotation twice: the camera already contains it (the head upright), and as the neck's rotation. Use one of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LABEL_DIM = 437
SHAPE_DIM = 300
EXPRESSION_DIM = 100


@dataclass(frozen=True)
class HeadParams:
    """Head-model parameters of a batch of frames.

    Attributes:
        shape: (B, 300) identity coefficients.
        expression: (B, 100) expression coefficients.
        pose: (B, 6) neck axis-angle | jaw axis-angle, radians.
        eye_pose: (B, 6) left eye axis-angle | right eye axis-angle, radians.
    """

    shape: Tensor
    expression: Tensor
    pose: Tensor
    eye_pose: Tensor

    def without_neck_rotation(self) -> "HeadParams":
        """Return the same head with the neck's rotation set to zero."""
        upright = torch.cat([torch.zeros_like(self.pose[:, :3]), self.pose[:, 3:]], dim=1)
        return HeadParams(self.shape, self.expression, upright, self.eye_pose)

    def neck_is_turned(self) -> bool:
        """Tell whether the neck of some head is rotated; waits for the device."""
        return bool(self.pose[:, :3].any())

    def with_shape(self, shape: Tensor) -> "HeadParams":
        """Return the same motion on another identity `shape` (B, 300)."""
        return HeadParams(shape, self.expression, self.pose, self.eye_pose)

    def flame_motion(self) -> Tensor:
        """Return the motion vector of models driven by FLAME: (B, 109) = expression | jaw | eyes."""
        return torch.cat([self.expression, self.pose[:, 3:], self.eye_pose], dim=1)


def split_label(label: Tensor) -> tuple[Tensor, HeadParams]:
    """Split frame labels (B, 437) into camera vectors (B, 25) and head parameters.

    Raises:
        ValueError: if the label is not (B, 437).
    """
    if label.ndim != 2 or label.shape[1] != LABEL_DIM:
        raise ValueError(f"label: expected shape (B, {LABEL_DIM}), got {tuple(label.shape)}")
    camera, shape, expression, pose, eye_pose = label.split([25, SHAPE_DIM, EXPRESSION_DIM, 6, 6], dim=1)
    return camera, HeadParams(shape, expression, pose, eye_pose)


def join_label(camera: Tensor, params: HeadParams) -> Tensor:
    """Join camera vectors (B, 25) and head parameters into frame labels (B, 437)."""
    return torch.cat([camera, params.shape, params.expression, params.pose, params.eye_pose], dim=1)
