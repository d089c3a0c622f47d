"""Mesh maps of the rows of a data set, drawn once each and kept on a GPU.

Fakes that take identity, expression and camera of one row ask for the same pictures of the head's mesh many times. To
draw them takes a seventh of a phase's operations (more without native ones), and fifteen times the processor
waits for the GPU.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from portrait4d.models.genhead import MeshMaps
from portrait4d.rendering.mesh_maps import PartMasks

LARGEST_BYTES = 2 * 2**30
_BYTES_PER_PIXEL = 3 * 4 + 3  # float32 correspondence, and a byte for each mask

DrawMeshes = Callable[[Tensor], MeshMaps]
"""Draws the samples of a batch with these numbers (n,) int64, on the CPU."""


class MeshMemory:
    """Keeps maps of `size` pixels a side of `rows` rows on a device."""

    def __init__(self, rows: int, size: int, device: torch.device) -> None:
        self.device = device
        self.is_known = torch.zeros(rows, dtype=torch.bool)
        self.masks = torch.empty(rows, 3, size, size, dtype=torch.bool, device=device)
        self.correspondence = torch.empty(rows, 3, size, size, device=device)

    @classmethod
    def build(cls, rows: int, size: int, device: torch.device) -> "MeshMemory | None":
        """Return a memory, or None where it would not be worth it: on a CPU, or if it took too many bytes.

        On a CPU, which repeats runs to the bit, maps must not depend on what was drawn with them.
        """
        fits = rows * size**2 * _BYTES_PER_PIXEL <= LARGEST_BYTES
        return cls(rows, size, device) if fits and device.type == "cuda" else None

    def look_up(self, rows: Tensor, draw: DrawMeshes) -> MeshMaps:
        """Return the maps of rows (B,) int64 on the CPU; `draw` is called for the samples that are asked for first."""
        new = (~self.is_known[rows]).nonzero()[:, 0]
        if len(new):
            masks, correspondence = draw(new)
            places = rows[new].to(self.device)
            self.masks[places] = torch.cat(masks, dim=1) > 0
            self.correspondence[places] = correspondence
            self.is_known[rows] = True
        places = rows.pin_memory() if self.device.type == "cuda" else rows
        places = places.to(self.device, non_blocking=True)
        eye, mouth, head = self.masks[places].float().split(1, dim=1)
        return MeshMaps(PartMasks(eye, mouth, head), self.correspondence[places])
