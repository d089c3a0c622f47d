"""Remembered mesh maps: the very maps that were drawn, each row drawn once, and none kept where it is not worth it."""

import pytest
import torch
from torch import Tensor

from portrait4d.models.genhead import MeshMaps
from portrait4d.rendering.mesh_maps import PartMasks
from portrait4d.training.mesh_memory import LARGEST_BYTES, MeshMemory

ROWS, SIZE = 6, 4
CPU = torch.device("cpu")


def maps_of(rows: Tensor) -> MeshMaps:
    """Maps that tell which row they are of."""
    numbers = torch.arange(3 * SIZE**2).view(3, SIZE, SIZE) + rows[:, None, None, None]
    masks = ((numbers % 5) < 2).float()
    return MeshMaps(PartMasks(*masks.split(1, dim=1)), numbers / 7)


def test_maps_are_those_drawn_and_drawn_once() -> None:
    memory, drawn = MeshMemory(ROWS, SIZE, CPU), []
    for rows in (torch.tensor([4, 1]), torch.tensor([1, 5, 0, 5]), torch.tensor([0, 4])):

        def draw(chosen: Tensor, rows: Tensor = rows) -> MeshMaps:
            drawn.extend(rows[chosen].tolist())
            return maps_of(rows[chosen])

        found, expected = memory.look_up(rows, draw), maps_of(rows)
        assert torch.equal(found.correspondence, expected.correspondence)
        for ours, theirs in zip(found.masks, expected.masks, strict=True):
            assert torch.equal(ours, theirs) and ours.dtype == torch.float32
    assert drawn == [4, 1, 5, 0, 5]


@pytest.mark.parametrize(("rows", "device"), [(ROWS, CPU), (LARGEST_BYTES // SIZE**2, torch.device("cuda"))])
def test_nothing_is_kept_on_a_cpu_or_of_a_large_set(rows: int, device: torch.device) -> None:
    assert MeshMemory.build(rows, SIZE, device) is None
