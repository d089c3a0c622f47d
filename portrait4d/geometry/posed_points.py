"""Points of a head whose neck is unposed, as affine functions of the coefficients.

With rotations R_still = 1, R_jaw and R_eyes (one for both eyes), skinning by joints that hang on the neck is

    point = sum_h R_h (directions_h [1, coefficients] + correctives_h features),

so that a fit needs no skinning, and derivatives by the coefficients are known. Source: flame.md §3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.rotations import axis_angle_to_matrix

STILL, JAW, EYES = range(3)
"""What a part of a point turns with."""
_JAW_JOINT, _EYE_JOINTS = 2, (3, 4)


@dataclass(frozen=True)
class PosedPoints:
    """K points of a head model with L coefficients; see above.

    Attributes:
        directions: (3, K, 3, 1 + L), for each turning part the mean and the change per coefficient.
        correctives: (3, K, 3, 36), change per entry of R - 1 of neck, jaw and both eyes.
    """

    directions: Tensor
    correctives: Tensor

    def select(self, chosen: Tensor) -> "PosedPoints":
        """Keep the points `chosen`, a mask (K,) or indices."""
        return PosedPoints(self.directions[:, chosen], self.correctives[:, chosen])

    def leading(self, shapes: int, expressions: int, all_shapes: int) -> "PosedPoints":
        """Keep the first coefficients of identity, of which there are `all_shapes`, and of expression."""
        kept = [*range(1 + shapes), *range(1 + all_shapes, 1 + all_shapes + expressions)]
        return PosedPoints(self.directions[..., kept].contiguous(), self.correctives)

    def interpolate(self, corners: Tensor, weights: Tensor) -> "PosedPoints":
        """Return the points sum_c weights[k, c] point[corners[k, c]] of corners and weights (K, C)."""
        parts = (self.directions, self.correctives)
        return PosedPoints(*(torch.einsum("kc,hkcxl->hkxl", weights.to(part), part[:, corners]) for part in parts))

    def parts(self, params: HeadParams) -> Tensor:
        """Return what turns with each part before it is turned, (B, 3, K, 3).

        Correctives enter as values only, as in the reference; the neck's rotation and the right eye's are ignored.
        """
        coefficients = torch.cat([params.shape, params.expression], dim=1)
        flat = self.directions.flatten(0, 2)
        resting = torch.addmm(flat[:, 0], coefficients, flat[:, 1:].T)
        shift = _features(params).detach() @ self.correctives.flatten(0, 2).T
        return (resting + shift).unflatten(1, self.directions.shape[:3])

    def points(self, params: HeadParams) -> Tensor:
        """Return the points (B, K, 3) of B heads, world units."""
        return turn_parts(self.parts(params), part_rotations(params))

    def derivatives(self, params: HeadParams) -> Tensor:
        """Return the points' change per coefficient, (B, K, 3, L)."""
        return torch.einsum("bhxy,hkyl->bkxl", part_rotations(params), self.directions[..., 1:])


def part_rotations(params: HeadParams) -> Tensor:
    """Return the rotations (B, 3, 3, 3) of the three parts."""
    vectors = torch.stack([torch.zeros_like(params.pose[:, 3:]), params.pose[:, 3:], params.eye_pose[:, :3]], dim=1)
    return axis_angle_to_matrix(vectors)


def turn_parts(parts: Tensor, rotations: Tensor) -> Tensor:
    """Turn parts (B, 3, K, 3) by rotations (B, 3, 3, 3) and add them up: (B, K, 3)."""
    return (parts @ rotations.mT).sum(1)


def split_vertices(head: HeadModel, chosen: Tensor | None = None, dtype: torch.dtype = torch.float64) -> PosedPoints:
    """Return the vertices of a head model as posed points, on the head's device.

    Args:
        head: the head model.
        chosen: indices of the vertices wanted; None is all of them.
        dtype: of the result.

    Raises:
        ValueError: the joints are not attached to the neck as FLAME's are.
    """
    if head.parents.tolist() != [-1, 0, 1, 1, 1]:
        raise ValueError(f"parents: expected root, neck, and three joints on the neck, got {head.parents.tolist()}")
    vertices = torch.cat([head.template[..., None], head.blend_directions], dim=2).to(dtype)
    joints = torch.einsum("jv,vkl->jkl", head.joint_regressor.to(dtype), vertices)
    weights = head.skinning_weights.to(dtype)
    pose = head.pose_directions.to(dtype).view(len(vertices), 3, -1)
    if chosen is not None:
        vertices, weights, pose = vertices[chosen], weights[chosen], pose[chosen]
    still = weights[:, :_JAW_JOINT].sum(1)[:, None, None] * vertices
    turned = []
    for group in ((_JAW_JOINT,), _EYE_JOINTS):
        part = torch.zeros_like(vertices)
        for joint in group:
            weight = weights[:, joint, None, None]
            still += weight * joints[joint]
            part += weight * (vertices - joints[joint])
        turned.append(part)
    shares = torch.stack([weights[:, :_JAW_JOINT].sum(1), weights[:, _JAW_JOINT], weights[:, _EYE_JOINTS].sum(1)])
    return PosedPoints(torch.stack([still, *turned]), shares[..., None, None] * pose)


def _features(params: HeadParams) -> Tensor:
    rotations = part_rotations(params)[:, [STILL, JAW, EYES, EYES]]
    return (rotations - torch.eye(3, device=rotations.device)).flatten(1)
