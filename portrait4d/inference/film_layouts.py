"""Frames of films made of several pictures: results alone, beside sources and driver, or in a grid."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.config.animation import Layout
from portrait4d.data.image_io import image_grid, side_by_side


def arrange(layout: Layout, sources: Sequence[Tensor], results: Sequence[Tensor], driver: Tensor | None) -> Tensor:
    """Arrange the pictures of one frame.

    Args:
        layout: "result": results from left to right; "side-by-side": a row source | result | driver for each source;
            "grid": the driver and all results in rows, about as many as columns.
        sources: (3, S, S) in [-1, 1], one for each result.
        results: (C, H, W) in [-1, 1]; C = 4 (with opacity) only in the layout "result".
        driver: (3, h, w), of any size; None: there is no picture, and no place is kept for it.

    Returns:
        (C, height, width).
    """
    if layout == "result":
        return _in_row(results)
    shape = (max(one.shape[1] for one in results), max(one.shape[2] for one in results))
    drivers = [] if driver is None else [fit_into(driver, shape)]
    if layout == "grid":
        cells = [*drivers, *(fit_into(result, shape) for result in results)]
        return image_grid(cells, math.ceil(math.sqrt(len(cells))))
    rows = [
        torch.cat([fit_into(source, shape), fit_into(result, shape), *drivers], dim=2)
        for source, result in zip(sources, results, strict=True)
    ]
    return torch.cat(rows, dim=1)


def fit_into(picture: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize a picture (3, h, w) so that it just fits into (height, width), in the middle of black.

    Returns:
        (3, height, width).
    """
    height, width = shape
    if picture.shape[1:] == shape:
        return picture
    factor = min(height / picture.shape[1], width / picture.shape[2])
    inner = [max(1, min(limit, round(side * factor))) for side, limit in zip(picture.shape[1:], shape, strict=True)]
    small = functional.interpolate(picture[None], inner, mode="bilinear", antialias=True)[0].clamp(-1, 1)
    upper, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return functional.pad(small, (left, width - inner[1] - left, upper, height - inner[0] - upper), value=-1.0)


def _in_row(results: Sequence[Tensor]) -> Tensor:
    if len(results) == 1:
        return results[0]
    if results[0].shape[0] == 3:
        return side_by_side(results)
    return torch.cat(list(results), dim=2)
