"""Super-resolution: two StyleGAN2 blocks from S/4 to S (networks-stylegan.md §7).

All style inputs are one and the same vector, constant at inference, so `fold` computes the modulated weights once.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from portrait4d.config.networks import SuperResolutionConfig
from portrait4d.models.stylegan_layers import SynthesisBlock, SynthesisLayer, full_precision, modulate_weight
from portrait4d.ops.bias_act import DEFAULT_GAINS, LEAKY_SLOPE
from portrait4d.ops.dense import convolve3x3, convolve_depthwise
from portrait4d.ops.upfirdn2d import upsample2d


@dataclass(frozen=True)
class FoldedBlock:
    """Weights of one block for one style: modulation, demodulation and the activation's gain multiplied in.

    Attributes:
        up_weight: (I, O, 3, 3) of the transposed convolution, channels_last.
        low_pass: (O, 1, 4, 4), the FIR kernel of every channel, gain 4 included.
        up_bias: (O,).
        conv_weight: (O, O, 3, 3), channels_last.
        conv_bias: (O,).
        rgb_weight: (3, O, 1, 1).
        rgb_bias: (3,).
        image_kernel: (4, 4) float32, the FIR kernel that up-samples the picture.
    """

    up_weight: torch.Tensor
    low_pass: torch.Tensor
    up_bias: torch.Tensor
    conv_weight: torch.Tensor
    conv_bias: torch.Tensor
    rgb_weight: torch.Tensor
    rgb_bias: torch.Tensor
    image_kernel: torch.Tensor


@dataclass(frozen=True)
class FoldedSuperResolution:
    """What `SuperResolution.fold` computes once per style, for `SuperResolution.forward_folded`."""

    blocks: tuple[FoldedBlock, FoldedBlock]


class SuperResolution(nn.Module):
    """Turn a rendered picture and its feature picture into one of four times their size S/4 (networks-stylegan.md §7).

    Noise is never added (published mode "none"), so no noise tensors are held.
    """

    def __init__(self, config: SuperResolutionConfig, feature_channels: int, image_resolution: int) -> None:
        super().__init__()
        self.config = config
        self.input_resolution = image_resolution // 4
        common = {
            "style_dim": config.style_dim,
            "image_channels": 3,
            "conv_clamp": config.conv_clamp,
            "with_noise": False,
        }
        first, second = config.channels
        self.block0 = SynthesisBlock(feature_channels, first, resolution=image_resolution // 2, **common)
        self.block1 = SynthesisBlock(first, second, resolution=image_resolution, **common)

    def forward(self, rgb: torch.Tensor, features: torch.Tensor, style: torch.Tensor | None) -> torch.Tensor:
        """Return the picture (B, 3, S, S), nominally in [-1, 1], not clamped, float32.

        Args:
            rgb: (B, 3, h, h), nominally in [-1, 1]; resized to S/4 if it is not of that size.
            features: (B, C, h, h); their type is that of the computation.
            style: (B, style_dim), or None for a vector of ones (config.style "ones").

        Raises:
            ValueError: on pictures of different sizes, or a style that config.style does not ask for.
        """
        rgb, features = self._resize(full_precision(rgb), features)
        style = self._check_style(style, features)
        styles = style[:, None].expand(-1, 3, -1)
        features, image = self.block0(features, rgb, styles)
        return self.block1(features, image, styles)[1]

    @torch.no_grad()
    def fold(self, style: torch.Tensor | None, dtype: torch.dtype = torch.float32) -> FoldedSuperResolution:
        """Return all weights for one style (style_dim,) or None (ones), computed in float32 and stored as `dtype`."""
        reference = self.block0.conv0.weight
        style = self._check_style(None if style is None else style[None], reference[:1])
        return FoldedSuperResolution(tuple(_fold_block(block, style, dtype) for block in (self.block0, self.block1)))

    @torch.no_grad()
    def forward_folded(self, folded: FoldedSuperResolution, rgb: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return what `forward` returns, from folded weights in their type, for inference only.

        Takes `rgb` (B, 3, h, h) and `features` (B, C, h, h); computes in channels_last.
        """
        image, x = self._resize(full_precision(rgb), features)
        x = x.to(folded.blocks[0].up_weight.dtype, memory_format=torch.channels_last)
        clamp = math.inf if self.config.conv_clamp is None else self.config.conv_clamp
        for block in folded.blocks:
            x = F.conv_transpose2d(x, block.up_weight, stride=2)
            x = convolve_depthwise(x, block.low_pass, block.up_bias)
            x = F.leaky_relu_(x, LEAKY_SLOPE).clamp_(-clamp, clamp)
            x = convolve3x3(x, block.conv_weight, block.conv_bias, LEAKY_SLOPE, clamp)
            detail = F.conv2d(x, block.rgb_weight, block.rgb_bias).clamp_(-clamp, clamp)
            image = upsample2d(image, block.image_kernel) + full_precision(detail)
        return image

    def _resize(self, rgb: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if rgb.shape[-2:] != features.shape[-2:]:
            raise ValueError(f"rgb: expected the size {tuple(features.shape[-2:])}, got {tuple(rgb.shape[-2:])}")
        if rgb.shape[-1] == rgb.shape[-2] == self.input_resolution:
            return rgb, features
        return self._interpolate(rgb), self._interpolate(features)

    def _interpolate(self, picture: torch.Tensor) -> torch.Tensor:
        # in full precision: the CPU kernel with antialiasing knows no half types
        resized = F.interpolate(
            full_precision(picture),
            (self.input_resolution, self.input_resolution),
            mode="bilinear",
            align_corners=False,
            antialias=self.config.antialias,
        )
        return resized.to(picture.dtype)

    def _check_style(self, style: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
        """Return the styles (B, style_dim); if there are none, ones for as many samples as `like` has."""
        if (style is None) != (self.config.style == "ones"):
            expected = "None" if self.config.style == "ones" else f"shape (B, {self.config.style_dim})"
            raise ValueError(f"style: expected {expected}, got {None if style is None else tuple(style.shape)}")
        if style is None:
            return torch.ones_like(full_precision(like[:, 0, 0, :1])).expand(-1, self.config.style_dim)
        return style


def _fold_block(block: SynthesisBlock, style: torch.Tensor, dtype: torch.dtype) -> FoldedBlock:
    """Fold one block: √2 lrelu(a) = lrelu(√2 a), so the activation's gain goes into weights and biases."""
    gain = DEFAULT_GAINS["leaky_relu"]

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        return tensor.to(dtype).contiguous(memory_format=layout)

    def modulated(layer: SynthesisLayer) -> torch.Tensor:
        return gain * modulate_weight(layer.weight, layer.affine(style))[0]

    rgb_weight = modulate_weight(block.to_rgb.weight, block.to_rgb.modulation(style), demodulate=False)[0]
    out_channels = block.conv0.weight.shape[0]
    return FoldedBlock(
        up_weight=cast(modulated(block.conv0).transpose(0, 1)),
        low_pass=cast((4.0 * block.conv0.resample_filter).flip((0, 1)).repeat(out_channels, 1, 1, 1)),
        up_bias=cast(gain * block.conv0.bias),
        conv_weight=cast(modulated(block.conv1)),
        conv_bias=cast(gain * block.conv1.bias),
        rgb_weight=cast(rgb_weight),
        rgb_bias=cast(block.to_rgb.bias),
        image_kernel=block.resample_filter,
    )
