"""Dense layers: 3x3 convolution and linear maps, by the fastest route PyTorch has on the device at hand.

Contract: `convolve3x3` is conv2d with stride 1 and padding 1, `linear` is y = x W^T + b; both are PyTorch's own
functions (the reference) wherever gradients, GPUs or other types than float32 are involved. On a CPU without gradients:

* 3x3 convolutions of large pictures go to the Winograd kernels of NNPACK that PyTorch carries, 2 to 3 times faster
  than its default on two Zen 4 cores (`benchmarks/bench_dense.py`); the rounding error rises from 1e-6 to 1e-5 of the
  largest output.
* Linear maps of many tokens run as 1x1 convolutions in channels-last layout, up to 1.5 times faster there.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_MIN_PIXELS = 64 * 64
_MIN_CHANNELS = 32
_MIN_TOKENS = 1024


def convolve3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve with stride 1 and zero padding 1.

    Args:
        x: (B, I, H, W).
        weight: (O, I, 3, 3).
        bias: (O,).

    Returns:
        (B, O, H, W), in any memory layout.
    """
    large = x.shape[-1] * x.shape[-2] >= _MIN_PIXELS and min(weight.shape[:2]) >= _MIN_CHANNELS
    if large and _is_plain_cpu(x, weight) and torch.backends.nnpack.is_available():
        return torch._nnpack_spatial_convolution(x.contiguous(), weight.contiguous(), bias, 1, 1)
    return functional.conv2d(x, weight, bias, padding=1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map the last axis: (B, N, I) to (B, N, O) with weight (O, I) and bias (O,)."""
    if x.ndim == 3 and x.shape[1] >= _MIN_TOKENS and x.is_contiguous() and _is_plain_cpu(x, weight):
        pictures = x[:, None].permute(0, 3, 1, 2)  # (B, I, 1, N), channels_last without a copy
        return functional.conv2d(pictures, weight[:, :, None, None], bias).permute(0, 2, 3, 1)[:, 0]
    return functional.linear(x, weight, bias)


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d` with a 3x3 kernel, stride 1 and padding 1, that runs through `convolve3x3`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, O, H, W) of (B, I, H, W)."""
        return convolve3x3(x, self.weight, self.bias)


class Linear(nn.Linear):
    """`nn.Linear` that runs through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., O) of (..., I)."""
        return linear(x, self.weight, self.bias)


def _is_plain_cpu(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    tracked = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return not tracked and not torch.is_autocast_enabled("cpu")
