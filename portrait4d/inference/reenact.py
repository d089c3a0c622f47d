"""Reenactment of one source by one driving frame: networks loaded once, sources encoded once."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.portrait_folder import MOTION_VECTORS, PreparedPortrait
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.cameras import (
    FRONTAL_POSITION,
    intrinsics_from_fov,
    join_camera,
    orbit_cam2world,
    split_camera,
)
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.models.checkpoints import load_compact_motion_encoder, load_reconstructor
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.models.pretrained.motion_encoder import MotionEncoder, load_motion_encoder
from portrait4d.models.reconstructor import RenderOptions
from portrait4d.ops.backend import keep_freed_memory, pick_device
from portrait4d.rendering.marching_cubes import Surface, extract_surface
from portrait4d.rendering.ray_sampling import Jitter, sample_jitter
from portrait4d.synthetic_heads.head_template import build_open_head

_CPU_RAYS_PER_CHUNK = 2048


@dataclass(frozen=True)
class Frame:
    """One prepared portrait on the device: picture (1, 3, S, S), camera (1, 25), head parameters, motion (1, D)."""

    image: Tensor
    camera: Tensor
    params: HeadParams
    motion: Tensor


@dataclass(frozen=True)
class View:
    """Where a result is seen from: camera (1, 25) and the head parameters to pose."""

    camera: Tensor
    params: HeadParams


class Reenactor:
    """A loaded network with everything that is computed once."""

    def __init__(self, config: ReenactConfig) -> None:
        """Load the network.

        Raises:
            InputFileError: if the network file is missing, damaged or of another kind.
            UserError: if the device is not there.
        """
        self.config = config
        self.device = pick_device(config.device)
        network = load_reconstructor(config.network, build_open_head)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.dtype = getattr(torch, config.dtype)
        for module in self.network.driven_modules():
            _cast_dense_layers(module, self.dtype)
        self._motion_encoder: MotionEncoder | CompactMotionEncoder | None = None
        if self.device.type == "cpu":
            keep_freed_memory()
        folded = self.network.super_resolution.fold(self.network.average_style, self.dtype)
        chunk = config.chunk or (_CPU_RAYS_PER_CHUNK if self.device.type == "cpu" else None)
        self.options = RenderOptions(
            resolution=config.render_size, chunk=chunk, super_resolution=folded, keep_samples=False
        )

    def needs_motion_encoder(self, portraits: list[PreparedPortrait]) -> bool:
        """Tell whether motion must be embedded from pictures for some portrait."""
        if self.network.config.motion_kind == "flame":
            return False
        if self.config.motion != "stored":
            return True
        return any(not portrait.array_path(MOTION_VECTORS).exists() for portrait in portraits)

    def load_motion_encoder(self) -> None:
        """Load the motion encoder.

        Raises:
            AssetMissingError, InputFileError: if its weights are missing or damaged.
        """
        encoder = load_compact_motion_encoder() if self.config.motion == "synthetic" else load_motion_encoder()
        self._motion_encoder = encoder.to(self.device)

    @property
    def loads_beside_rendering(self) -> bool:
        """Whether `load_frame` may run in a thread beside `render`: not where a motion encoder would take its cores."""
        return self._motion_encoder is None or self.device.type != "cpu"

    @torch.inference_mode()
    def load_frame(self, portrait: PreparedPortrait) -> Frame:
        """Load and check one prepared portrait.

        Raises:
            InputFileError: naming a missing or damaged file.
        """
        image = portrait.load_image(self.network.config.image_resolution)[None].to(self.device)
        label = torch.from_numpy(portrait.load_frame_label(self.config.use_simplified))[None].to(self.device)
        camera, params = split_label(label)
        return Frame(image, camera, params, self._motion(portrait, params))

    def _motion(self, portrait: PreparedPortrait, params: HeadParams) -> Tensor:
        if self.network.config.motion_kind == "flame":
            return params.flame_motion()
        stored = portrait.load_motion() if self.config.motion == "stored" else None
        if stored is not None:
            return torch.from_numpy(stored)[None].to(self.device)
        if self._motion_encoder is None:
            raise InputFileError(portrait.image_path, "has no motion_feats file and the motion encoder is not loaded")
        picture = portrait.load_image()[None].to(self.device)
        landmarks = torch.from_numpy(portrait.load_landmarks68())[None].to(self.device)
        return self._motion_encoder.encode_motion(picture, landmarks)

    @torch.inference_mode()
    def encode_source(self, frame: Frame) -> SourceFeatures:
        """Compute what depends on the source alone, in float32 whatever the type: all frames inherit its errors."""
        features = self.network.encode_source(frame.image, frame.motion)
        if self.dtype == torch.float32:
            return features
        # of the type and layout of what each frame adds to it
        return replace(features, detail=features.detail.to(self.dtype, memory_format=torch.channels_last))

    @torch.inference_mode()
    def render(
        self, source: Frame, features: SourceFeatures, driver: Frame, view: View, jitter: Jitter | None = None
    ) -> HeadRender:
        """Render the source with the driver's motion, seen from a view."""
        params = view.params.with_shape(source.params.shape)
        with self.precision():
            options = replace(self.options, jitter=jitter)
            return self.network(features, driver.motion, params, view.camera, options)

    def view(self, driver: Frame, step: int = 0, steps: int = 1) -> View:
        """Choose camera and neck for a driving frame (`flame-fitting.md` 7); `step` of `steps` moves an orbit."""
        config = self.config
        cam2world, intrinsics = split_camera(driver.camera)
        if config.fov_deg is not None:
            intrinsics = intrinsics_from_fov(config.fov_deg)[None].to(self.device)
        params = driver.params
        if config.camera == "frontal" or not config.use_neck:
            params = params.without_neck_rotation()
        if config.camera != "driver" or config.use_neck:
            yaw, pitch = _orbit_angles(config, step, steps) if config.camera == "orbit" else (0.0, 0.0)
            angles = torch.tensor([[yaw], [pitch]], device=self.device)
            cam2world = orbit_cam2world(angles[0], angles[1], FRONTAL_POSITION)
        return View(join_camera(cam2world, intrinsics), params)

    def jitter(self, source_index: int, step: int) -> Jitter | None:
        """Draw sample positions that depend on seed, source and step alone; None for the deterministic mode."""
        if not self.config.random_sampling:
            return None
        seed = (self.config.seed * 1_000_003 + source_index) * 1_000_003 + step
        generator = torch.Generator().manual_seed(seed % 2**63)
        volume, rays = self.network.config.volume, self.config.render_size or self.network.config.render_resolution
        drawn = sample_jitter(1, rays**2, volume.depth_samples, volume.importance_samples, generator)
        return Jitter(*(numbers.to(self.device) for numbers in drawn))

    @torch.inference_mode()
    def surface(self, source: Frame, render: HeadRender, view: View) -> Surface:
        """Extract the rendered head's mesh in world units, posed as it was rendered.

        Raises:
            UserError: if no surface crosses the density level.
        """
        deformation = self.network.head_pose_field(view.params.with_shape(source.params.shape))
        field = self.network.radiance_field(render.planes.float(), deformation)
        box_warp, config = self.network.config.volume.box_warp, self.config
        try:
            return extract_surface(
                lambda points: field(points).densities, config.shape_res, box_warp, config.shape_level, self.device
            )
        except ValueError as error:
            raise UserError(f"no mesh: {error}; choose another --shape-level") from None

    def precision(self) -> torch.autocast:
        """Return the context in which driven networks run: automatic casting to the configured type."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def _cast_dense_layers(module: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of a module's products in a type; automatic casting would convert them for every frame."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.to(dtype)


def _orbit_angles(config: ReenactConfig, step: int, steps: int) -> tuple[float, float]:
    """Return yaw and pitch in radians: the given position for one view, a closed loop of that amplitude for several."""
    yaw, pitch = math.radians(config.yaw_deg), math.radians(config.pitch_deg)
    if steps == 1:
        return yaw, pitch
    angle = 2 * math.pi * step / steps
    return yaw * math.sin(angle), pitch * math.cos(angle)
