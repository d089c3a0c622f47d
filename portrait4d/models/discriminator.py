"""Dual discriminator: is a picture, with its raw rendering, correspondence map and mask, real?

It is told the camera too, and judges all pictures at one size (networks-stylegan.md §9).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from portrait4d.config.gan_networks import DiscriminatorConfig
from portrait4d.models.discriminator_layers import EqualisedConv2d, FinalBlock, ResidualBlock
from portrait4d.models.stylegan_layers import full_precision
from portrait4d.models.stylegan_mapping import MappingNetwork
from portrait4d.ops.resize import resize_antialiased


@dataclass(frozen=True)
class DiscriminatorInput:
    """What a discriminator looks at; those it has no use for may be None. All but `image_sr` are resized to S.

    Attributes:
        image_sr: (B, 3, S, S) in [-1, 1].
        image: (B, 3, R, R) raw picture in [-1, 1].
        correspondence: (B, 3, H, W) correspondence map, unscaled.
        mask: (B, 1, R, R) head mask in [-1, 1].
    """

    image_sr: Tensor
    image: Tensor | None = None
    correspondence: Tensor | None = None
    mask: Tensor | None = None


class Discriminator(nn.Module):
    """Residual discriminator with camera conditioning, §9."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        pyramid, style_dim = config.pyramid, config.mapping.style_dim
        clamp = pyramid.conv_clamp
        self.resolution = pyramid.resolution
        self.from_rgb = EqualisedConv2d(
            config.input_channels, pyramid.channels(self.resolution), 1, activation="leaky_relu", conv_clamp=clamp
        )
        self.blocks = nn.ModuleDict(
            {
                str(size): ResidualBlock(pyramid.channels(size), pyramid.channels(size // 2), clamp)
                for size in reversed(pyramid.resolutions[1:])
            }
        )
        self.mapping = MappingNetwork(config.mapping)
        self.final = FinalBlock(pyramid.channels(4), style_dim, config.group_size, clamp)

    def forward(self, inputs: DiscriminatorInput, camera: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return logits (B, 1), positive for real.

        Args:
            inputs: the pictures.
            camera: (B, 25) camera vectors that contain the whole head rotation.
            generator: source of the camera's disturbance, if there is any.

        Raises:
            ValueError: on a picture that is missing or has another size.
        """
        x = self.from_rgb(self.join_inputs(inputs))
        for block in self.blocks.values():
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):
            verdict = self.final(full_precision(x))
            wanted = self.mapping(None, self._disturb(camera, generator))[:, 0]
            return (verdict * wanted).sum(dim=1, keepdim=True) / math.sqrt(wanted.shape[1])

    def join_inputs(self, inputs: DiscriminatorInput) -> Tensor:
        """Resize the pictures (bilinear, antialiased) and join them: (B, input_channels, S, S) as the network sees it.

        Raises:
            ValueError: on a picture that is missing or has another size.
        """
        size, config = self.resolution, self.config
        if inputs.image_sr.shape[1:] != (config.image_channels, size, size):
            expected = f"shape (B, {config.image_channels}, {size}, {size})"
            raise ValueError(f"image_sr: expected {expected}, got {tuple(inputs.image_sr.shape)}")
        wanted = {
            "image": (config.with_raw_image, config.image_channels),
            "correspondence": (config.with_correspondence, 3),
            "mask": (config.with_mask, 1),
        }
        parts = [inputs.image_sr]
        for name, (taken, channels) in wanted.items():
            if not taken:
                continue
            picture = getattr(inputs, name)
            if picture is None or picture.shape[:2] != (len(inputs.image_sr), channels):
                expected = f"shape ({len(inputs.image_sr)}, {channels}, H, W)"
                raise ValueError(
                    f"{name}: expected {expected}, got {None if picture is None else tuple(picture.shape)}"
                )
            parts.append(resize_antialiased(picture, size))
        return torch.cat(parts, dim=1)

    def _disturb(self, camera: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.config.camera_noise or len(camera) < 2:
            return camera
        noise = torch.randn(camera.shape, generator=generator, device=camera.device)
        return camera + noise * camera.std(dim=0) * self.config.camera_noise
