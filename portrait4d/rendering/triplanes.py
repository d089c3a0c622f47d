"""Tri-planes laid out for lookup (`rendering.md` section 4)."""

from torch import Tensor

from portrait4d.ops.triplane_fetch import build_table, triplane_fetch


class TriPlanes:
    """Planes over a cube: `table` is their layout for `ops.triplane_fetch`, `box_warp` the cube's side, world units."""

    def __init__(self, planes: Tensor, box_warp: float) -> None:
        """Lay out planes.

        Args:
            planes: (B, 3, C, H, W).
            box_warp: side of the cube, world units.

        Raises:
            ValueError: on another shape.
        """
        if planes.ndim != 5 or planes.shape[1] != 3:
            raise ValueError(f"planes: expected shape (B, 3, C, H, W), got {tuple(planes.shape)}")
        self.table = build_table(planes)
        self.box_warp = box_warp

    def sample(self, points: Tensor) -> Tensor:
        """Return the mean over the three planes (B, N, C) at points (B, N, 3) in world units. No gradient to points."""
        return triplane_fetch(self.table, points, self.box_warp)
