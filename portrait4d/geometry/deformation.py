"""Deformation fields: from points around the posed head to points of the canonical space the tri-planes live in.

The head-pose field undoes the neck's rotation (`deformation.md` sections 2 to 4). It is stored as two small grids over
the tri-plane cube, a fine one near the surface and a smoothed coarse one away from it. The grids depend on head
parameters only, so they are built once per frame and serve both passes of the volume renderer.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.config.networks import HeadPoseConfig
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.meshes import face_corners, face_normals, interpolate_corners, plane_barycentrics
from portrait4d.ops.nearest_triangle import nearest_triangle
from portrait4d.ops.triplane_render import HeadPoseGrids


@dataclass(frozen=True)
class HeadPoseField:
    """Points of the posed head's space to points of the same head with an unrotated neck.

    Attributes:
        fine: (B, 4, r, r, r) offsets x, y, z and squared distance to the mesh, axes (x index, y index, z index).
        coarse: (B, 3, q, q, q) smoothed offsets.
        box_warp: side of the cube the grids cover, world units.
        config: threshold and fall-off of the blend between the two.
    """

    fine: Tensor
    coarse: Tensor
    box_warp: float
    config: HeadPoseConfig

    @torch.no_grad()
    def __call__(self, points_world: Tensor) -> Tensor:
        """Map points (B, M, 3) to canonical points (B, M, 3); beyond the grids the map is the identity."""
        offset, distance = _sample_grid(self.fine, points_world, self.box_warp).split([3, 1], dim=-1)
        smooth_offset = _sample_grid(self.coarse, points_world, self.box_warp)
        near = torch.exp(-self.config.falloff * (distance - self.config.smooth_threshold).clamp_min(0))
        return points_world + near * offset + (1 - near) * smooth_offset

    def grids(self) -> HeadPoseGrids:
        """Return the grids as the fused renderer takes them."""
        fine, coarse = (
            grid.permute(0, 2, 3, 4, 1) for grid in (self.fine, functional.pad(self.coarse, (0, 0) * 3 + (0, 1)))
        )
        return HeadPoseGrids(
            fine.contiguous(),
            coarse.contiguous(),
            _grid_ends(self.fine.shape[-1], self.box_warp),
            _grid_ends(self.coarse.shape[-1], self.box_warp),
            self.config.smooth_threshold,
            self.config.falloff,
        )


@torch.no_grad()
def build_head_pose_field(
    head: HeadModel, params: HeadParams, box_warp: float, config: HeadPoseConfig, turned: bool | None = None
) -> HeadPoseField | None:
    """Evaluate the head model once and build the grids of a batch of frames.

    Args:
        head, params: the head and its pose.
        box_warp: side of the cube, world units.
        config: grid sizes and the blend between them.
        turned: whether a neck is rotated; None looks, which waits for the device.

    Returns:
        The field, or None where every neck is unrotated: the field is then the identity.
    """
    if not (params.neck_is_turned() if turned is None else turned):
        return None
    rest = head.rest(params.shape, params.expression)
    posed = head.coarse_vertices(head.posed_vertices(rest, params))
    upright = head.coarse_vertices(head.posed_vertices(rest, params.without_neck_rotation()))
    surfaces = face_corners(posed, head.coarse_faces), face_corners(upright, head.coarse_faces)
    fine, coarse = _surface_grids(*surfaces, box_warp, (config.fine_resolution, config.coarse_resolution))
    return HeadPoseField(fine, _smooth(_smooth(coarse[:, :3])), box_warp, config)


def surface_offsets(points: Tensor, posed: Tensor, canonical: Tensor) -> tuple[Tensor, Tensor]:
    """Carry points with the nearest posed triangle to the canonical mesh (`deformation.md` section 2).

    Args:
        points: (B, P, 3).
        posed, canonical: (B, T, 3 corners, 3), the same triangles in two poses.

    Returns:
        Offsets (B, P, 3) to the carried points, and squared distances (B, P) to the posed mesh.
    """
    squared, index = nearest_triangle(points, posed)
    batch = torch.arange(len(points), device=points.device)[:, None]
    from_corners, to_corners = posed[batch, index], canonical[batch, index]
    weights = plane_barycentrics(points, from_corners)
    foot = interpolate_corners(weights, from_corners)
    height = ((points - foot) * face_normals(from_corners)).sum(-1, keepdim=True)
    carried = interpolate_corners(weights, to_corners) + height * face_normals(to_corners)
    return carried - points, squared


def grid_axis(resolution: int, box_warp: float, device: torch.device | str = "cpu") -> Tensor:
    """Return the cell centres (resolution,) of an axis, box * ((i + 1/2) / r - 1/2), rounded as in the reference."""
    index = torch.arange(resolution, dtype=torch.float32, device=device)
    return (index * (1 / resolution) + 0.5 / resolution - 0.5) * box_warp


@functools.cache
def _grid_ends(resolution: int, box_warp: float) -> tuple[float, float]:
    first, *_, last = grid_axis(resolution, box_warp).tolist()
    return first, last


def _surface_grids(
    posed: Tensor, canonical: Tensor, box_warp: float, resolutions: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return offsets and squared distances (B, 4, r, r, r) at the cell centres of grids, all found at once."""
    axes = [grid_axis(resolution, box_warp, posed.device) for resolution in resolutions]
    points = torch.cat([torch.cartesian_prod(axis, axis, axis) for axis in axes])
    offsets, squared = surface_offsets(points.expand(len(posed), -1, -1), posed, canonical)
    values = torch.cat([offsets, squared[..., None]], dim=-1).mT
    grids = values.split([resolution**3 for resolution in resolutions], dim=2)
    fine, coarse = (grid.unflatten(2, (r, r, r)).contiguous() for grid, r in zip(grids, resolutions, strict=True))
    return fine, coarse


def _smooth(grid: Tensor) -> Tensor:
    """Take the mean over 3x3x3 neighbours, the border repeated."""
    return functional.avg_pool3d(functional.pad(grid, (1,) * 6, mode="replicate"), kernel_size=3, stride=1)


def _sample_grid(grid: Tensor, points: Tensor, box_warp: float) -> Tensor:
    """Sample (B, C, r, r, r) at points (B, M, 3): trilinear, outermost cell centres at +-1, zero outside. (B, M, C)."""
    axis = grid_axis(grid.shape[-1], box_warp, points.device)
    first, last = axis[0], axis[-1]
    normalised = 2 * (points - last) / (last - first) + 1
    lookup = normalised.flip(-1)[:, :, None, None]  # grid_sample wants (z, y, x) for axes (x, y, z)
    sampled = functional.grid_sample(grid, lookup, mode="bilinear", padding_mode="zeros", align_corners=True)
    return sampled[..., 0, 0].transpose(1, 2)
