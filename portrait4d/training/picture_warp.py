"""Move and recolour pictures by given transforms: what `augmentation` draws at random.

Positions are normalised: (x, y) from -1 to 1 between the outer edges of a picture, x right, y down, so that one
transform means the same for pictures of any size. Beyond its edges a picture goes on as its mirror image.
Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix on augmentations.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from portrait4d.ops.upfirdn2d import build_filter, upfirdn2d, upsample2d

SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""Low-pass taps of the wavelet sym6: nearly symmetric, orthogonal to their own shifts by two."""

_DELAY = sum(place * tap for place, tap in enumerate(SYM6)) / sum(SYM6) - (len(SYM6) - 1) / 2
"""How far, in samples of double resolution, the taps move a picture, not being quite symmetric."""

_REACH = 4
"""Pixels beyond an edge that the taps need at double resolution."""


def warp_pictures(pictures: Tensor, inverse: Tensor, between_pixels: Tensor) -> Tensor:
    """Move pictures: the result at position p is the picture at `inverse` p.

    Transforms that map pixels onto pixels copy them exactly. Others are sampled as the paper does: doubled with the
    wavelet's filter, sampled bilinearly, halved with its mirror image, which together change nothing (but at the edges)
    if nothing is moved. Pictures get gradients, and these again: gradient penalties work through it.

    Args:
        pictures: (B, C, S, S) floating.
        inverse: (B, 3, 3) homogeneous, normalised positions of the result to those of the picture.
        between_pixels: (B,) bool, which transforms do not map pixels onto pixels.

    Returns:
        (B, C, S, S), type of `pictures`.

    Raises:
        ValueError: if pictures are not square, or there are not B transforms.
    """
    if pictures.ndim != 4 or pictures.shape[2] != pictures.shape[3]:
        raise ValueError(f"pictures: expected shape (B, C, S, S), got {tuple(pictures.shape)}")
    if inverse.shape != (len(pictures), 3, 3) or between_pixels.shape != (len(pictures),):
        raise ValueError(f"inverse: expected {len(pictures)} transforms 3 x 3, got {tuple(inverse.shape)}")
    work = pictures.to(torch.promote_types(pictures.dtype, torch.float32))
    inverse = inverse.to(work)
    # Both ways are computed for all samples: choosing samples by index would wait for the GPU.
    moved = torch.where(between_pixels[:, None, None, None], _resample(work, inverse), _copy(work, inverse))
    return moved.to(pictures.dtype)


def recolour_pictures(pictures: Tensor, colour: Tensor) -> Tensor:
    """Apply affine maps of colours.

    Args:
        pictures: (B, 3, H, W) RGB in [-1, 1]; results may leave this range.
        colour: (B, 3, 4) matrix and offset, of colours in [-1, 1].

    Returns:
        (B, 3, H, W), type of `pictures`.

    Raises:
        ValueError: on another number of channels.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(f"pictures: expected shape (B, 3, H, W), got {tuple(pictures.shape)}")
    colour = colour.to(pictures)
    recoloured = torch.baddbmm(colour[:, :, 3:], colour[:, :, :3], pictures.flatten(2))
    return recoloured.unflatten(2, pictures.shape[2:])


class _Sample(torch.autograd.Function):
    """Sample pictures at fixed places. PyTorch's own sampling has no second derivative, though it is linear."""

    @staticmethod
    def forward(ctx: FunctionCtx, pictures: Tensor, grid: Tensor, mode: str) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.mode, ctx.shape = mode, pictures.shape
        return functional.grid_sample(pictures, grid, mode=mode, padding_mode="border", align_corners=False)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Spread.apply(gradient, *ctx.saved_tensors, ctx.mode, ctx.shape), None, None


class _Spread(torch.autograd.Function):
    """The transpose of `_Sample`: give each sample back to the pixels that it was made of."""

    @staticmethod
    def forward(ctx: FunctionCtx, samples: Tensor, grid: Tensor, mode: str, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.mode = mode
        codes = {"bilinear": 0, "nearest": 1}[mode], 1  # and "border"
        pictures = samples.new_zeros(shape)
        return torch.ops.aten.grid_sampler_2d_backward(samples, pictures, grid, *codes, False, [True, False])[0]

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Sample.apply(gradient, *ctx.saved_tensors, ctx.mode), None, None, None


def _copy(pictures: Tensor, inverse: Tensor) -> Tensor:
    size = pictures.shape[-1]
    grid = _source_positions(_centres(torch.arange(size, device=pictures.device), size), inverse)
    return _Sample.apply(pictures, grid, "nearest")


def _resample(pictures: Tensor, inverse: Tensor) -> Tensor:
    size = pictures.shape[-1]
    taps = build_filter(SYM6).to(pictures)
    doubled = upsample2d(_pad_mirrored(pictures, _REACH), taps)
    # What halving needs to give pixels 0 to size - 1: from five samples before the first to four after the last.
    samples = torch.arange(-5, 2 * size + 5, device=pictures.device)
    grid = _source_positions(_centres(samples - _DELAY, 2 * size), inverse) + _DELAY / size
    grid = grid * (size / (size + 2 * _REACH))
    return upfirdn2d(_Sample.apply(doubled, grid, "bilinear"), taps.flip(0), down=2)


def _centres(indices: Tensor, count: int) -> Tensor:
    """Return normalised positions of the centres of samples of which `count` fill a picture's side."""
    return (2 * indices + 1) / count - 1


def _source_positions(axis: Tensor, inverse: Tensor) -> Tensor:
    """Return where in the picture the positions (axis x axis) of the result lie: (B, N, N, 2), within -1 to 1."""
    axis = axis.to(inverse)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    positions = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    moved = torch.einsum("bij,hwj->bhwi", inverse[:, :2], positions)
    return 1 - ((moved + 1) % 4 - 2).abs()


def _pad_mirrored(pictures: Tensor, margin: int) -> Tensor:
    """Continue pictures beyond their edges, the outermost pixel twice."""
    size = pictures.shape[-1]
    places = torch.arange(-margin, size + margin, device=pictures.device) % (2 * size)
    places = torch.minimum(places, 2 * size - 1 - places)
    return pictures[..., places, :][..., places]
