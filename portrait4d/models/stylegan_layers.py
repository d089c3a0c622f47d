"""StyleGAN2 building blocks: equalised linear layer, modulated convolution, synthesis block (networks-stylegan.md).

Parameters stay in their own type; a layer computes in the type of its input `x`, so half-precision features with
float32 parameters work. Style vectors and the running picture keep full precision.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from portrait4d.ops.bias_act import bias_act
from portrait4d.ops.upfirdn2d import build_filter, upfirdn2d, upsample2d

NoiseMode = Literal["none", "const", "random"]


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate, §1.3: (..., in_features) to (..., out_features).

    y = act(x Wᵀ m/√in + b m), act linear or √2 · leaky ReLU (slope 0.2), m the learning-rate multiplier.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: Literal["linear", "leaky_relu"] = "linear",
        learning_rate_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight_gain = learning_rate_multiplier / math.sqrt(in_features)
        self.bias_gain = learning_rate_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / learning_rate_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))

    def scaled_parameters(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weight (out, in) and bias (out,) as they act on the input."""
        return self.weight * self.weight_gain, self.bias * self.bias_gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out_features) of the type of `x`."""
        weight, bias = self.scaled_parameters()
        y = F.linear(x, weight.to(x.dtype), bias.to(x.dtype))
        return y if self.activation == "linear" else bias_act(y, activation=self.activation)


def modulate_weight(weight: torch.Tensor, styles: torch.Tensor, demodulate: bool = True) -> torch.Tensor:
    """Return one convolution weight per style, §1.5.

    w'[b,o,i] = weight[o,i] · s[b,i]; demodulated w'' = w' · (Σ_i,k w'² + 1e-8)^(−1/2).

    Args:
        weight: (O, I, k, k).
        styles: (B, I).
        demodulate: whether every output channel is scaled to unit norm.

    Returns:
        (B, O, I, k, k), float32 or wider.
    """
    weight, styles = full_precision(weight), full_precision(styles)
    modulated = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        modulated = modulated * (modulated.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    return modulated


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    *,
    up: int = 1,
    kernel: torch.Tensor | None = None,
    demodulate: bool = True,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convolve `x` with a weight scaled per sample and input channel, §1.5.

    A single sample modulates the weight; several scale the activations before and after one shared convolution, which
    is the same up to rounding.

    Args:
        x: (B, I, H, W); its type is that of the computation.
        weight: (O, I, k, k), k odd (3 if `up` is 2).
        styles: (B, I), or (1, I) for all samples.
        up: 1, or 2 for a transposed convolution followed by the low-pass `kernel`.
        kernel: FIR kernel of `build_filter`, needed if `up` is 2.
        demodulate: see `modulate_weight`.
        noise: broadcastable to the result, added to it.

    Returns:
        (B, O, H * up, W * up).

    Raises:
        ValueError: if `up` is not 1 or 2, or 2 without a `kernel`; on another batch of styles.
    """
    if up not in (1, 2) or (up == 2 and kernel is None):
        raise ValueError(f"up: expected 1, or 2 with a kernel, got {up}")
    if styles.shape[0] not in (1, x.shape[0]):
        raise ValueError(f"styles: expected a batch of 1 or {x.shape[0]}, got {styles.shape[0]}")
    if x.shape[0] == 1:
        y = _resampling_conv(x, modulate_weight(weight, styles, demodulate)[0].to(x.dtype), up, kernel)
    else:
        y = _scaled_conv(x, weight, styles, up, kernel, demodulate)
    return y if noise is None else y + noise.to(y.dtype)


def _scaled_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    up: int,
    kernel: torch.Tensor | None,
    demodulate: bool,
) -> torch.Tensor:
    """Return conv(x · s, weight) · σ with σ[b,o] of `modulate_weight`."""
    weight, styles = full_precision(weight), full_precision(styles)
    if demodulate and x.dtype == torch.float16:  # keep x · s within range; σ undoes both factors (§1.5, fp16 only)
        peak = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
        weight = weight / (peak * math.sqrt(weight[0].numel()))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    y = _resampling_conv(x * styles.to(x.dtype)[:, :, None, None], weight.to(x.dtype), up, kernel)
    if demodulate:
        # Σ_i,k (w[o,i,k] s[b,i])² = Σ_i s[b,i]² Σ_k w[o,i,k]²
        energy = styles.square() @ weight.square().sum(dim=(2, 3)).T
        y = y * (energy + 1e-8).rsqrt().to(y.dtype)[:, :, None, None]
    return y


def _resampling_conv(x: torch.Tensor, weight: torch.Tensor, up: int, kernel: torch.Tensor | None) -> torch.Tensor:
    if up == 1:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    full = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return upfirdn2d(full, kernel, padding=(1, 1, 1, 1), gain=4.0)


def full_precision(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as float32 if it is of a half type, as it is otherwise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class SynthesisLayer(nn.Module):
    """Styled 3×3 convolution with noise, bias and leaky ReLU, §3.

    `up` is 1 or 2; the output is `resolution` wide. Without `with_noise` the layer holds no noise tensors.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style_dim: int,
        resolution: int,
        up: int = 1,
        conv_clamp: float | None = None,
        with_noise: bool = True,
    ) -> None:
        super().__init__()
        self.up = up
        self.conv_clamp = conv_clamp
        self.with_noise = with_noise
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = FullyConnected(style_dim, in_channels, bias_init=1.0)
        if with_noise:
            self.noise_strength = nn.Parameter(torch.zeros(()))
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", build_filter() if up == 2 else None)

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor,
        noise_mode: NoiseMode = "none",
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Return (B, out_channels, resolution, resolution) of the type of `x`.

        Args:
            x: (B, in_channels, resolution / up, resolution / up).
            style: (B, style_dim).
            noise_mode: "none", "const" (the stored picture) or "random" (new for each sample), times the strength.
            generator: source of the random noise.
        """
        noise = self._make_noise(x.shape[0], noise_mode, generator)
        y = modulated_conv2d(x, self.weight, self.affine(style), up=self.up, kernel=self.resample_filter, noise=noise)
        return bias_act(y, self.bias, "leaky_relu", clamp=self.conv_clamp)

    def _make_noise(self, batch: int, noise_mode: NoiseMode, generator: torch.Generator | None) -> torch.Tensor | None:
        if noise_mode == "none":
            return None
        if not self.with_noise:
            raise ValueError(f"noise_mode: expected 'none' for a layer without noise, got {noise_mode!r}")
        if noise_mode == "const":
            return self.noise_const * self.noise_strength
        if noise_mode == "random":
            shape = (batch, 1, *self.noise_const.shape)
            return torch.randn(shape, generator=generator, device=self.noise_const.device) * self.noise_strength
        raise ValueError(f"noise_mode: expected 'none', 'const' or 'random', got {noise_mode!r}")


class ToRGB(nn.Module):
    """Styled 1×1 convolution to a picture, without demodulation, §3."""

    def __init__(self, in_channels: int, out_channels: int, *, style_dim: int, conv_clamp: float | None = None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.style_gain = 1 / math.sqrt(in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = FullyConnected(style_dim, in_channels, bias_init=1.0)

    def modulation(self, style: torch.Tensor) -> torch.Tensor:
        """Return the factors (B, in_channels) of the input channels for styles (B, style_dim)."""
        return self.affine(style) * self.style_gain

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Return (B, out_channels, H, W) of features (B, in_channels, H, W) and styles (B, style_dim)."""
        y = modulated_conv2d(x, self.weight, self.modulation(style), demodulate=False)
        return bias_act(y, self.bias, clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One resolution of a synthesis network with picture skip connections, §4.

    With `in_channels` = 0 it is the first block: a learnt constant and one convolution, no up-sampling.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style_dim: int,
        resolution: int,
        image_channels: int,
        conv_clamp: float | None = None,
        with_noise: bool = True,
    ) -> None:
        super().__init__()
        layer_args = {
            "style_dim": style_dim,
            "resolution": resolution,
            "conv_clamp": conv_clamp,
            "with_noise": with_noise,
        }
        self.is_first = in_channels == 0
        self.num_styles = 2 if self.is_first else 3
        if self.is_first:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.register_buffer("resample_filter", build_filter())
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, **layer_args)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **layer_args)
        self.to_rgb = ToRGB(out_channels, image_channels, style_dim=style_dim, conv_clamp=conv_clamp)

    def forward(
        self,
        x: torch.Tensor | None,
        image: torch.Tensor | None,
        styles: torch.Tensor,
        noise_mode: NoiseMode = "none",
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features (B, out_channels, r, r) and the picture (B, image_channels, r, r) at this resolution r.

        Args:
            x: features (B, in_channels, r/2, r/2); None for the first block.
            image: picture (B, image_channels, r/2, r/2) or None, float32; the result is float32 (or wider) too.
            styles: (B, num_styles, style_dim) in the order conv0 (not in the first block), conv1, picture.
            noise_mode: see `SynthesisLayer`.
            generator: source of random noise.
        """
        if styles.ndim != 3 or styles.shape[1] != self.num_styles:
            raise ValueError(f"styles: expected shape (B, {self.num_styles}, style_dim), got {tuple(styles.shape)}")
        if self.is_first:
            x = self.const.expand(styles.shape[0], -1, -1, -1)
        else:
            x = self.conv0(x, styles[:, 0], noise_mode, generator)
        x = self.conv1(x, styles[:, -2], noise_mode, generator)
        rgb = self.to_rgb(x, styles[:, -1])
        rgb = full_precision(rgb)
        if image is not None:
            rgb = upsample2d(image, self.resample_filter) + rgb
        return x, rgb
