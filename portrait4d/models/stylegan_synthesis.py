"""Synthesis network: style vectors to a many-channel picture, in blocks with picture skips (networks-stylegan.md)."""

import torch
from torch import Tensor, nn

from portrait4d.config.gan_networks import ConvPyramidConfig
from portrait4d.models.stylegan_layers import NoiseMode, SynthesisBlock


class SynthesisNetwork(nn.Module):
    """Blocks of 4, 8, ... `config.resolution` pixels, each adding to the up-sampled picture of the one before, §4.

    Consecutive blocks share a style vector: the one that colours a block's picture is the first of the next block.
    """

    def __init__(self, config: ConvPyramidConfig, style_dim: int, image_channels: int) -> None:
        super().__init__()
        self.config = config
        self.num_styles = count_styles(config)
        self.blocks = nn.ModuleDict()
        in_channels = 0
        for resolution in config.resolutions:
            self.blocks[str(resolution)] = SynthesisBlock(
                in_channels,
                config.channels(resolution),
                style_dim=style_dim,
                resolution=resolution,
                image_channels=image_channels,
                conv_clamp=config.conv_clamp,
            )
            in_channels = config.channels(resolution)

    def forward(
        self, styles: Tensor, noise_mode: NoiseMode = "random", generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the picture (B, image_channels, resolution, resolution), float32.

        Args:
            styles: (B, num_styles, style_dim).
            noise_mode: "random" (training), "const" (the stored pictures) or "none".
            generator: source of random noise.

        Raises:
            ValueError: on another number of styles.
        """
        if styles.ndim != 3 or styles.shape[1] != self.num_styles:
            raise ValueError(f"styles: expected shape (B, {self.num_styles}, style_dim), got {tuple(styles.shape)}")
        features, image, first = None, None, 0
        for block in self.blocks.values():
            part = styles[:, first : first + block.num_styles]
            features, image = block(features, image, part, noise_mode, generator)
            first += block.num_styles - 1
        return image


def count_styles(config: ConvPyramidConfig) -> int:
    """Return the style vectors a synthesis network consumes: two for each block."""
    return 2 * len(config.resolutions)
