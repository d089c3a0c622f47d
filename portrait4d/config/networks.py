"""Sizes of every network. Defaults are the published 512-pixel models; smaller ones are other numbers, same classes.

A reconstructor at image size S works on these grids: global features S/8, tokens S/16, canonical and detail features
and tri-planes S/2, planes' tokens S/4, rays `render_resolution`, super-resolved picture S.
"""

from dataclasses import dataclass, field
from typing import Literal

MOTION_DIMS = {"pdfgc": 548, "flame": 109}
"""Length of a motion vector: PD-FGC = eye 6 | emotion 30 | mouth 512; FLAME = expression 100 | jaw 3 | eyes 6."""


def require(condition: bool, name: str, expected: str, actual: object) -> None:
    """Raise ValueError "name: expected ..., got ..." unless the condition holds."""
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {actual}")


@dataclass(frozen=True)
class GlobalEncoderConfig:
    """DeepLabV3 with a ResNet trunk without normalisation: image 5@S to `out_channels`@S/8."""

    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    out_channels: int = 256
    aspp_dilations: tuple[int, int, int] = (12, 24, 36)


@dataclass(frozen=True)
class CanonicalEncoderConfig:
    """Canonicalisation and re-enactment transformer: global features to plane_channels@S/2.

    `token_dim` must be a multiple of 4 (pixel shuffle) and of `heads`.
    """

    token_dim: int = 1024
    heads: int = 4
    mlp_ratio: int = 2
    motion_hidden: int = 512
    motion_tokens: int = 64
    neutral_blocks: int = 4
    motion_blocks: int = 4
    conv_channels: int = 128

    def __post_init__(self) -> None:
        require(self.token_dim % (4 * self.heads) == 0, "token_dim", "a multiple of 4 * heads", self.token_dim)


@dataclass(frozen=True)
class PlaneGeneratorConfig:
    """Tri-plane generator: canonical and detail features at S/2 to raw planes at S/2."""

    token_dim: int = 1024
    heads: int = 2
    mlp_ratio: int = 2
    key_reduction: int = 2
    conv_channels: tuple[int, int] = (256, 128)

    def __post_init__(self) -> None:
        require(self.token_dim % (4 * self.heads) == 0, "token_dim", "a multiple of 4 * heads", self.token_dim)


@dataclass(frozen=True)
class SuperResolutionConfig:
    """Two StyleGAN2 blocks, each doubling the size, from S/4 to S.

    `style`: "average" feeds the stored average style vector (reconstructors), "ones" a vector of ones (GenHead).
    `conv_clamp` bounds every layer's output (None: no bound).
    """

    channels: tuple[int, int] = (256, 128)
    style_dim: int = 512
    style: Literal["average", "ones"] = "average"
    conv_clamp: float | None = 256.0
    antialias: bool = True


@dataclass(frozen=True)
class VolumeConfig:
    """Volume rendering: samples per ray (coarse, then importance) and the side of the tri-plane cube in world units."""

    depth_samples: int = 48
    importance_samples: int = 48
    box_warp: float = 1.3
    decoder_hidden: int = 64

    def __post_init__(self) -> None:
        require(self.depth_samples >= 4, "depth_samples", "at least 4", self.depth_samples)
        require(self.importance_samples >= 1, "importance_samples", "at least 1", self.importance_samples)
        require(self.box_warp > 0, "box_warp", "a positive length", self.box_warp)


@dataclass(frozen=True)
class HeadPoseConfig:
    """Head-pose deformation field: grid sizes, the squared distance up to which the fine grid rules, its fall-off."""

    fine_resolution: int = 24
    coarse_resolution: int = 8
    smooth_threshold: float = 3e-3
    falloff: float = 1000.0


@dataclass(frozen=True)
class ReconstructorConfig:
    """Portrait4D reconstructor (v1, static and v2 share it): image to tri-plane to picture."""

    image_resolution: int = 512
    render_resolution: int = 128
    motion_kind: Literal["pdfgc", "flame"] = "pdfgc"
    plane_features: int = 32
    detail_channels: int = 64
    background_widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    global_encoder: GlobalEncoderConfig = field(default_factory=GlobalEncoderConfig)
    canonical_encoder: CanonicalEncoderConfig = field(default_factory=CanonicalEncoderConfig)
    plane_generator: PlaneGeneratorConfig = field(default_factory=PlaneGeneratorConfig)
    super_resolution: SuperResolutionConfig = field(default_factory=SuperResolutionConfig)
    volume: VolumeConfig = field(default_factory=VolumeConfig)
    head_pose: HeadPoseConfig = field(default_factory=HeadPoseConfig)

    def __post_init__(self) -> None:
        size = self.image_resolution
        require(size >= 32 and size % 32 == 0, "image_resolution", "a multiple of 32, at least 32", size)
        require(self.render_resolution >= 1, "render_resolution", "at least 1", self.render_resolution)
        require(
            self.plane_features >= 3,
            "plane_features",
            "at least 3 (the first three are the picture)",
            self.plane_features,
        )

    @property
    def motion_dim(self) -> int:
        """Length of the motion vector."""
        return MOTION_DIMS[self.motion_kind]

    @property
    def plane_channels(self) -> int:
        """Channels of the three planes together."""
        return 3 * self.plane_features


def tiny_reconstructor() -> ReconstructorConfig:
    """A reconstructor of about half a million parameters at 64 pixels for tests and smoke runs."""
    return ReconstructorConfig(
        image_resolution=64,
        render_resolution=16,
        motion_kind="flame",
        plane_features=8,
        detail_channels=8,
        background_widths=(8, 8, 16, 16),
        global_encoder=GlobalEncoderConfig((8, 8, 16, 16), (1, 1, 1, 1), 16, (1, 2, 3)),
        canonical_encoder=CanonicalEncoderConfig(32, 2, 2, 32, 4, 1, 1, 16),
        plane_generator=PlaneGeneratorConfig(32, 2, 2, 2, (16, 16)),
        super_resolution=SuperResolutionConfig(channels=(16, 8), style_dim=16),
        volume=VolumeConfig(depth_samples=8, importance_samples=8, decoder_hidden=16),
        head_pose=HeadPoseConfig(fine_resolution=8, coarse_resolution=4),
    )


@dataclass(frozen=True)
class MotionEncoderConfig:
    """Compact motion encoder of the open head world: crop of a face to a few inputs of motion vectors.

    Attributes:
        picture_size: larger pictures are reduced to so many pixels a side before the face is cut out.
        crop_size: pixels a side of the crop; every stage halves it.
        widths: channels of the stages, multiples of 8 but for the first.
        squeezed: channels that are kept of the last stage.
        hidden: width of the layer between them and the inputs.
        inputs: how many numbers a motion vector is made of.
    """

    picture_size: int = 128
    crop_size: int = 80
    widths: tuple[int, ...] = (16, 32, 64, 128)
    squeezed: int = 32
    hidden: int = 128
    inputs: int = 27

    def __post_init__(self) -> None:
        require(len(self.widths) >= 2, "widths", "at least two stages", self.widths)
        require(all(width % 8 == 0 for width in self.widths[1:]), "widths", "multiples of 8", self.widths)
        halvings = 2 ** len(self.widths)
        require(self.crop_size % halvings == 0, "crop_size", f"a multiple of {halvings}", self.crop_size)
        sizes = (self.picture_size, self.crop_size, self.squeezed, self.hidden, self.inputs)
        require(min(sizes) >= 1, "picture_size, crop_size, squeezed, hidden, inputs", "at least 1", sizes)


@dataclass(frozen=True)
class LandmarkNetworkConfig:
    """Compact landmark network of the open head world: picture to landmarks and presence of a face.

    Attributes:
        picture_size: pixels a side of what it sees; every stage halves it.
        widths: channels of the stages, multiples of 8 but for the first; from the second on they are led back up.
        points: how many landmarks.
    """

    picture_size: int = 96
    widths: tuple[int, ...] = (16, 32, 64, 128)
    points: int = 70

    def __post_init__(self) -> None:
        require(len(self.widths) >= 3, "widths", "at least three stages", self.widths)
        require(all(width % 8 == 0 for width in self.widths[1:]), "widths", "multiples of 8", self.widths)
        halvings = 2 ** len(self.widths)
        require(self.picture_size % halvings == 0, "picture_size", f"a multiple of {halvings}", self.picture_size)
        require(self.points >= 1, "points", "at least 1", self.points)
