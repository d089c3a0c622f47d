"""Reenactment of one source by one driving frame: networks loaded once, sources encoded once."""

import functools
import math
from contextlib import AbstractContextManager
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
from portrait4d.inference.frame_graph import DrivenFrame, FrameGraphs
from portrait4d.models.checkpoints import load_compact_motion_encoder, load_reconstructor
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.models.pretrained.motion_encoder import MotionEncoder, load_motion_encoder
from portrait4d.models.reconstructor import RenderOptions
from portrait4d.ops.backend import exact_convolutions, keep_freed_memory, native_serves, network_precision, pick_device
from portrait4d.rendering.marching_cubes import Surface, extract_surface
from portrait4d.rendering.ray_sampling import Jitter, sample_jitter
from portrait4d.synthetic_heads.head_template import build_open_head

_CPU_RAYS_PER_CHUNK = 2048


@dataclass(frozen=True)
class Frame:
    """One prepared portrait on the device, or as many as a batch has.

    Attributes:
        image: (B, 3, S, S) picture.
        camera: (B, 25).
        params: head parameters.
        motion: (B, D).
        neck_turned: whether some neck is rotated; None if nobody has looked.
    """

    image: Tensor
    camera: Tensor
    params: HeadParams
    motion: Tensor
    neck_turned: bool | None = None


@dataclass(frozen=True)
class View:
    """Where results are seen from: cameras (B, 25), the head parameters to pose, and `Frame.neck_turned` of those."""

    camera: Tensor
    params: HeadParams
    neck_turned: bool | None = None


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
        # Without native operations frames with a turned neck wait for the device, which cannot be recorded.
        records = self.device.type == "cuda" and native_serves(self.network.average_style)
        self.graphs = FrameGraphs(self._render) if records else None

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
        label = torch.from_numpy(portrait.load_frame_label(self.config.use_simplified))[None]
        neck_turned = split_label(label)[1].neck_is_turned()
        camera, params = split_label(label.to(self.device))
        return Frame(image, camera, params, self._motion(portrait, params), neck_turned)

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
        with exact_convolutions(self.device):
            return self._motion_encoder.encode_motion(picture, landmarks)

    @torch.inference_mode()
    def encode_source(self, frame: Frame, motion_scale: float = 1.0) -> SourceFeatures:
        """Compute what depends on the source alone, in float32 whatever the type: all frames inherit its errors.

        Args:
            frame: the source.
            motion_scale: strength of its motion's influence.
        """
        with exact_convolutions(self.device):
            features = self.network.encode_source(frame.image, frame.motion, motion_scale)
        if self.dtype == torch.float32:
            return features
        # of the type and layout of what each frame adds to it
        return replace(features, detail=features.detail.to(self.dtype, memory_format=torch.channels_last))

    @torch.inference_mode()
    def render(
        self, source: Frame, features: SourceFeatures, driver: Frame, view: View, jitter: Jitter | None = None
    ) -> HeadRender:
        """Render the source with the driver's motion, seen from a view; for a batch of drivers and views, all of them.

        On a GPU frames of the same sizes are replayed from the second on (`frame_graph.py`).
        """
        batch = len(driver.motion)
        params = view.params.with_shape(source.params.shape.expand(batch, -1))
        turned = params.neck_is_turned() if view.neck_turned is None else view.neck_turned
        frame = DrivenFrame(driver.motion, params, view.camera, jitter, turned, self.options.resolution)
        return (self.graphs or self._render)(features, frame)

    def _render(self, features: SourceFeatures, frame: DrivenFrame) -> HeadRender:
        changes = {"jitter": frame.jitter, "neck_turned": frame.neck_turned, "resolution": frame.resolution}
        options = replace(self.options, **changes)
        tokens = features.tokens.expand(len(frame.motion), -1, -1)
        with self.precision():
            return self.network(replace(features, tokens=tokens), frame.motion, frame.params, frame.camera, options)

    def view(self, driver: Frame, step: int = 0, steps: int = 1) -> View:
        """Choose camera and neck for a driving frame (`flame-fitting.md` 7); `step` of `steps` moves an orbit."""
        config = self.config
        cam2world, intrinsics = split_camera(driver.camera)
        if config.fov_deg is not None:
            intrinsics = intrinsics_from_fov(config.fov_deg).to(self.device).expand(len(driver.camera), -1, -1)
        params, neck_turned = driver.params, driver.neck_turned
        if config.camera == "frontal" or not config.use_neck:
            params, neck_turned = params.without_neck_rotation(), False
        if config.camera != "driver" or config.use_neck:
            angles = _orbit_angles(config, step, steps) if config.camera == "orbit" else (0.0, 0.0)
            cam2world = _camera_on_orbit(*angles, self.device).expand(len(driver.camera), -1, -1)
        return View(join_camera(cam2world, intrinsics), params, neck_turned)

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

    def precision(self) -> AbstractContextManager[None]:
        """Return the context in which driven networks run as configured."""
        return network_precision(self.device, self.dtype)


def _cast_dense_layers(module: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of a module's products in a type; automatic casting would convert them for every frame."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.to(dtype)


@functools.lru_cache(maxsize=1024)
def _camera_on_orbit(yaw_rad: float, pitch_rad: float, device: torch.device) -> Tensor:
    """Return cam2world (1, 4, 4); kept, because small tensors reach a GPU slowly."""
    return orbit_cam2world(torch.tensor([yaw_rad]), torch.tensor([pitch_rad]), FRONTAL_POSITION).to(device)


def _orbit_angles(config: ReenactConfig, step: int, steps: int) -> tuple[float, float]:
    """Return yaw and pitch in radians: the given position for one view, a closed loop of that amplitude for several."""
    yaw, pitch = math.radians(config.yaw_deg), math.radians(config.pitch_deg)
    if steps == 1:
        return yaw, pitch
    angle = 2 * math.pi * step / steps
    return yaw * math.sin(angle), pitch * math.cos(angle)
