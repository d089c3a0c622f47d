"""One JPEG file of many small pictures, however many there are."""

from collections.abc import Sequence
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.data.image_io import image_grid, load_image, save_image
from portrait4d.files.errors import UserError

GRID_CELL = 192
"""Pixels of a cell's side, unless there are too many cells."""

_MARGIN = 2
_MAX_SIDE = 65_500
"""Pixels; libjpeg writes no longer sides."""
_MAX_AREA = 89_000_000
"""Pixels; of larger pictures Pillow warns, and it opens none of twice that area."""


def save_picture_grid(path: Path, pictures: Sequence[Path | None], columns: int, largest_cell: int = GRID_CELL) -> None:
    """Lay picture files out in rows of `columns` and save them as one JPEG, shrunk so far that it can be written.

    The pictures are read one at a time, so that memory holds the small ones only.

    Args:
        path: file to write, suffix .jpg.
        pictures: at least one; None, and what cannot be read, stays black.
        columns: pictures per row.
        largest_cell: wanted side of a cell in pixels; many cells are smaller.

    Raises:
        UserError: more columns or rows than a JPEG can hold.
    """
    rows = -(-len(pictures) // columns)
    side = min(largest_cell, _largest_side(columns, rows))
    if side < 1:
        raise UserError(f"{path}: {rows} x {columns} pictures do not fit into one JPEG; leave out --grid")
    cells = [_load_cell(picture, side) for picture in pictures]
    save_image(path, image_grid(cells, columns, _MARGIN))


def _largest_side(columns: int, rows: int) -> int:
    """Return the side in pixels at which the cells, with their margins, stay within both limits."""
    by_side = (_MAX_SIDE - _MARGIN) // max(columns, rows)
    return min(by_side, isqrt(_MAX_AREA // (columns * rows))) - _MARGIN


def _load_cell(path: Path | None, side: int) -> Tensor:
    black = torch.full((3, side, side), -1.0)
    if path is None:
        return black
    try:
        image = load_image(path)
    except UserError:
        return black
    return functional.interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]
