"""Fake and autograd kernels of the native operations, added to their registration in `csrc/binding.cpp`.

Fake kernels give shapes to `torch.compile` and the like; autograd kernels give gradients in terms of native operations.
"""

import functools

import torch
from torch import Tensor

from portrait4d.ops.gradients import is_tracked

_LIBRARY = "portrait4d"


@functools.cache
def register_kernels() -> None:
    """Register everything, once in a process; the library must be loaded."""
    fakes = {
        "triplane_fetch": _fake_fetch,
        "triplane_fetch_backward": _fake_fetch_backward,
        "march_rays": _fake_march,
        "march_rays_backward": _fake_march_backward,
        "triplane_render": _fake_render,
        "nearest_triangle": _fake_nearest,
        "nearest_vertex": _fake_nearest,
        "rasterize": _fake_rasterize,
        "convolve3x3": _fake_convolve,
        "softmax_rows_": _fake_softmax,
    }
    for name, fake in fakes.items():
        torch.library.register_fake(f"{_LIBRARY}::{name}", fake)
    torch.library.register_autograd(f"{_LIBRARY}::triplane_fetch", _fetch_backward, setup_context=_fetch_context)
    torch.library.register_autograd(f"{_LIBRARY}::march_rays", _march_backward, setup_context=_march_context)


def _fetch_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    table, points, ctx.box_warp = inputs
    ctx.table_sizes = table.shape
    ctx.save_for_backward(points)


def _fetch_backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
    (points,) = ctx.saved_tensors
    _refuse_second_derivatives(gradient)
    to_table = torch.ops.portrait4d.triplane_fetch_backward(gradient, points, ctx.box_warp, ctx.table_sizes)
    return to_table, None, None


def _march_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs)


def _march_backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor]:
    _refuse_second_derivatives(*gradients, *ctx.saved_tensors)
    return torch.ops.portrait4d.march_rays_backward(*gradients, *ctx.saved_tensors)


def _refuse_second_derivatives(*tensors: Tensor) -> None:
    """Gradients of gradients would silently be none: the backward operations are not differentiable."""
    if is_tracked(*tensors):
        raise RuntimeError("native operations have no second derivatives; use portrait4d.ops.backend.without_native()")


def _fake_convolve(picture: Tensor, weight: Tensor, bias: Tensor | None, slope: float, limit: float) -> Tensor:
    batch, _, height, width = picture.shape
    return picture.new_empty(batch, height, width, weight.shape[0]).permute(0, 3, 1, 2)


def _fake_softmax(scores: Tensor, scale: float) -> Tensor:
    return scores


def _fake_fetch(table: Tensor, points: Tensor, box_warp: float) -> Tensor:
    return table.new_empty(*points.shape[:2], table.shape[4])


def _fake_fetch_backward(gradient: Tensor, points: Tensor, box_warp: float, table_sizes: list[int]) -> Tensor:
    return gradient.new_empty(table_sizes)


def _fake_march(densities: Tensor, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rays, samples = densities.shape
    return densities.new_empty(rays, samples - 1), densities.new_empty(rays), densities.new_empty(rays)


def _fake_march_backward(
    to_weights: Tensor, to_depth: Tensor, to_transmittance: Tensor, densities: Tensor, distances: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(densities), torch.empty_like(distances)


def _fake_render(
    table: Tensor,
    box_warp: float,
    decoder: list[Tensor],
    grids: list[Tensor],
    grid_numbers: list[float],
    rays: list[Tensor],
    keep_samples: bool,
) -> list[Tensor]:
    origins, _, distances, quantiles = rays
    shape = origins.shape[:2]
    samples = distances.shape[1] + quantiles.shape[2] if keep_samples else 0
    sizes = ((decoder[4].shape[0],), (), (), (samples,), (max(samples - 1, 0),))
    return [table.new_empty(*shape, *size) for size in sizes]


def _fake_nearest(points: Tensor, mesh: Tensor) -> tuple[Tensor, Tensor]:
    shape = points.shape[:2]
    return points.new_empty(shape), points.new_empty(shape, dtype=torch.int64)


def _fake_rasterize(
    corners: Tensor, picture: Tensor, centres: Tensor, pictures: int, perspective: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (pictures, len(centres), len(centres))
    return picture.new_empty(shape), corners.new_empty(*shape, 3), corners.new_empty(shape)
