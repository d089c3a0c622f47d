"""Mirror images: what happens to pictures, landmarks, cameras and head parameters when left and right change places.

A picture is mirrored by reversing its columns. The world is mirrored at its plane x = 0 by S = diag(-1, 1, 1), and

    projection(S p, mirrored camera) = (1 - x, y) for projection(p, camera) = (x, y),  exactly, for any camera.

Rotations become S R S: an axis-angle vector (x, y, z) becomes (x, -y, -z); left and right eye change places.

Shape and expression coefficients have no such rule: a head model's directions are statistics of scans, not odd or even
in x, so that flipping signs would give another person. `HeadMirror` therefore holds linear maps fitted to the vertices:
coefficients m(b) with the head of m(b) closest, in least squares over all vertices, to the mirrored head of b. This is
exact where the model can express the mirrored head: for heads with left-right corresponding vertices whose directions
are odd, even, or in mirrored pairs (the open heads). FLAME's mesh is not symmetric: its vertices are paired with
their nearest mirrored ones, `HeadMirror.residual` says what remains, and a mirrored identity is an approximation.
What cannot be mirrored at all: motion vectors of a network (PD-FGC), the text or parting in a picture's own world, and
pose correctives of the joints, which stay the unmirrored head's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from portrait4d.geometry.cameras import join_camera, split_camera
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams, join_label, split_label

_FACE_68 = (
    *range(16, -1, -1),  # contour
    *range(26, 16, -1),  # brows
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
    *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
)
_WFLW_98 = (
    *range(32, -1, -1),  # contour
    *(46, 45, 44, 43, 42, 50, 49, 48, 47, 37, 36, 35, 34, 33, 41, 40, 39, 38),  # brows: upper edge, lower edge
    *(51, 52, 53, 54, 59, 58, 57, 56, 55),  # nose
    *(72, 71, 70, 69, 68, 75, 74, 73, 64, 63, 62, 61, 60, 67, 66, 65),  # eyes
    *(82, 81, 80, 79, 78, 77, 76, 87, 86, 85, 84, 83),  # outer lips
    *(92, 91, 90, 89, 88, 95, 94, 93),  # inner lips
    *(97, 96),  # pupils
)
LANDMARK_SWAPS = {68: _FACE_68, 70: (*_FACE_68, 69, 68), 98: _WFLW_98}
"""For each landmark count: number k of the mirrored face is number SWAPS[k] of the original. 70 = 68 + eye centres."""

_PAIRING_CHUNK = 1024


@dataclass(frozen=True)
class HeadMirror:
    """Coefficients of the mirrored head: m(b) = matrix b + offset.

    Attributes:
        shape_matrix, shape_offset: (300, 300), (300,).
        expression_matrix: (100, 100).
        residual: root mean square distance, in world units, between mirrored and refitted vertices of the neutral head
            and of heads with one coefficient 1, weighted alike.
    """

    shape_matrix: Tensor
    shape_offset: Tensor
    expression_matrix: Tensor
    residual: float

    @classmethod
    def fit(cls, head: HeadModel) -> "HeadMirror":
        """Fit the maps to a head model.

        Shape and expression are fitted apart, so that an expression never changes the identity.
        """
        template = head.template.double()
        partner = mirror_partners(template)
        flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64, device=template.device)
        directions = head.blend_directions.double()
        mirrored = directions[partner] * flip[:, None]
        asymmetry = (template[partner] * flip - template).reshape(-1, 1)
        shapes = directions[..., :SHAPE_DIM].flatten(0, 1)
        expressions = directions[..., SHAPE_DIM:].flatten(0, 1)
        target = torch.cat([mirrored[..., :SHAPE_DIM].flatten(0, 1), asymmetry], dim=1)
        shape_map = _solve(shapes, target)
        expression_target = mirrored[..., SHAPE_DIM:].flatten(0, 1)
        expression_map = _solve(expressions, expression_target)
        error = torch.cat([shapes @ shape_map - target, expressions @ expression_map - expression_target], dim=1)
        residual = float((error.square().sum() / len(template) / error.shape[1]).sqrt())
        return cls(shape_map[:, :-1].float(), shape_map[:, -1].float(), expression_map.float(), residual)

    @classmethod
    def unchanged(cls) -> "HeadMirror":
        """Return the maps of a head whose directions all are symmetric: coefficients stay as they are."""
        return cls(torch.eye(SHAPE_DIM), torch.zeros(SHAPE_DIM), torch.eye(EXPRESSION_DIM), 0.0)

    def params(self, params: HeadParams) -> HeadParams:
        """Return the parameters of the mirrored heads."""
        left_eye, right_eye = params.eye_pose.split(3, dim=1)
        return HeadParams(
            shape=params.shape @ self.shape_matrix.T + self.shape_offset,
            expression=params.expression @ self.expression_matrix.T,
            pose=torch.cat([mirror_axis_angle(part) for part in params.pose.split(3, dim=1)], dim=1),
            eye_pose=torch.cat([mirror_axis_angle(right_eye), mirror_axis_angle(left_eye)], dim=1),
        )

    def label(self, label: Tensor) -> Tensor:
        """Return the frame labels (B, 437) of the mirrored pictures.

        Raises:
            ValueError: if `label` is not (B, 437).
        """
        camera, params = split_label(label)
        return join_label(mirror_camera(camera), self.params(params))


def mirror_image(image: Tensor) -> Tensor:
    """Reverse the columns of pictures or masks (..., H, W), any type."""
    return image.flip(-1)


def mirror_landmarks(points: Tensor, span: float) -> Tensor:
    """Mirror landmarks: x becomes span - x, and left and right points change places; y stays, whichever way it goes.

    Args:
        points: (..., K, 2 or 3), K = 68, 70 or 98, x first; a third column (depth, score) stays.
        span: 1 for fractions of the width, S for pixels measured from the left edge, S - 1 for pixel indices.

    Raises:
        ValueError: another number of points or columns.
    """
    if points.ndim < 2 or points.shape[-2] not in LANDMARK_SWAPS or points.shape[-1] not in (2, 3):
        raise ValueError(f"points: expected shape (..., 68, 70 or 98, 2 or 3), got {tuple(points.shape)}")
    swapped = points[..., list(LANDMARK_SWAPS[points.shape[-2]]), :]
    return torch.cat([span - swapped[..., :1], swapped[..., 1:]], dim=-1)


def mirror_axis_angle(axis_angle_rad: Tensor) -> Tensor:
    """Mirror rotations (..., 3) at the plane x = 0: (x, y, z) becomes (x, -y, -z)."""
    return axis_angle_rad * axis_angle_rad.new_tensor([1.0, -1.0, -1.0])


def mirror_points(points_world: Tensor) -> Tensor:
    """Mirror points (..., 3) at the plane x = 0."""
    return points_world * points_world.new_tensor([-1.0, 1.0, 1.0])


def mirror_camera(camera: Tensor) -> Tensor:
    """Return the camera vectors (..., 25) that see the mirrored world in mirrored pictures.

    cam2world becomes S cam2world S; the principal point (cx, cy) becomes (1 - cx, cy), skew changes its sign.

    Raises:
        ValueError: if the last axis is not 25 long.
    """
    cam2world, intrinsics = split_camera(camera)
    flip = camera.new_tensor([-1.0, 1.0, 1.0, 1.0])
    mirrored = intrinsics * (flip[:3, None] * flip[:3])
    mirrored[..., 0, 2] = 1 - intrinsics[..., 0, 2]
    return join_camera(cam2world * (flip[:, None] * flip), mirrored)


def mirror_partners(vertices: Tensor) -> Tensor:
    """Pair each vertex with the one nearest to its mirror image at x = 0.

    Args:
        vertices: (V, 3).

    Returns:
        (V,) int64: vertex v of the mirrored head lies where vertex partner[v] is mirrored to.
    """
    mirrored = mirror_points(vertices)
    chunks = [torch.cdist(part, mirrored).argmin(dim=1) for part in vertices.split(_PAIRING_CHUNK)]
    return torch.cat(chunks)


def _solve(directions: Tensor, target: Tensor) -> Tensor:
    """Return the smallest X that minimises |directions X - target|; directions that move nothing get 0."""
    return torch.linalg.pinv(directions.T @ directions, rtol=1e-12, hermitian=True) @ (directions.T @ target)
