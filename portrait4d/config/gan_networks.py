"""Sizes of GenHead and of its discriminator. Defaults are the published 512-pixel networks (networks-stylegan.md).

GenHead at picture size S works on these grids: planes S/2, background S/8, rays `render_resolution`, super-resolution
from S/4 to S.
"""

from dataclasses import dataclass, field, replace

from portrait4d.config.networks import HeadPoseConfig, SuperResolutionConfig, VolumeConfig, require

CAMERA_CONDITION = 25
SHAPE_CONDITION = 300
"""Numbers of a camera vector and of an identity, which condition the mapping network."""


@dataclass(frozen=True)
class MappingConfig:
    """Mapping network, §2: latent and condition to a style vector.

    `latent_dim` or `condition_dim` may be 0 (none), not both. `average_decay` is the share of the running average of
    styles kept at an update; None: no average is kept, and styles cannot be truncated.
    """

    latent_dim: int = 512
    condition_dim: int = 0
    style_dim: int = 512
    layers: int = 8
    average_decay: float | None = None

    def __post_init__(self) -> None:
        require(self.latent_dim + self.condition_dim > 0, "latent_dim", "a latent or a condition", 0)
        require(self.layers >= 1, "layers", "at least 1", self.layers)


@dataclass(frozen=True)
class ConvPyramidConfig:
    """A pyramid of convolution blocks from 4 to `resolution` pixels, C(r) = min(channel_base / r, channel_max) wide.

    `conv_clamp` bounds every layer's output (None: no bound).
    """

    resolution: int = 256
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = None

    def __post_init__(self) -> None:
        size = self.resolution
        require(size >= 8 and size & (size - 1) == 0, "resolution", "a power of 2, at least 8", size)
        require(self.channels(size) >= 1, "channel_base", f"at least {size}", self.channel_base)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Sides of the blocks, ascending: 4, 8, ... resolution."""
        return tuple(2**power for power in range(2, self.resolution.bit_length()))

    def channels(self, resolution: int) -> int:
        """Return the channels of the block of that side."""
        return min(self.channel_base // resolution, self.channel_max)


@dataclass(frozen=True)
class GenHeadConfig:
    """GenHead, §5: latent, camera, identity and head pose to a picture of a head.

    Above `auto_fusion_above` rays per side the mouth's rays add both sets of planes instead of switching between them.
    """

    image_resolution: int = 512
    render_resolution: int = 64
    auto_fusion_above: int = 64
    plane_features: int = 32
    mapping: MappingConfig = field(
        default_factory=lambda: MappingConfig(
            condition_dim=CAMERA_CONDITION + SHAPE_CONDITION, layers=2, average_decay=0.998
        )
    )
    backbone: ConvPyramidConfig = field(default_factory=ConvPyramidConfig)
    background_mapping: MappingConfig = field(default_factory=MappingConfig)
    background: ConvPyramidConfig = field(default_factory=lambda: ConvPyramidConfig(64, 16384, 512, 256.0))
    super_resolution: SuperResolutionConfig = field(default_factory=lambda: SuperResolutionConfig(style="ones"))
    volume: VolumeConfig = field(default_factory=VolumeConfig)
    head_pose: HeadPoseConfig = field(default_factory=HeadPoseConfig)

    def __post_init__(self) -> None:
        size, condition = self.image_resolution, self.mapping.condition_dim
        require(size >= 16 and size % 4 == 0, "image_resolution", "a multiple of 4, at least 16", size)
        require(
            1 <= self.render_resolution < size, "render_resolution", f"1 to {size - 1} rays", self.render_resolution
        )
        require(self.plane_features >= 3, "plane_features", "at least 3", self.plane_features)
        known = (CAMERA_CONDITION, CAMERA_CONDITION + SHAPE_CONDITION)
        require(condition in known, "mapping.condition_dim", f"one of {known}", condition)
        latents = (self.mapping.latent_dim, self.background_mapping.latent_dim)
        require(latents[0] == latents[1] > 0, "latent_dim", "one length for head and background", latents)
        require(self.super_resolution.style == "ones", "style", "'ones'", self.super_resolution.style)
        counts = (self.volume.depth_samples, self.volume.importance_samples)
        require(counts[0] == counts[1], "importance_samples", f"depth_samples, {counts[0]}", counts[1])


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Dual discriminator, §9: picture, up-scaled raw picture, and on request correspondence map and head mask.

    `group_size` samples share a minibatch standard deviation. `camera_noise` disturbs the camera by so many standard
    deviations of the batch.
    """

    pyramid: ConvPyramidConfig = field(default_factory=lambda: ConvPyramidConfig(512, 32768, 512, 256.0))
    image_channels: int = 3
    with_raw_image: bool = True
    with_correspondence: bool = True
    with_mask: bool = True
    mapping: MappingConfig = field(
        default_factory=lambda: MappingConfig(latent_dim=0, condition_dim=CAMERA_CONDITION, layers=8)
    )
    group_size: int = 2
    camera_noise: float = 0.0

    def __post_init__(self) -> None:
        require(self.group_size >= 1, "group_size", "at least 1", self.group_size)
        dims = (self.mapping.latent_dim, self.mapping.condition_dim)
        require(dims == (0, CAMERA_CONDITION), "mapping", f"no latent and {CAMERA_CONDITION} camera numbers", dims)

    @property
    def input_channels(self) -> int:
        """Channels of all inputs together."""
        pictures = 2 if self.with_raw_image else 1
        return self.image_channels * pictures + 3 * self.with_correspondence + self.with_mask


def tiny_genhead() -> GenHeadConfig:
    """A GenHead of about 0.14 million parameters at 64 pixels for tests and smoke training."""
    full = GenHeadConfig()
    return GenHeadConfig(
        image_resolution=64,
        render_resolution=16,
        auto_fusion_above=16,
        plane_features=8,
        mapping=replace(full.mapping, latent_dim=32, style_dim=32),
        backbone=ConvPyramidConfig(32, 1024, 32),
        background_mapping=MappingConfig(latent_dim=32, style_dim=32, layers=2),
        background=ConvPyramidConfig(8, 256, 32, 256.0),
        super_resolution=SuperResolutionConfig(channels=(16, 8), style_dim=16, style="ones"),
        volume=VolumeConfig(depth_samples=12, importance_samples=12, decoder_hidden=16),
        head_pose=HeadPoseConfig(fine_resolution=8, coarse_resolution=4),
    )


def tiny_discriminator() -> DiscriminatorConfig:
    """A discriminator of about 0.1 million parameters for 64-pixel pictures."""
    mapping = MappingConfig(latent_dim=0, condition_dim=CAMERA_CONDITION, style_dim=32, layers=2)
    return DiscriminatorConfig(pyramid=ConvPyramidConfig(64, 1024, 32, 256.0), mapping=mapping)
