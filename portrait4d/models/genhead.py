"""GenHead: latents, a camera and head parameters to a picture of a head (networks-stylegan.md §5).

Data flow: latent and conditioning -> styles (`map_styles`) -> six tri-planes (`generate_planes`); latent -> background
(`generate_background`); head mesh and camera -> masks and correspondence map (`draw_mesh`); all of it -> part-wise
volume rendering -> super-resolution (`render`). The planes do not depend on camera, expression or pose.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.config.gan_networks import CAMERA_CONDITION, GenHeadConfig
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.part_deformation import PartField, build_part_field
from portrait4d.models.genhead_masks import ray_masks
from portrait4d.models.outputs import GenHeadRender
from portrait4d.models.radiance_decoder import RadianceDecoder
from portrait4d.models.stylegan_layers import NoiseMode
from portrait4d.models.stylegan_mapping import NO_TRUNCATION, MappingNetwork, Truncation
from portrait4d.models.stylegan_synthesis import SynthesisNetwork, count_styles
from portrait4d.models.super_resolution import FoldedSuperResolution, SuperResolution
from portrait4d.rendering.mesh_maps import (
    MESH_FOV_DEG,
    PartMasks,
    pose_vertices,
    render_correspondence,
    render_part_masks,
)
from portrait4d.rendering.part_renderer import FaceSample, PartFields, PartRays, RayMasks, render_part_rays
from portrait4d.rendering.ray_sampling import Jitter, midpoint_jitter
from portrait4d.rendering.rays import camera_rays
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.rendering.volume_renderer import FieldSample

FACE_PLANES = 3
"""Planes 0 to 2 hold eyes and mouth, from here on the face and all the rest."""


class MeshMaps(NamedTuple):
    """What the head's mesh looks like: hard part masks and the correspondence map (B, 3, S, S)."""

    masks: PartMasks
    correspondence: Tensor


@dataclass(frozen=True)
class GenHeadOptions:
    """How to generate and render.

    Attributes:
        resolution: rays per side R; None for the network's own, at most S.
        jitter: sample positions; None for the deterministic midpoints.
        chunk: rays evaluated at once; None for all.
        noise_mode: noise of planes and background: "const" (repeatable), "random" (training) or "none".
        generator: source of random noise.
        super_resolution: weights folded by `SuperResolution.fold`; None to compute them in the call (training).
        mesh_fov_deg: field of view of the mesh maps; the camera's own, unless it is the usual one.
        mesh: maps that `draw_mesh` has drawn of the same heads before; None: they are drawn.
    """

    resolution: int | None = None
    jitter: Jitter | None = None
    chunk: int | None = None
    noise_mode: NoiseMode = "const"
    generator: torch.Generator | None = None
    super_resolution: FoldedSuperResolution | None = None
    mesh_fov_deg: float = MESH_FOV_DEG
    mesh: MeshMaps | None = None


class PartDensities(NamedTuple):
    """Raw densities (B, N) of each part's field, before any mask."""

    eye: Tensor
    face: Tensor
    mouth: Tensor


class GenHead(nn.Module):
    """Generator of animatable heads. `head` is the head model it follows; it is part of the state dict."""

    def __init__(self, config: GenHeadConfig, head: HeadModel) -> None:
        super().__init__()
        self.config = config
        features = config.plane_features
        self.mapping = MappingNetwork(config.mapping, count_styles(config.backbone))
        self.backbone = SynthesisNetwork(config.backbone, config.mapping.style_dim, 2 * FACE_PLANES * features)
        self.background_mapping = MappingNetwork(config.background_mapping, count_styles(config.background))
        self.background = SynthesisNetwork(config.background, config.background_mapping.style_dim, features)
        self.super_resolution = SuperResolution(config.super_resolution, features, config.image_resolution)
        self.decoder = RadianceDecoder(features, config.volume.decoder_hidden)
        self.head = head

    def conditioning(self, camera: Tensor, shape: Tensor) -> Tensor:
        """Join what the mapping network is told: camera (B, 25), then, if it takes it, identity (B, 300)."""
        if self.config.mapping.condition_dim == CAMERA_CONDITION:
            return camera
        return torch.cat([camera, shape], dim=1)

    def map_styles(
        self,
        latent: Tensor,
        conditioning: Tensor,
        truncation: Truncation = NO_TRUNCATION,
        update_average: bool = False,
    ) -> Tensor:
        """Map latents (B, L) and `conditioning` (B, 25 or 325) to the planes' styles (B, num_styles, style_dim)."""
        return self.mapping(latent, conditioning, truncation, update_average)

    def generate_planes(
        self, styles: Tensor, noise_mode: NoiseMode = "const", generator: torch.Generator | None = None
    ) -> Tensor:
        """Return raw planes (B, 6, F, H, W) of styles (B, num_styles, style_dim): see FACE_PLANES."""
        planes = self.backbone(styles, noise_mode, generator)
        return planes.unflatten(1, (2 * FACE_PLANES, self.config.plane_features))

    def generate_background(
        self, latent: Tensor, noise_mode: NoiseMode = "const", generator: torch.Generator | None = None
    ) -> Tensor:
        """Return background features (B, F, h, h) in (0, 1) of latents (B, L), never truncated."""
        return torch.sigmoid(self.background(self.background_mapping(latent), noise_mode, generator))

    @torch.no_grad()
    def draw_mesh(self, params: HeadParams, camera: Tensor, fov_deg: float = MESH_FOV_DEG) -> MeshMaps:
        """Draw the head's mesh at S pixels as seen by cameras (B, 25)."""
        size = self.config.image_resolution
        with torch.autocast(camera.device.type, enabled=False):
            vertices = pose_vertices(self.head, params)
            masks = render_part_masks(self.head, vertices, camera, size, fov_deg)
            return MeshMaps(masks, render_correspondence(self.head, vertices, camera, size, fov_deg=fov_deg).image)

    def part_field(self, params: HeadParams) -> PartField:
        """Build the deformation field of a batch of frames, once for both rendering passes."""
        with torch.autocast(params.pose.device.type, enabled=False):
            return build_part_field(self.head, params, self.config.volume.box_warp, self.config.head_pose)

    def part_fields(self, planes: Tensor, deformation: PartField) -> PartFields:
        """Return the radiance fields of planes (B, 6, F, H, W) behind a deformation."""
        box_warp = self.config.volume.box_warp
        inner_planes = TriPlanes(planes[:, :FACE_PLANES], box_warp)
        face_planes = TriPlanes(planes[:, FACE_PLANES:], box_warp)

        def inner(points_canonical: Tensor) -> FieldSample:
            features, densities = self.decoder(inner_planes.sample(points_canonical))
            return FieldSample(features, densities[..., 0])

        def face(points_canonical: Tensor) -> FaceSample:
            plane_features = face_planes.sample(points_canonical)
            features, densities = self.decoder(plane_features)
            return FaceSample(features, densities[..., 0], plane_features)

        return PartFields(deformation, inner, face)

    def sample_densities(self, points_world: Tensor, planes: Tensor, deformation: PartField) -> PartDensities:
        """Evaluate every part's raw density at points (B, N, 3), whatever the masks (§5.5, for regularisation)."""
        fields = self.part_fields(planes.float(), deformation)
        parts = deformation(points_world)
        return PartDensities(
            fields.inner(parts.eye).densities, fields.face(parts.face).densities, fields.inner(parts.mouth).densities
        )

    def render(
        self,
        planes: Tensor,
        background: Tensor,
        camera: Tensor,
        deformation: PartField,
        mesh: MeshMaps,
        options: GenHeadOptions | None = None,
    ) -> GenHeadRender:
        """Render planes through masks.

        Args:
            planes: (B, 6, F, H, W) from `generate_planes`.
            background: (B, F, h, h) in (0, 1) from `generate_background`.
            camera: (B, 25) camera vectors.
            deformation: from `part_field`.
            mesh: from `draw_mesh`, with the same camera.
            options: resolution, sampling and memory; default `GenHeadOptions()`.

        Raises:
            ValueError: if there are more rays than pixels of the picture.
        """
        options = options or GenHeadOptions()
        resolution = options.resolution or self.config.render_resolution
        masks = ray_masks(mesh.masks, resolution, self.config.render_resolution)
        with torch.autocast(planes.device.type, enabled=False):
            rays = self._render_rays(planes.float(), camera, deformation, masks, options)
        features, depth, transmittance = (
            value.transpose(1, 2).unflatten(2, (resolution, resolution))
            for value in (rays.features, rays.depth[..., None], rays.transmittance[..., None])
        )
        behind = background.float()
        if behind.shape[-1] != resolution:
            behind = functional.interpolate(behind, (resolution, resolution), mode="bilinear")
        folded = options.super_resolution
        if resolution < self.config.image_resolution:
            full = 2 * (features + transmittance * behind) - 1
            image_sr = self._super_resolve(full, folded)
        else:  # a ray for every pixel: only the background needs super-resolution
            full = 2 * features[:, :3] - 1 + transmittance * (self._super_resolve(2 * behind - 1, folded) + 1)
            image_sr = full
        return GenHeadRender(
            image_sr=image_sr,
            features=full,
            background=2 * behind - 1,
            depth=depth,
            transmittance=transmittance,
            masks=masks,
            correspondence=mesh.correspondence,
            planes=planes,
            rays=rays,
        )

    def _render_rays(
        self, planes: Tensor, camera: Tensor, deformation: PartField, masks: PartMasks, options: GenHeadOptions
    ) -> PartRays:
        volume, resolution = self.config.volume, masks.eye.shape[-1]
        jitter = options.jitter or midpoint_jitter(
            len(camera), volume.depth_samples, volume.importance_samples, camera.device
        )
        return render_part_rays(
            self.part_fields(planes, deformation),
            camera_rays(camera, resolution),
            RayMasks(masks.eye.flatten(1), masks.mouth.flatten(1)),
            jitter,
            volume,
            auto_fuse=resolution > self.config.auto_fusion_above,
            chunk=options.chunk,
        )

    def _super_resolve(self, features: Tensor, folded: FoldedSuperResolution | None) -> Tensor:
        if folded is not None:
            return self.super_resolution.forward_folded(folded, features[:, :3], features)
        return self.super_resolution(features[:, :3], features, None)

    def forward(
        self,
        latent: Tensor,
        styles: Tensor,
        params: HeadParams,
        camera: Tensor,
        options: GenHeadOptions | None = None,
    ) -> GenHeadRender:
        """Generate and render heads.

        Args:
            latent: (B, L) of the background, in published use the one behind `styles`.
            styles: (B, num_styles, style_dim) from `map_styles`.
            params: identity, expression and pose, with the neck's rotation.
            camera: (B, 25) camera vectors.
            options: default `GenHeadOptions()`.
        """
        options = options or GenHeadOptions()
        planes = self.generate_planes(styles, options.noise_mode, options.generator)
        background = self.generate_background(latent, options.noise_mode, options.generator)
        mesh = options.mesh or self.draw_mesh(params, camera, options.mesh_fov_deg)
        return self.render(planes, background, camera, self.part_field(params), mesh, options)
