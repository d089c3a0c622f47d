"""The reconstructor of Portrait4D (v1, static and v2): a source portrait and driving motion to a rendered head.

Data flow (`networks-reconstructor.md`): source picture -> global, detail and background features -> canonical tokens
(all of it once per source, `encode_source`) -> driven tri-planes (`generate_planes`) -> volume rendering through the
head-pose field -> super-resolution (`render`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.config.networks import ReconstructorConfig
from portrait4d.geometry.deformation import HeadPoseField, build_head_pose_field
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.models.canonical_encoder import CanonicalEncoder
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.models.plane_generator import PlaneGenerator
from portrait4d.models.radiance_decoder import RadianceDecoder
from portrait4d.models.reconstructor_encoders import BackgroundEncoder, DetailEncoder, GlobalEncoder
from portrait4d.models.super_resolution import FoldedSuperResolution, SuperResolution
from portrait4d.rendering.plane_field import PlaneField
from portrait4d.rendering.ray_sampling import Jitter, midpoint_jitter
from portrait4d.rendering.rays import camera_rays
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.rendering.volume_renderer import RenderedRays, render_rays


@dataclass(frozen=True)
class RenderOptions:
    """How to render.

    Attributes:
        resolution: rays per side; None for the network's own.
        jitter: sample positions; None for the deterministic midpoints.
        chunk: rays evaluated at once; None for all.
        box_scale: factor on the tri-plane cube's side, in the depth range and the lookup.
        super_resolution: weights folded by `SuperResolution.fold`; None to compute them in the call (training).
        keep_samples: whether `HeadRender.rays` holds distances and weights of the samples, as losses need.
        neck_turned: whether some neck is rotated; None to look, which waits for the device.
    """

    resolution: int | None = None
    jitter: Jitter | None = None
    chunk: int | None = None
    box_scale: float = 1.0
    super_resolution: FoldedSuperResolution | None = None
    keep_samples: bool = True
    neck_turned: bool | None = None


class Reconstructor(nn.Module):
    """One-shot head reconstructor. `head` is the head model whose pose it removes; it is part of the state dict."""

    def __init__(self, config: ReconstructorConfig, head: HeadModel) -> None:
        super().__init__()
        self.config = config
        style = config.super_resolution.style_dim
        self.register_buffer("average_style", torch.zeros(style))
        self.global_encoder = GlobalEncoder(config.global_encoder)
        self.detail_encoder = DetailEncoder(config.detail_channels, config.plane_channels)
        self.canonical_encoder = CanonicalEncoder(config)
        self.plane_generator = PlaneGenerator(config)
        self.background_encoder = BackgroundEncoder(config.background_widths, config.plane_features)
        self.super_resolution = SuperResolution(config.super_resolution, config.plane_features, config.image_resolution)
        self.decoder = RadianceDecoder(config.plane_features, config.volume.decoder_hidden)
        self.head = head

    def encode_source(self, image: Tensor, motion: Tensor, motion_scale: float | Tensor = 1.0) -> SourceFeatures:
        """Compute everything that depends on the source alone.

        Args:
            image: (B, 3, S, S) in [-1, 1].
            motion: (B, D) motion vectors of the source.
            motion_scale: strength of the motion's influence, a number or (B, 1, 1).

        Raises:
            ValueError: on wrong sizes.
        """
        size, width = self.config.image_resolution, self.config.motion_dim
        if image.shape[1:] != (3, size, size):
            raise ValueError(f"image: expected shape (B, 3, {size}, {size}), got {tuple(image.shape)}")
        if motion.shape != (len(image), width):
            raise ValueError(f"motion: expected shape ({len(image)}, {width}), got {tuple(motion.shape)}")
        tokens = self.canonical_encoder.canonicalise(self.global_encoder(image), motion, motion_scale)
        detail = self.plane_generator.fold_detail(self.detail_encoder(image))
        return SourceFeatures(tokens, detail, torch.sigmoid(self.background_encoder(image)))

    def generate_planes(self, source: SourceFeatures, motion: Tensor, motion_scale: float | Tensor = 1.0) -> Tensor:
        """Drive a source with motion vectors (B, D): raw tri-planes (B, 3, F, S/2, S/2)."""
        canonical = self.canonical_encoder.reenact(source.tokens, motion, motion_scale)
        planes = self.plane_generator(canonical, source.detail)
        return planes.unflatten(1, (3, self.config.plane_features))

    def driven_modules(self) -> tuple[nn.Module, ...]:
        """Return the parts of `generate_planes` whose weights no source features depend on."""
        encoder, generator = self.canonical_encoder, self.plane_generator
        return (
            encoder.driving_motion,
            encoder.motion_blocks,
            encoder.upsampler,
            *(module for name, module in generator.named_children() if name != "input_conv"),  # used by `fold_detail`
        )

    def head_pose_field(self, params: HeadParams, turned: bool | None = None) -> HeadPoseField | None:
        """Build the deformation field of a batch of frames, once for both rendering passes.

        Args:
            params: of the frames.
            turned: `RenderOptions.neck_turned`.
        """
        return build_head_pose_field(self.head, params, self.config.volume.box_warp, self.config.head_pose, turned)

    def radiance_field(self, planes: Tensor, deformation: HeadPoseField | None, box_scale: float = 1.0) -> PlaneField:
        """Return the field that looks up planes (B, 3, F, H, W) behind a deformation (None: identity)."""
        return PlaneField(TriPlanes(planes, self.config.volume.box_warp * box_scale), self.decoder, deformation)

    def render(
        self,
        planes: Tensor,
        background: Tensor,
        camera: Tensor,
        deformation: HeadPoseField | None,
        options: RenderOptions | None = None,
    ) -> HeadRender:
        """Render driven planes.

        Args:
            planes: (B, 3, F, H, W) from `generate_planes`.
            background: (B, F, S, S) in (0, 1) from `encode_source`.
            camera: (B, 25) camera vectors.
            deformation: from `head_pose_field`; None for an unrotated neck.
            options: resolution, sampling and memory; default `RenderOptions()`.
        """
        options = options or RenderOptions()
        resolution = options.resolution or self.config.render_resolution
        with torch.autocast(planes.device.type, enabled=False):
            rays = self.render_rays(planes.float(), camera, deformation, resolution, options)
        features, depth, transmittance = (
            value.transpose(1, 2).unflatten(2, (resolution, resolution))
            for value in (rays.features, rays.depth[..., None], rays.transmittance[..., None])
        )
        behind = functional.interpolate(background.float(), (resolution, resolution), mode="bilinear")
        full = 2 * (features + transmittance * behind) - 1
        return HeadRender(
            image_sr=self.super_resolve(full, options.super_resolution),
            features=full,
            features_without_background=2 * features - 1,
            background=2 * behind - 1,
            depth=depth,
            transmittance=transmittance,
            planes=planes,
            rays=rays,
        )

    def render_rays(
        self, planes: Tensor, camera: Tensor, deformation: HeadPoseField | None, resolution: int, options: RenderOptions
    ) -> RenderedRays:
        """Do the volume rendering of `render`: float32 planes (B, 3, F, H, W) to resolution² rays, row by row."""
        volume = self.config.volume
        jitter = options.jitter or midpoint_jitter(
            len(camera), volume.depth_samples, volume.importance_samples, camera.device
        )
        field = self.radiance_field(planes, deformation, options.box_scale)
        rays = camera_rays(camera, resolution)
        return render_rays(field, rays, jitter, volume, options.chunk, options.box_scale, options.keep_samples)

    def super_resolve(self, features: Tensor, folded: FoldedSuperResolution | None) -> Tensor:
        """Do the last step of `render`: features (B, F, R, R) in [-1, 1] to the picture (B, 3, S, S)."""
        if folded is not None:
            return self.super_resolution.forward_folded(folded, features[:, :3], features)
        style = self.average_style.expand(len(features), -1)
        return self.super_resolution(features[:, :3], features, style)

    def forward(
        self,
        source: SourceFeatures,
        motion: Tensor,
        params: HeadParams,
        camera: Tensor,
        options: RenderOptions | None = None,
    ) -> HeadRender:
        """Drive and render an encoded source by the motion (B, D), head parameters and cameras (B, 25) of frames."""
        options = options or RenderOptions()
        planes = self.generate_planes(source, motion)
        deformation = self.head_pose_field(params, options.neck_turned)
        return self.render(planes, source.background, camera, deformation, options)
