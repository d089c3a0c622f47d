"""Part-wise deformation of the part-based generator: eyes, face and mouth each carry points to the canonical head.

The head-pose field (`deformation.py`) undoes the neck's rotation; then, for each part, a point moves with the vertices
around the part's nearest vertex, which undoes identity, expression, jaw and gaze at once (`deformation.md` section 5).
A field is built once per frame and serves both passes of the volume renderer. Nothing here has gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from portrait4d.config.networks import HeadPoseConfig
from portrait4d.geometry.deformation import HeadPoseField, build_head_pose_field
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.ops.nearest_vertex import nearest_vertex

EYE_BOX_SCALE = 1.2
"""Sides of an eye box relative to the extent of the eyeball's vertices."""
_NOWHERE = 1000.0  # where the padding rows of neighbourhoods lie, world units
_POINTS_PER_CHUNK = 1 << 15  # on a CPU, of one head; on a GPU all heads go together
_POINTS_PER_GPU_CHUNK = 1 << 20


@dataclass(frozen=True)
class PartPoints:
    """Points (B, M) seen by the three parts; lengths in world units, float32 unless said otherwise.

    Attributes:
        eye, face, mouth: (B, M, 3) canonical points; mouth is zero in a field without mouth.
        eye_distance, face_distance, mouth_distance: (B, M) distances to the part's nearest vertex, at least 1e-6, which
            is the mouth's distance in a field without mouth.
        inside_eye_box: (B, M) 1 inside the box around either eyeball, else 0.
        nearest_region: (B, M, 10) int64 neighbourhood of the face's nearest vertex, padded with the vertex count.
        nearest_weights: (B, M, 10) weights of that neighbourhood, sum 1.
    """

    eye: Tensor
    face: Tensor
    mouth: Tensor
    eye_distance: Tensor
    face_distance: Tensor
    mouth_distance: Tensor
    inside_eye_box: Tensor
    nearest_region: Tensor
    nearest_weights: Tensor


@dataclass(frozen=True)
class PartField:
    """Points of the posed head's space to canonical points of the three parts.

    Attributes:
        head_pose: undoes the neck's rotation; None where every neck is unrotated.
        vertices: (B, V, 3) the head with an unrotated neck; eyes and face follow it.
        mouth_vertices: (B, V, 3) the same without expression and gaze, or None: no mouth is wanted.
        head: canonical vertices, neighbourhoods and regions.
    """

    head_pose: HeadPoseField | None
    vertices: Tensor
    mouth_vertices: Tensor | None
    head: HeadModel

    @torch.no_grad()
    def __call__(self, points_world: Tensor) -> PartPoints:
        """Map points (B, M, 3), float32."""
        points = points_world if self.head_pose is None else self.head_pose(points_world)
        eye, eye_distance, _, _ = self._carry(points, self.vertices, self.head.region("eyeballs"))
        face, face_distance, region, weights = self._carry(points, self.vertices, self.head.region("head"))
        if self.mouth_vertices is None:
            mouth, mouth_distance = torch.zeros_like(points), torch.full_like(face_distance, 1e-6)
        else:
            mouth, mouth_distance, _, _ = self._carry(points, self.mouth_vertices, self.head.region("lips"))
        return PartPoints(
            eye=eye,
            face=face,
            mouth=mouth,
            eye_distance=eye_distance,
            face_distance=face_distance,
            mouth_distance=mouth_distance,
            inside_eye_box=self._inside_eye_box(points).to(points.dtype),
            nearest_region=region,
            nearest_weights=weights,
        )

    def _carry(self, points: Tensor, vertices: Tensor, part: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return canonical points, distances, neighbourhoods and weights for the vertices of one part."""
        squared, local = nearest_vertex(points, vertices[:, part])
        regions = self.head.vertex_neighbours[part[local]]
        positions = _pad_vertices(vertices, _NOWHERE)
        offsets = _pad_vertices(self.head.canonical_vertices - vertices, 0.0)
        carried, weights = torch.empty_like(points), points.new_empty(regions.shape)
        for chunk in _chunks(points):
            item = torch.arange(len(points), device=points.device)[chunk[0], None, None]
            weights[chunk] = _inverse_distance_weights(points[chunk], positions[item, regions[chunk]])
            carried[chunk] = points[chunk] + _weighted_sum(weights[chunk], offsets[item, regions[chunk]])
        return carried, (squared + 1e-12).sqrt_(), regions, weights

    def _inside_eye_box(self, points: Tensor) -> Tensor:
        """Return (B, M) bool: strictly inside the box of the first or of the second eyeball."""
        eyeballs = self.vertices[:, self.head.region("eyeballs")]
        half = eyeballs.shape[1] // 2
        inside = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device)
        for eyeball in (eyeballs[:, :half], eyeballs[:, half:]):
            centre = eyeball.mean(dim=1, keepdim=True)
            size = EYE_BOX_SCALE * (eyeball.amax(dim=1, keepdim=True) - eyeball.amin(dim=1, keepdim=True))
            inside |= ((points - centre).abs_() < size / 2).all(dim=-1)
        return inside


@torch.no_grad()
def build_part_field(
    head: HeadModel,
    params: HeadParams,
    box_warp: float,
    config: HeadPoseConfig,
    mouth: bool = True,
    blink_expression: Tensor | None = None,
) -> PartField:
    """Pose the head of a batch of frames and build its part-wise field.

    Args:
        head: FLAME, or an open head with its interface.
        params: parameters of B frames.
        box_warp: side of the tri-plane cube, which the head-pose field's grids cover, world units.
        config: sizes and blend of the head-pose field.
        mouth: whether the mouth part is wanted.
        blink_expression: (B, expressions) other expression for the vertices of the region eyelids, or None.

    Source: `deformation.md` section 5; its option `grid_approx = False` is not built.
    """
    upright = params.without_neck_rotation()
    vertices = head(upright)
    if blink_expression is not None:
        eyelids = head.region("eyelids")
        blinking = HeadParams(params.shape, blink_expression, upright.pose, params.eye_pose)
        vertices[:, eyelids] = head(blinking)[:, eyelids]
    mouth_vertices = None
    if mouth:
        still = torch.zeros_like(params.expression), upright.pose, torch.zeros_like(params.eye_pose)
        mouth_vertices = head(HeadParams(params.shape, *still))
    return PartField(build_head_pose_field(head, params, box_warp, config), vertices, mouth_vertices, head)


def _chunks(points: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield the items and points of (B, M, 3) that are worked on at once."""
    batch, count = points.shape[:2]
    items, step = (1, _POINTS_PER_CHUNK)
    if points.device.type != "cpu":
        items, step = max(batch, 1), max(1, _POINTS_PER_GPU_CHUNK // max(batch, 1))
    for item in range(0, batch, items):
        for start in range(0, count, step):
            yield slice(item, item + items), slice(start, start + step)


def _pad_vertices(vertices: Tensor, value: float) -> Tensor:
    """Append to (B, V, 3) the row that padded neighbourhoods point to."""
    return torch.cat([vertices, vertices.new_full((len(vertices), 1, 3), value)], dim=1)


def _inverse_distance_weights(points: Tensor, neighbours: Tensor) -> Tensor:
    """Return (..., K) weights 1 / (squared distance + 1e-10), sum 1, of points (..., 3) and neighbours (..., K, 3)."""
    squared = (points[..., None, :] - neighbours).square_().sum(dim=-1)
    weights = (squared + 1e-10).reciprocal_()
    return weights / weights.sum(dim=-1, keepdim=True)


def _weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Return (..., 3) sums over K of weights (..., K) times values (..., K, 3)."""
    return (weights[..., None] * values).sum(dim=-2)
