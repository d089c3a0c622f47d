"""The published network that maps Basel Face Model coefficients to FLAME's, and the frame label made of its result.

Source: flame-fitting.md §3.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.nn import functional

from data_preprocess.bfm_model import rotation_from_angles
from data_preprocess.published_weights import load_published
from portrait4d.geometry.cameras import FRONTAL_POSITION, intrinsics_from_fov, join_camera
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams, join_label
from portrait4d.geometry.rotations import axis_angle_to_matrix

_HIDDEN = 512
_SECTIONS = [SHAPE_DIM, EXPRESSION_DIM, 3]
_PITCH_CORRECTION = Rotation.from_euler("xyz", [0.08489475, 0.002882, 0.00353599])
"""From the Basel model's upright head to FLAME's."""
_PUBLISHED_LAYERS = {"hidden": "maps.0", "output": "maps.2"}


class MappedHead(NamedTuple):
    """FLAME coefficients: shape (B, 300), expression (B, 100), jaw_rad (B, 3) axis-angle."""

    shape: Tensor
    expression: Tensor
    jaw_rad: Tensor


class ParameterMapper(nn.Module):
    """Identity (B, 80) and expression (B, 64) of the Basel Face Model to FLAME coefficients; one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(80 + 64, _HIDDEN)
        self.output = nn.Linear(_HIDDEN, sum(_SECTIONS))

    def forward(self, identity: Tensor, expression: Tensor) -> MappedHead:
        """Map coefficients, raw on both sides."""
        hidden = self.hidden(torch.cat([identity, expression], dim=1))
        return MappedHead(*self.output(functional.leaky_relu(hidden, 0.01)).split(_SECTIONS, dim=1))


def load_parameter_mapper(path: str | Path | None = None) -> ParameterMapper:
    """Build the mapper with published weights, on the CPU.

    Args:
        path: the published `model-iter200000.pth`; None looks in the places of `registry.find_weights`.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing, damaged, or holds another network.
    """
    return load_published(ParameterMapper, "bfm2flame_mapper", path, published_name=_published_name)


def head_pose(angle_rad: np.ndarray) -> np.ndarray:
    """Return head rotations as axis-angles (B, 3) float64 of the Basel model's angles (B, 3) about x, y and z.

    The rotation is D R_z R_y R_x with a fixed correction D of about 5 degrees of pitch.
    """
    rotation = rotation_from_angles(torch.from_numpy(angle_rad).double()).mT
    return (_PITCH_CORRECTION * Rotation.from_matrix(rotation.numpy())).as_rotvec()


def simplified_labels(mapped: MappedHead, angle_rad: np.ndarray) -> Tensor:
    """Return frame labels (B, 437) of mapped coefficients and the Basel model's angles (B, 3).

    The camera looks at the head from the front at a fixed distance; the eyes look straight ahead.
    """
    pose = torch.from_numpy(head_pose(angle_rad)).float()
    cam2world = torch.eye(4).repeat(len(pose), 1, 1)
    cam2world[:, :3, :3] = axis_angle_to_matrix(-pose)
    cam2world[:, :3, 3] = cam2world[:, :3, :3] @ torch.tensor(FRONTAL_POSITION)
    camera = join_camera(cam2world, intrinsics_from_fov().expand(len(pose), 3, 3))
    neck_and_jaw = torch.cat([pose, mapped.jaw_rad], dim=1)
    return join_label(camera, HeadParams(mapped.shape, mapped.expression, neck_and_jaw, torch.zeros(len(pose), 6)))


def unmapped_head(count: int) -> MappedHead:
    """Return the mean head for `count` faces: all coefficients zero."""
    return MappedHead(*torch.zeros(count, sum(_SECTIONS)).split(_SECTIONS, dim=1))


def _published_name(name: str) -> str:
    layer, _, kind = name.partition(".")
    return f"{_PUBLISHED_LAYERS[layer]}.{kind}"
