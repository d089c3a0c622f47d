"""Dense layers: 3x3 convolution and linear maps, by the fastest route PyTorch has on the device at hand.

Contract: `convolve3x3` is conv2d with stride 1 and padding 1 and, if asked for, an activation; `linear` is
y = x W^T + b. Both are PyTorch's own functions (the reference) wherever gradients or GPUs are involved. On a CPU
without gradients:

* 3x3 convolutions of large pictures go to native Winograd kernels (`csrc/float32_conv.cpp`, `csrc/bfloat16_conv.cpp`)
  where the CPU has AVX-512 (bfloat16 products for those), 2 to 3 times faster than PyTorch's default on Zen 4 cores
  (`benchmarks/bench_dense.py`); in float32 the rounding error rises from 1e-6 to 1e-5 of the largest output.
* Elsewhere float32 ones go to the kernels of NNPACK that PyTorch carries: as fast, but not in channels-last layout.
* Linear maps of many tokens run as 1x1 convolutions of oneDNN in channels-last layout, in float32 and, where the CPU
  has it, in bfloat16; up to 1.5 times faster there.

`convolve_depthwise` is conv2d with one kernel for each channel. On a GPU it leaves the channels-last layout, for which
PyTorch always takes cuDNN, to reach PyTorch's own kernels, whose time is that of reading and writing the pictures.
"""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.ops.backend import fast_routes_serve, native_is_there
from portrait4d.ops.gradients import is_tracked

_MIN_PIXELS = 64 * 64
_MIN_CHANNELS = 32
_MIN_TOKENS = 512
_NATIVE_CHANNELS = 32


def convolve3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1.0, limit: float = math.inf
) -> Tensor:
    """Convolve with stride 1 and zero padding 1, then apply a leaky ReLU and a clamp.

    Args:
        x: (B, I, H, W).
        weight: (O, I, 3, 3).
        bias: (O,).
        slope: of the leaky ReLU below zero; 1 for none.
        limit: bound of the result's absolute value.

    Returns:
        (B, O, H, W), in any memory layout. The fast routes work tile by tile: what is not finite in the picture spoils
        its whole tile of the result.

    Raises:
        ValueError: on other shapes.
    """
    fits = x.ndim == 4 and weight.ndim == 4 and weight.shape[1:] == (x.shape[1], 3, 3)
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (x, weight, bias)]
        raise ValueError(f"x, weight and bias: expected (B, I, H, W), (O, I, 3, 3) and (O,), got {shapes}")
    x = _cast(x, weight.dtype)
    large = len(x) > 0 and x.shape[2] * x.shape[3] >= _MIN_PIXELS and min(weight.shape[:2]) >= _MIN_CHANNELS
    if not large or not is_plain_cpu(x, weight) or is_tracked(bias):
        return _activate(functional.conv2d(x, weight, bias, padding=1), slope, limit)
    if _native_convolves(weight):
        return torch.ops.portrait4d.convolve3x3(x, weight, bias, slope, limit)
    if x.dtype == torch.float32 and torch.backends.nnpack.is_available():
        result = torch._nnpack_spatial_convolution(x.contiguous(), weight.contiguous(), bias, 1, 1)
        return _activate(result, slope, limit)
    return _activate(functional.conv2d(x, weight, bias, padding=1), slope, limit)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Do to a picture what automatic casting on a CPU is about to do, so that the routes of its type may serve."""
    casts = x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == dtype
    return x.to(dtype) if casts else x


def _activate(x: Tensor, slope: float, limit: float) -> Tensor:
    """Activate a convolution's result, in place, as autograd allows."""
    if slope != 1:
        x = functional.leaky_relu(x, slope, inplace=True)
    if limit == math.inf:
        return x
    return x.clamp(-limit, limit) if x.requires_grad else x.clamp_(-limit, limit)


def convolve_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 1) -> Tensor:
    """Convolve every channel with a kernel of its own, stride 1, zero padding.

    Args:
        x: (B, C, H, W).
        weight: (C, 1, k, k).
        bias: (C,).
        padding: zeros on each side.

    Returns:
        (B, C, H + 2 padding - k + 1, W + 2 padding - k + 1), in any memory layout.
    """
    if x.device.type == "cuda" and fast_routes_serve():
        # flattened, because the strides of an axis of length 1 tell the layout as well
        x, weight = x.contiguous(), weight.contiguous().flatten().view(weight.shape)
    return functional.conv2d(x, weight, bias, padding=padding, groups=len(weight))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map the last axis: (B, N, I) to (B, N, O) with weight (O, I) and bias (O,)."""
    if x.ndim == 3 and x.shape[1] >= _MIN_TOKENS and x.is_contiguous() and is_plain_cpu(x, weight):
        pictures = x[:, None].permute(0, 3, 1, 2)  # (B, I, 1, N), channels_last without a copy
        # Not conv2d: with one thread it prefers a slower route.
        result = torch.mkldnn_convolution(pictures, weight[:, :, None, None], bias, (0, 0), (1, 1), (1, 1), 1)
        return result.permute(0, 2, 3, 1)[:, 0]
    return functional.linear(x, weight, bias)


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d` with a 3x3 kernel, stride 1 and padding 1, that runs through `convolve3x3`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, slope: float = 1.0) -> Tensor:
        """Return (B, O, H, W) of (B, I, H, W), after a leaky ReLU of a slope (1: none)."""
        return convolve3x3(x, self.weight, self.bias, slope)


class DepthwiseConv3x3(nn.Conv2d):
    """`nn.Conv2d` with a 3x3 kernel for each channel, stride 1, padding 1, that runs through `convolve_depthwise`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) of (B, C, H, W)."""
        return convolve_depthwise(x, self.weight, self.bias)


class Linear(nn.Linear):
    """`nn.Linear` that runs through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., O) of (..., I)."""
        return linear(x, self.weight, self.bias)


def is_plain_cpu(*tensors: Tensor) -> bool:
    """Tell whether routes of CPUs may serve: one fast type, no gradients, no tracing, nothing that would be cast."""
    dtype = tensors[0].dtype
    if any(tensor.device.type != "cpu" or tensor.dtype != dtype for tensor in tensors) or not _is_fast_on_cpu(dtype):
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != dtype:
        return False
    return not is_tracked(*tensors) and fast_routes_serve()


def _native_convolves(weight: Tensor) -> bool:
    if weight.shape[0] % _NATIVE_CHANNELS or weight.shape[1] % _NATIVE_CHANNELS or not native_is_there():
        return False
    operations = torch.ops.portrait4d
    return operations.convolves_float32() if weight.dtype == torch.float32 else operations.convolves_bfloat16()


@functools.cache
def _is_fast_on_cpu(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
