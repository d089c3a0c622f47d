"""A frame of a reconstructor the plain way, to compare with: nothing is kept, folded or fused.

Everything is computed for every frame, as in the published program: encoders, canonicalisation, driven planes, volume
rendering by PyTorch (three grid samplings a point, all rays at once), super-resolution with weights modulated on the
spot. Layers are PyTorch's own in its default memory layout, attention holds all its scores, and all is float32.
"""

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.geometry.deformation import HeadPoseField
from portrait4d.inference.reenact import Frame, View
from portrait4d.models.radiance_decoder import RadianceDecoder
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.models.transformer_blocks import picture_from_tokens
from portrait4d.ops.backend import textbook_forms, without_native
from portrait4d.rendering.field import FieldSample
from portrait4d.rendering.ray_sampling import midpoint_jitter
from portrait4d.rendering.rays import camera_rays
from portrait4d.rendering.volume_renderer import RenderedRays, render_rays_reference

STAGES = ("encode source", "re-enact", "generate planes", "head-pose field", "render rays", "super-resolve")
_AXES = ((0, 1), (1, 2), (2, 0))


class NaiveFrame:
    """One frame, stage by stage; `STAGES` names them in order, and each keeps its result for the next."""

    def __init__(self, network: Reconstructor, source: Frame, driver: Frame, view: View, resolution: int) -> None:
        """Take a network with contiguous weights, one source, one driving frame and view, and rays per side."""
        self.network, self.resolution = network, resolution
        self.source, self.driver = source, driver
        self.camera, self.params = view.camera, view.params.with_shape(source.params.shape)

    @torch.inference_mode()
    def run(self, stage: str) -> Tensor | HeadPoseField | RenderedRays | None:
        """Run one stage; the last returns the picture (1, 3, S, S)."""
        with without_native(), textbook_forms():
            return getattr(self, "_" + stage.replace(" ", "_").replace("-", "_"))()

    def _encode_source(self) -> Tensor:
        network, image = self.network, self.source.image
        self.tokens = network.canonical_encoder.canonicalise(network.global_encoder(image), self.source.motion)
        self.detail = network.detail_encoder(image)
        self.background = torch.sigmoid(network.background_encoder(image))
        return self.tokens

    def _re_enact(self) -> Tensor:
        self.canonical = self.network.canonical_encoder.reenact(self.tokens, self.driver.motion)
        return self.canonical

    def _generate_planes(self) -> Tensor:
        generator = self.network.plane_generator
        x = functional.leaky_relu(generator.input_conv(torch.cat((self.canonical, self.detail), dim=1)), 0.01)
        tokens, grid = generator.patch_embedding(functional.leaky_relu(generator.embedding_conv(x), 0.01))
        mixed = functional.pixel_shuffle(picture_from_tokens(generator.block(tokens, grid), grid), 2)
        planes = generator.output_conv(generator.fusion(torch.cat((mixed, self.canonical), dim=1)))
        self.planes = planes.unflatten(1, (3, -1))
        return self.planes

    def _head_pose_field(self) -> HeadPoseField | None:
        self.deformation = self.network.head_pose_field(self.params)
        return self.deformation

    def _render_rays(self) -> RenderedRays:
        volume = self.network.config.volume

        def field(points: Tensor) -> FieldSample:
            return sample_planes(self.planes, volume.box_warp, self.network.decoder, self.deformation, points)

        rays = camera_rays(self.camera, self.resolution)
        jitter = midpoint_jitter(1, volume.depth_samples, volume.importance_samples, self.camera.device)
        self.rays = render_rays_reference(field, rays, jitter, volume)
        return self.rays

    def _super_resolve(self) -> Tensor:
        size = (self.resolution, self.resolution)
        head, transmittance = (
            value.transpose(1, 2).unflatten(2, size)
            for value in (self.rays.features, self.rays.transmittance[..., None])
        )
        behind = functional.interpolate(self.background, size, mode="bilinear")
        features = 2 * (head + transmittance * behind) - 1
        style = self.network.average_style[None]
        return self.network.super_resolution(features[:, :3], features, style)


def sample_planes(
    planes: Tensor, box_warp: float, decoder: RadianceDecoder, deformation: HeadPoseField | None, points: Tensor
) -> FieldSample:
    """Evaluate the field of planes (1, 3, F, H, W) at points (1, N, 3) by three grid samplings."""
    if deformation is not None:
        points = deformation(points)
    places = torch.stack([points[..., axes] for axes in _AXES], dim=1)[0] * (2 / box_warp)  # (3, N, 2)
    sampled = functional.grid_sample(planes[0], places[:, None], mode="bilinear", align_corners=False)  # (3, F, 1, N)
    features, densities = decoder(sampled.mean(dim=0)[:, 0].T[None])
    return FieldSample(features, densities[..., 0])
