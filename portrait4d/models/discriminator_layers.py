"""Building blocks of the discriminator: equalised convolution, residual block, final block (networks-stylegan.md)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from portrait4d.models.stylegan_layers import FullyConnected
from portrait4d.ops.bias_act import DEFAULT_GAINS, Activation, bias_act
from portrait4d.ops.dense import convolve3x3
from portrait4d.ops.upfirdn2d import build_filter, downsample2d, upfirdn2d


class EqualisedConv2d(nn.Module):
    """Convolution with equalised learning rate, bias and activation, §1.4: weight / √(in k²), zero padding.

    `down` 2 halves the size behind StyleGAN's low-pass filter. `conv_clamp` bounds the output at gain 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        activation: Activation = "linear",
        down: int = 1,
        with_bias: bool = True,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        if kernel_size not in (1, 3) or down not in (1, 2):
            raise ValueError(f"kernel_size, down: expected 1 or 3, and 1 or 2, got {kernel_size}, {down}")
        self.activation, self.down, self.conv_clamp = activation, down, conv_clamp
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_channels)) if with_bias else None)
        self.register_buffer("resample_filter", build_filter() if down == 2 else None)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Return (B, out, H / down, W / down) of (B, in, H, W), times `gain`; computes in the type of `x`."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        y = self._convolve(x, weight)
        return bias_act(y, self.bias, self.activation, gain=DEFAULT_GAINS[self.activation] * gain, clamp=clamp)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.down == 1:
            return convolve3x3(x, weight) if weight.shape[-1] == 3 else F.conv2d(x, weight)
        if weight.shape[-1] == 1:
            return F.conv2d(downsample2d(x, self.resample_filter), weight)
        return F.conv2d(upfirdn2d(x, self.resample_filter, padding=(2, 2, 2, 2)), weight, stride=2)


class ResidualBlock(nn.Module):
    """Two convolutions beside a linear skip, both halving the size: in_channels@r to out_channels@r/2, §9."""

    def __init__(self, in_channels: int, out_channels: int, conv_clamp: float | None) -> None:
        super().__init__()
        active = {"activation": "leaky_relu", "conv_clamp": conv_clamp}
        self.skip = EqualisedConv2d(in_channels, out_channels, 1, down=2, with_bias=False)
        self.conv0 = EqualisedConv2d(in_channels, in_channels, 3, **active)
        self.conv1 = EqualisedConv2d(in_channels, out_channels, 3, down=2, **active)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, r/2, r/2) of (B, in_channels, r, r)."""
        half = math.sqrt(0.5)
        return self.skip(x, gain=half) + self.conv1(self.conv0(x), gain=half)


def append_minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """Append a channel that holds the standard deviation over a group of samples, averaged over everything else, §9.

    Samples n, n + B/G, n + 2 B/G, ... form a group, G = min(group_size, B).

    Args:
        x: (B, C, H, W).
        group_size: samples in a group.

    Returns:
        (B, C + 1, H, W).

    Raises:
        ValueError: if B is not a multiple of G.
    """
    batch, channels, height, width = x.shape
    group = min(group_size, batch)
    if batch % group:
        raise ValueError(f"batch: expected a multiple of the group size {group}, got {batch}")
    grouped = x.view(group, batch // group, channels, height, width)
    deviation = (grouped.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return torch.cat([x, deviation.repeat(group).view(batch, 1, 1, 1).expand(-1, 1, height, width)], dim=1)


class FinalBlock(nn.Module):
    """Features of 4 x 4 pixels to one vector (B, style_dim) per sample, with a minibatch statistic, §9 (b4)."""

    def __init__(self, channels: int, style_dim: int, group_size: int, conv_clamp: float | None) -> None:
        super().__init__()
        self.group_size = group_size
        self.conv = EqualisedConv2d(channels + 1, channels, 3, activation="leaky_relu", conv_clamp=conv_clamp)
        self.hidden = FullyConnected(channels * 16, channels, activation="leaky_relu")
        self.output = FullyConnected(channels, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, style_dim) of (B, channels, 4, 4)."""
        x = self.conv(append_minibatch_std(x, self.group_size))
        return self.output(self.hidden(x.flatten(1)))
