"""Up-sample, filter, down-sample with a small FIR kernel (networks-stylegan.md §1.1).

A kernel is a float32 tensor: (F, F) for a two-dimensional filter, (F,) for a separable one that runs along x, then y.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)
"""Taps of StyleGAN's low-pass filter, before normalisation."""


def build_filter(taps: Sequence[float] = RESAMPLE_TAPS) -> torch.Tensor:
    """Return the FIR kernel of a list of taps: float32, sum 1.

    Fewer than 8 taps become their outer product (F, F); 8 or more stay separable (F,). networks-stylegan.md §1.1.
    """
    kernel = torch.tensor(taps, dtype=torch.float32)
    if kernel.ndim != 1 or kernel.numel() == 0:
        raise ValueError(f"taps: expected a list of numbers, got {taps!r}")
    if kernel.numel() < 8:
        kernel = torch.outer(kernel, kernel)
    return kernel / kernel.sum()


def build_blur_filter(sigma: float) -> torch.Tensor:
    """Return the separable blur kernel of width `sigma` in pixels: 2^(-(i/sigma)²), |i| <= 3 sigma, sum 1.

    Base 2, not e (networks-stylegan.md §1.1); below a third of a pixel the kernel is the number 1.

    Raises:
        ValueError: if sigma is negative.
    """
    if sigma < 0:
        raise ValueError(f"sigma: expected at least 0 pixels, got {sigma}")
    half = math.floor(3 * sigma)
    if half == 0:
        return torch.ones(1)
    taps = torch.exp2(-(torch.arange(-half, half + 1, dtype=torch.float32) / sigma).square())
    return taps / taps.sum()


def upfirdn2d(
    x: torch.Tensor,
    kernel: torch.Tensor,
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> torch.Tensor:
    """Zero-insert, pad, convolve and decimate every channel (networks-stylegan.md §1.1).

    A true convolution (flipped kernel). The output is (n * up + p0 + p1 - F) / down + 1 long along each axis, rounded
    down. Half-precision input is accumulated in float32 and rounded once.

    Args:
        x: (B, C, H, W), floating, any memory format (kept where the convolutions keep it).
        kernel: (F, F), or (F,) for a separable filter.
        up: factor by which zeros are inserted after every sample, >= 1.
        down: every `down`-th sample is kept, starting with the first, >= 1.
        padding: zeros (left, right, top, bottom) of the zero-inserted picture; negative numbers crop.
        gain: factor of the result.

    Returns:
        (B, C, H', W') of the type of `x`.

    Raises:
        ValueError: on a wrong number of axes or a factor below 1.
    """
    if x.ndim != 4:
        raise ValueError(f"x: expected 4 axes (B, C, H, W), got {x.ndim}")
    if kernel.ndim not in (1, 2):
        raise ValueError(f"kernel: expected 1 or 2 axes, got {kernel.ndim}")
    if up < 1 or down < 1:
        raise ValueError(f"up, down: expected at least 1, got {up}, {down}")
    work = x.to(torch.promote_types(x.dtype, torch.float32))
    taps = kernel.to(work.dtype)
    if taps.ndim == 2:
        y = _filter(work, taps * gain, (up, up), (down, down), padding)
    else:
        taps = taps * gain**0.5
        left, right, top, bottom = padding
        y = _filter(work, taps[None, :], (1, up), (1, down), (left, right, 0, 0))
        y = _filter(y, taps[:, None], (up, 1), (down, 1), (0, 0, top, bottom))
    return y.to(x.dtype)


def upsample2d(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Return `x` (B, C, H, W) at twice the size (B, C, 2H, 2W), zeros beyond the border."""
    taps = kernel.shape[-1]
    before, after = (taps + 1) // 2, (taps - 2) // 2
    return upfirdn2d(x, kernel, up=2, padding=(before, after, before, after), gain=4.0)


def downsample2d(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Return `x` (B, C, H, W) at half the size (B, C, H/2, W/2), zeros beyond the border."""
    taps = kernel.shape[-1]
    before, after = (taps - 1) // 2, (taps - 2) // 2
    return upfirdn2d(x, kernel, down=2, padding=(before, after, before, after))


def filter2d(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Return `x` (B, C, H, W) filtered, same size, zeros beyond the border."""
    taps = kernel.shape[-1]
    before, after = taps // 2, (taps - 1) // 2
    return upfirdn2d(x, kernel, padding=(before, after, before, after))


def blur2d(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return `x` (B, C, H, W) blurred by `build_blur_filter(sigma)`, zeros beyond the border; below 1/3 `x` itself."""
    kernel = build_blur_filter(sigma)
    return x if len(kernel) == 1 else filter2d(x, kernel.to(x.device))


def _filter(
    x: torch.Tensor,
    kernel: torch.Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
) -> torch.Tensor:
    """Do the work for one (taps_y, taps_x) kernel; `up` and `down` are (y, x), `padding` as in upfirdn2d."""
    channels = x.shape[1]
    weight = kernel.expand(channels, 1, *kernel.shape)
    left, right, top, bottom = padding
    if up == (1, 1):
        weight = weight.flip((-2, -1))
        if left == right >= 0 and top == bottom >= 0:
            return F.conv2d(x, weight, stride=down, padding=(top, left), groups=channels)
        return F.conv2d(F.pad(x, padding), weight, stride=down, groups=channels)
    # A transposed convolution is the full true convolution of the zero-inserted picture without its trailing zeros:
    # (n - 1) * up + F samples, of which padding p0, p1 selects those from F - 1 - p0 to n * up - 1 + p1.
    taps_y, taps_x = kernel.shape
    full = F.conv_transpose2d(x, weight, stride=up, groups=channels)
    left, right = left - (taps_x - 1), right + up[1] - taps_x
    top, bottom = top - (taps_y - 1), bottom + up[0] - taps_y
    return F.pad(full, (left, right, top, bottom))[:, :, :: down[0], :: down[1]]
