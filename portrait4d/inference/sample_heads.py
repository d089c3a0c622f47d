"""Heads that GenHead makes up from seeds: planes and background once for each head, then frame by frame.

A frame turns the neck before a fixed frontal camera (`flame-fitting.md` section 8): with t from 0 to 1 over the frames,
pitch = 0.2 cos(2 pi t) + 0.1 and yaw = 0.4 sin(2 pi t), radians.
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.config.experiments import SampleHeadsConfig
from portrait4d.data.sample_rows import SampleRows, open_sample_rows
from portrait4d.files.errors import UserError
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world, project_points, split_camera
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams
from portrait4d.models.checkpoints import load_genhead
from portrait4d.models.genhead import GenHeadOptions
from portrait4d.models.outputs import GenHeadRender
from portrait4d.models.stylegan_mapping import Truncation
from portrait4d.ops.backend import keep_freed_memory, network_precision, pick_device
from portrait4d.rendering.marching_cubes import Surface, extract_surface
from portrait4d.rendering.mesh_maps import MESH_FOV_DEG
from portrait4d.rendering.part_renderer import RayMasks, sample_parts
from portrait4d.rendering.ray_sampling import Jitter, sample_jitter
from portrait4d.synthetic_heads.head_template import build_open_head

CAMERA_POSITION = (0.0, 0.0, 4.0)
_CPU_RAYS_PER_CHUNK = 2048


@dataclass(frozen=True)
class SampledHead:
    """What stays the same over a head's frames: planes, background, camera (1, 25), and each frame's parameters."""

    seed: int
    planes: Tensor
    background: Tensor
    camera: Tensor
    frames: list[HeadParams]


class HeadSampler:
    """A loaded GenHead with everything that is computed once."""

    def __init__(self, config: SampleHeadsConfig) -> None:
        """Load the network and open the parameter sets.

        Raises:
            AssetMissingError, InputFileError: if a file is missing, damaged or of another kind.
            UserError: if the device is not there, or there are more rays than pixels.
        """
        self.config = config
        self.device = pick_device(config.device)
        self.rows: SampleRows | None = None if config.params is None else open_sample_rows(config.params)
        network = load_genhead(config.network, build_open_head)
        size = network.config.image_resolution
        if config.render_size is not None and config.render_size > size:
            raise UserError(f"--render_size: expected at most {size}, the network's picture, got {config.render_size}")
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.dtype = getattr(torch, config.dtype)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.options = GenHeadOptions(
            resolution=config.render_size or network.config.render_resolution,
            chunk=config.chunk or (_CPU_RAYS_PER_CHUNK if self.device.type == "cpu" else None),
            super_resolution=self.network.super_resolution.fold(None, self.dtype),
            mesh_fov_deg=config.fov_deg or MESH_FOV_DEG,
        )

    @torch.inference_mode()
    def sample(self, seed: int) -> SampledHead:
        """Make up the head of a seed.

        Raises:
            UserError: if the parameter sets have no such row.
        """
        config, network = self.config, self.network
        camera, frames = self._parameters(seed)
        latent_dim = network.config.mapping.latent_dim
        latent = torch.from_numpy(np.random.RandomState(seed).randn(1, latent_dim)).float().to(self.device)
        camera, frames = camera.to(self.device), [_to_device(params, self.device) for params in frames]
        conditioning = network.conditioning(camera, frames[0].shape)
        with self.precision():
            styles = network.map_styles(latent, conditioning, Truncation(config.trunc, config.trunc_cutoff))
            return SampledHead(
                seed, network.generate_planes(styles), network.generate_background(latent), camera, frames
            )

    def _parameters(self, seed: int) -> tuple[Tensor, list[HeadParams]]:
        config = self.config
        if self.rows is None:
            intrinsics, frames = intrinsics_from_fov()[None], neutral_frames(config.frames)
        else:
            stored, params = self.rows.row(seed)
            intrinsics, frames = split_camera(stored).intrinsics, turn_neck([params] * config.frames)
        if config.fov_deg is not None:
            intrinsics = intrinsics_from_fov(config.fov_deg)[None]
        cam2world = orbit_cam2world(torch.zeros(1), torch.zeros(1), CAMERA_POSITION)
        return join_camera(cam2world, intrinsics), frames

    @torch.inference_mode()
    def render(self, head: SampledHead, frame: int) -> GenHeadRender:
        """Render one frame of a head."""
        params, network = head.frames[frame], self.network
        mesh = network.draw_mesh(params, head.camera, self.options.mesh_fov_deg)
        options = replace(self.options, jitter=self._jitter(head.seed, frame))
        with self.precision():
            return network.render(head.planes, head.background, head.camera, network.part_field(params), mesh, options)

    @torch.inference_mode()
    def surface(self, head: SampledHead, frame: int) -> Surface:
        """Extract a frame's mesh in world units: the face's surface with the visible eyes, without a mouth's inside.

        Raises:
            UserError: if no surface crosses the density level.
        """
        params, network, config = head.frames[frame], self.network, self.config
        fields = network.part_fields(head.planes.float(), network.part_field(params))
        eye = network.draw_mesh(params, head.camera, self.options.mesh_fov_deg).masks.eye

        def density(points_world: Tensor) -> Tensor:
            places = project_points(points_world, head.camera) * points_world.new_tensor([2, -2])
            places = places + places.new_tensor([-1, 1])  # rows run down
            seen = functional.grid_sample(eye, places[:, None], mode="bilinear", align_corners=False)[:, 0, 0]
            masks = RayMasks(seen, torch.zeros_like(seen))
            return sample_parts(fields, points_world[:, :, None], masks).densities[..., 0]

        box_warp = network.config.volume.box_warp
        try:
            return extract_surface(density, config.shape_res, box_warp, config.shape_level, self.device)
        except ValueError as error:
            raise UserError(f"no mesh: {error}; choose another --shape-level") from None

    def _jitter(self, seed: int, frame: int) -> Jitter | None:
        """Draw sample positions that depend on the seeds and the frame alone; None for the deterministic mode."""
        if not self.config.random_sampling:
            return None
        number = (self.config.seed * 1_000_003 + seed) * 1_000_003 + frame
        generator = torch.Generator().manual_seed(number % 2**63)
        volume, rays = self.network.config.volume, self.options.resolution**2
        drawn = sample_jitter(1, rays, volume.depth_samples, volume.importance_samples, generator)
        return Jitter(*(numbers.to(self.device) for numbers in drawn))

    def precision(self) -> AbstractContextManager[None]:
        """Return the context in which networks run as configured."""
        return network_precision(self.device, self.dtype)


def turn_neck(frames: list[HeadParams]) -> list[HeadParams]:
    """Turn the neck of consecutive frames (batch 1) through the loop of pitch and yaw; the rest stays as it is."""
    turned = []
    for params, angle in zip(frames, loop_angles(len(frames)), strict=True):
        pose = params.pose.clone()
        pose[:, 0], pose[:, 1] = 0.2 * math.cos(angle) + 0.1, 0.4 * math.sin(angle)
        turned.append(replace(params, pose=pose))
    return turned


def neutral_frames(count: int) -> list[HeadParams]:
    """Return a closed loop of the neutral identity (zero shape), every part in motion, batch 1 each.

    With a = 2 pi t: neck as in `turn_neck`; expression 0 = 1.5 sin(a), expression 1 = 1.5 sin(2 a), others 0; jaw open
    by 0.15 (1 - cos(2 a)) / 2; both eyes turned by 0.3 sin(2 a) to the side and 0.15 sin(3 a) down, all in radians.
    """
    frames = []
    for angle in loop_angles(count):
        expression = torch.zeros(1, EXPRESSION_DIM)
        expression[0, :2] = torch.tensor([1.5 * math.sin(angle), 1.5 * math.sin(2 * angle)])
        pose = torch.zeros(1, 6)
        pose[0, 3] = 0.15 * (1 - math.cos(2 * angle)) / 2
        eye = torch.tensor([[0.15 * math.sin(3 * angle), 0.3 * math.sin(2 * angle), 0.0]])
        frames.append(HeadParams(torch.zeros(1, SHAPE_DIM), expression, pose, eye.repeat(1, 2)))
    return turn_neck(frames)


def loop_angles(count: int) -> list[float]:
    """Return 2 pi t of each frame, t from 0 to 1 with both ends; 0 for a single frame."""
    return [2 * math.pi * frame / max(count - 1, 1) for frame in range(count)]


def _to_device(params: HeadParams, device: torch.device) -> HeadParams:
    return HeadParams(*(value.to(device) for value in (params.shape, params.expression, params.pose, params.eye_pose)))
