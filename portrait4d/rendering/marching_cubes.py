"""Surface of a radiance field by marching cubes, in world coordinates (`cameras-and-rasterisation.md` section 8).

The reference's grid coordinates drift by a cell and its files hold (z, y, -x); here the grid is regular and a mesh lies
where the head is rendered, x image right, y up, z front, triangles counter-clockwise seen from outside.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Surface(NamedTuple):
    """A triangle mesh: `vertices` (V, 3) float32 in world units, `faces` (T, 3) int64, counter-clockwise outside."""

    vertices: np.ndarray
    faces: np.ndarray


@torch.no_grad()
def extract_surface(
    density: Callable[[Tensor], Tensor],
    resolution: int,
    box_warp: float,
    level: float,
    device: torch.device | str = "cpu",
    points_per_chunk: int = 1 << 18,
) -> Surface:
    """Extract the surface where a raw density crosses `level` from outside to inside.

    Args:
        density: points (1, N, 3) in world units to raw densities (1, N).
        resolution: grid points per side, at least 2.
        box_warp: side of the cube around the origin, world units.
        level: raw density (before softplus) of the surface; the reference uses 25.
        device: where the points are made.
        points_per_chunk: points evaluated at once.

    Raises:
        ValueError: if the resolution is too small, or no surface crosses the level.
    """
    from skimage.measure import marching_cubes

    if resolution < 2:
        raise ValueError(f"resolution: expected at least 2 grid points per side, got {resolution}")
    axis = torch.linspace(-box_warp / 2, box_warp / 2, resolution, device=device)
    volume = np.empty((resolution**3,), np.float32)
    for start in range(0, resolution**3, points_per_chunk):
        index = torch.arange(start, min(start + points_per_chunk, resolution**3), device=device)
        points = torch.stack(
            [axis[index // resolution**2], axis[index // resolution % resolution], axis[index % resolution]], dim=-1
        )
        volume[start : start + len(index)] = density(points[None])[0].float().cpu().numpy()
    if not volume.min() < level < volume.max():
        raise ValueError(
            f"level: expected between {volume.min():.4g} and {volume.max():.4g}, the densities found, got {level}"
        )
    spacing = box_warp / (resolution - 1)
    vertices, faces, _, _ = marching_cubes(volume.reshape((resolution,) * 3), level, spacing=(spacing,) * 3)
    outward = faces[:, ::-1]  # scikit-image winds them inwards for values that rise inwards
    return Surface((vertices - box_warp / 2).astype(np.float32), np.ascontiguousarray(outward, dtype=np.int64))
