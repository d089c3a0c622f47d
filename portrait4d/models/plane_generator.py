"""Tri-plane generator: canonical and detail features to raw planes (networks-reconstructor.md §7)."""

import torch
import torch.nn.functional as F
from torch import nn

from portrait4d.config.networks import ReconstructorConfig
from portrait4d.models.transformer_blocks import Block, PatchEmbedding, initialise_weights, picture_from_tokens
from portrait4d.ops.dense import Conv3x3, convolve3x3

_LEAKY_SLOPE = 0.01


class PlaneGenerator(nn.Module):
    """Fuse canonical features X and detail features D, both (B, plane_channels, h, h), into raw planes, §7.

    The first convolution is linear in [X, D], so `fold_detail` computes the half of D, which depends on the source
    alone, once for all frames.
    """

    def __init__(self, config: ReconstructorConfig) -> None:
        super().__init__()
        sizes, plane_channels = config.plane_generator, config.plane_channels
        first, second = sizes.conv_channels
        self.plane_channels = plane_channels
        self.input_conv = Conv3x3(2 * plane_channels, first)
        self.embedding_conv = Conv3x3(first, second)
        self.patch_embedding = PatchEmbedding(second, sizes.token_dim)
        self.block = Block(sizes.token_dim, sizes.heads, sizes.mlp_ratio, sizes.key_reduction)
        self.fusion = nn.Sequential(
            Conv3x3(sizes.token_dim // 4 + plane_channels, first),
            nn.LeakyReLU(_LEAKY_SLOPE, inplace=True),
            Conv3x3(first, second),
            nn.LeakyReLU(_LEAKY_SLOPE, inplace=True),
            Conv3x3(second, second),
            nn.LeakyReLU(_LEAKY_SLOPE, inplace=True),
        )
        self.output_conv = Conv3x3(second, plane_channels)
        self.apply(initialise_weights)
        nn.init.normal_(self.output_conv.weight, std=0.15)

    def fold_detail(self, detail: torch.Tensor) -> torch.Tensor:
        """Return the share of detail D (B, plane_channels, h, h) in the first convolution, bias included.

        The result (B, conv_channels[0], h, h) is for `forward`.
        """
        return convolve3x3(detail, self.input_conv.weight[:, self.plane_channels :], self.input_conv.bias)

    def forward(self, canonical: torch.Tensor, folded_detail: torch.Tensor) -> torch.Tensor:
        """Return raw planes (B, plane_channels, h, h), unbounded; plane p, feature f is channel p · features + f.

        Args:
            canonical: X, (B, plane_channels, h, h), h a multiple of 4.
            folded_detail: `fold_detail` of D, batch B or 1.
        """
        if canonical.shape[-1] % 4 or canonical.shape[-2] % 4:
            raise ValueError(f"canonical: expected sides that are multiples of 4, got {tuple(canonical.shape[-2:])}")
        weight = self.input_conv.weight[:, : self.plane_channels].to(canonical.dtype)
        x = convolve3x3(canonical, weight).add_(folded_detail)
        x = F.leaky_relu(x, _LEAKY_SLOPE, inplace=True)
        x = self.embedding_conv(x, _LEAKY_SLOPE)
        tokens, grid = self.patch_embedding(x)
        mixed = F.pixel_shuffle(picture_from_tokens(self.block(tokens, grid), grid), 2)
        x = torch.cat((mixed, canonical), dim=1)
        for convolution in self.fusion[::2]:  # each before its activation
            x = convolution(x, _LEAKY_SLOPE)
        return self.output_conv(x)
