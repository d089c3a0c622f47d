"""Pictures of the grid files: colours as they are, masks in grey, depth from near (white) to far."""

import torch
from torch import Tensor

from portrait4d.data.image_io import image_grid


class GridTiles:
    """Collects the tiles of several grids, named by the suffixes of their files."""

    def __init__(self) -> None:
        self.tiles: dict[str, list[Tensor]] = {}

    def add(self, suffix: str, pictures: Tensor) -> None:
        """Add pictures (B, 1 or 3, H, W) in [-1, 1]."""
        shown = pictures.detach().float().clamp(-1, 1).expand(-1, 3, -1, -1)
        self.tiles.setdefault(suffix, []).extend(shown.cpu())

    def lay_out(self, columns: int) -> dict[str, Tensor]:
        """Return each grid (3, H, W)."""
        return {suffix: image_grid(pictures, columns) for suffix, pictures in self.tiles.items()}


def depth_picture(depth: Tensor, transmittance: Tensor) -> Tensor:
    """Return depths (B, 1, R, R) as grey pictures in [-1, 1]; black where rays do not meet the head."""
    seen = transmittance < 0.5
    if not bool(seen.any()):
        return torch.full_like(depth, -1.0)
    near, far = depth[seen].amin(), depth[seen].amax()
    return torch.where(seen, 1 - 1.6 * (depth - near) / (far - near).clamp_min(1e-6), -1.0)
