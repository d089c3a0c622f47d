"""Pictures and films of an exported head (`plane_cache`), without the network that made it."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from portrait4d.config.exporting import RenderPlanesConfig
from portrait4d.data.image_io import save_image, save_video
from portrait4d.files.errors import UserError
from portrait4d.geometry.cameras import split_camera
from portrait4d.inference.camera_paths import Viewpoint, load_camera_path, viewpoint_on_path
from portrait4d.inference.plane_cache import PlaneCache, load_plane_cache
from portrait4d.ops.backend import pick_device

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
_ORBIT_SECONDS = 4.0


def render_planes(config: RenderPlanesConfig) -> int:
    """Render a head to a picture or a film; return the number of frames.

    Raises:
        UserError: a file is missing or damaged, the suffix of `out` is another, or the device is not there.
    """
    suffix = config.out.suffix.lower()
    if suffix not in (*PICTURE_SUFFIXES, ".mp4"):
        raise UserError(f"--out {config.out}: expected the suffix .mp4 or {', '.join(PICTURE_SUFFIXES)}")
    cache = load_plane_cache(config.planes, pick_device(config.device))
    if suffix in PICTURE_SUFFIXES:
        save_image(config.out, _render(cache, config, Viewpoint(config.yaw_deg, config.pitch_deg)))
        return 1
    viewpoints = film_viewpoints(config)
    frames = (_render(cache, config, viewpoint) for viewpoint in tqdm(viewpoints, unit="frame"))
    save_video(config.out, frames, config.fps)
    return len(viewpoints)


def film_viewpoints(config: RenderPlanesConfig) -> list[Viewpoint]:
    """Return where each frame of a film is seen from.

    Raises:
        InputFileError: `config.camera` names a file that is missing, or no camera path.
    """
    if config.camera == "orbit":
        return list(_orbit(config))
    path = load_camera_path(Path(config.camera))
    seconds = config.seconds or path.keyframes[-1].time_s
    return [viewpoint_on_path(path, number / config.fps) for number in range(_frame_count(config, seconds))]


def _orbit(config: RenderPlanesConfig) -> Iterator[Viewpoint]:
    """Yield one round, so that the film can be shown in a loop."""
    count = _frame_count(config, config.seconds or _ORBIT_SECONDS)
    for number in range(count):
        angle_rad = 2 * math.pi * number / count
        yield Viewpoint(config.yaw_deg * math.sin(angle_rad), config.pitch_deg * math.cos(angle_rad))


def _frame_count(config: RenderPlanesConfig, seconds: float) -> int:
    return max(1, round(seconds * config.fps))


@torch.inference_mode()
def _render(cache: PlaneCache, config: RenderPlanesConfig, viewpoint: Viewpoint) -> Tensor:
    if config.fov_deg is not None:
        viewpoint = viewpoint._replace(fov_deg=config.fov_deg)
    camera = viewpoint.camera(split_camera(cache.camera).intrinsics)
    return cache.render(camera, config.render_size).image_sr[0].cpu()
