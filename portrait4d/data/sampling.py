"""Orders of data: subsets, the shuffled endless order shared by all ranks, and the rows of snapshot grids.

They repeat the reference's streams number by number, which are those of numpy's RandomState. Sources: datasets.md §5,
training-genhead.md §4, training-recon-v1.md §10.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_BLOCK = 1 << 16


def subset_indices(count: int, max_size: int | None = None, seed: int = 0, copies: int = 1) -> np.ndarray:
    """Choose at most `max_size` of `count` items, in ascending order, and list them `copies` times.

    Args:
        count: items there are.
        max_size: items to keep; None keeps all.
        seed: of the choice.
        copies: 2 for a second list, of mirrored items, behind the first.

    Returns:
        (min(count, max_size) copies,) int64.

    Raises:
        ValueError: `max_size` below 1.
    """
    if max_size is not None and max_size < 1:
        raise ValueError(f"max_size: expected at least 1, got {max_size}")
    indices = np.arange(count, dtype=np.int64)
    if max_size is not None and max_size < count:
        np.random.RandomState(seed).shuffle(indices)
        indices = np.sort(indices[:max_size])
    return np.tile(indices, copies)


def shuffled_order(count: int, seed: int, start: int = 0) -> Iterator[int]:
    """Yield item numbers for ever, from global position `start` on: the order of one rank among one.

    0 .. count - 1 shuffled; having given place i, the order exchanges it with a place at most half the items behind, so
    every round is another and items come back after about as many steps. Ranks deal the positions out in turns.

    Raises:
        ValueError: no items, or a negative start.
    """
    if count < 1 or start < 0:
        raise ValueError(f"count, start: expected at least 1 and 0, got {count} and {start}")
    generator = np.random.RandomState(seed)
    order = np.arange(count)
    generator.shuffle(order)
    order = order.tolist()
    window = int(np.rint(count * 0.5))
    position = 0
    while True:
        backs = generator.randint(window, size=_BLOCK).tolist() if window >= 2 else [0] * _BLOCK
        for back in backs:
            here = position % count
            if position >= start:
                yield order[here]
            if window >= 2:
                there = (here - back) % count
                order[here], order[there] = order[there], order[here]
            position += 1


def grid_size(resolution: int) -> tuple[int, int]:
    """Return (columns, rows) of a snapshot grid: what fits in 1920 x 1080 pixels, 7 to 8 by 4 to 8."""
    return int(np.clip(1920 // resolution, 7, 8)), int(np.clip(1080 // resolution, 4, 8))


def grid_indices(count: int, cells: int) -> np.ndarray:
    """Return the (cells,) items of a snapshot grid: the first of a fixed shuffle of `count`, cyclically."""
    order = np.arange(count)
    np.random.RandomState(0).shuffle(order)
    return order[np.arange(cells) % count]


class GridRows(NamedTuple):
    """Rows of the v1 snapshot grid: `shape` (G,), `video` (G,), `frames` (G, 2) within the video, `camera` (G, 3)."""

    shape: np.ndarray
    video: np.ndarray
    frames: np.ndarray
    camera: np.ndarray


def bank_grid_rows(pools: tuple[int, int, int, int], cells: int, camera_seed: int) -> GridRows:
    """Draw the rows of the v1 snapshot grid, the same in every run but for the cameras.

    Args:
        pools: numbers of shapes, videos, frames per video, cameras.
        cells: G, grid cells.
        camera_seed: seed of the cameras, which the reference draws from its global generator.
    """
    shapes, videos, frames, cameras = pools
    return GridRows(
        np.random.RandomState(1).randint(0, shapes, cells),
        np.random.RandomState(2).randint(0, videos, cells),
        np.random.RandomState(3).randint(0, frames, (cells, 2)),
        np.random.RandomState(camera_seed).randint(0, cameras, (cells, 3)),
    )
