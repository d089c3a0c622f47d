"""Where an animated head is seen from: from the front, on an orbit, or along a path read from a file."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from portrait4d.config.animation import CAMERAS, AnimateConfig
from portrait4d.config.animation_cameras import CameraKeyframe, CameraPath
from portrait4d.config.load import config_from_dict
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.cameras import FRONTAL_POSITION, intrinsics_from_fov, join_camera, orbit_cam2world

_REMEDY = 'write {"keyframes": [{"time_s": 0, "yaw_deg": -30}, {"time_s": 2, "yaw_deg": 30}], "loop": true}'


class Viewpoint(NamedTuple):
    """A camera about the head: angles in degrees, distance in world units, field of view (None: the driver's)."""

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    distance: float = FRONTAL_POSITION[2]
    fov_deg: float | None = None

    def camera(self, intrinsics: Tensor) -> Tensor:
        """Return the camera vector (1, 25) with the intrinsics (1, 3, 3) of a driver, on their device."""
        angles = intrinsics.new_tensor([[self.yaw_deg], [self.pitch_deg]]).deg2rad()
        position = (*FRONTAL_POSITION[:2], self.distance)
        if self.fov_deg is not None:
            intrinsics = intrinsics_from_fov(self.fov_deg).to(intrinsics)[None]
        return join_camera(orbit_cam2world(angles[0], angles[1], position), intrinsics)


def viewpoints(config: AnimateConfig) -> Callable[[float], Viewpoint]:
    """Return what gives the viewpoint at a time in seconds.

    Raises:
        InputFileError: `config.camera` names a file that is missing, or no camera path.
    """
    if config.camera == "orbit":
        return lambda time_s: _on_orbit(config, time_s)
    if config.camera in CAMERAS:
        return lambda time_s: Viewpoint()
    path = load_camera_path(Path(config.camera))
    return lambda time_s: viewpoint_on_path(path, time_s)


def load_camera_path(path: Path) -> CameraPath:
    """Load a camera path from a .json file.

    Raises:
        InputFileError: no such file, or something else in it.
    """
    if path.suffix.lower() != ".json" or not path.is_file():
        expected = f"{', '.join(CAMERAS)} or a .json file with a camera path"
        raise InputFileError(path, f"no such camera, expected {expected}", _REMEDY)
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError(f"expected an object at the top, got {type(values).__name__}")
        camera_path = config_from_dict(CameraPath, values)
        _check(camera_path)
    except ValueError as error:
        raise InputFileError(path, f"is no camera path ({' '.join(str(error).split())})", _REMEDY) from None
    return camera_path


def viewpoint_on_path(path: CameraPath, time_s: float) -> Viewpoint:
    """Return where a path is at a time: between its keyframes evenly, before and after them at the first and last."""
    frames = path.keyframes
    first, last = frames[0].time_s, frames[-1].time_s
    if path.loop and last > first and time_s > last:
        time_s = first + (time_s - first) % (last - first)
    later = next((number for number, frame in enumerate(frames) if frame.time_s > time_s), len(frames))
    if later in (0, len(frames)):
        return _viewpoint(frames[min(later, len(frames) - 1)])
    start, end = frames[later - 1], frames[later]
    share = (time_s - start.time_s) / (end.time_s - start.time_s)
    pairs = zip(_viewpoint(start), _viewpoint(end), strict=True)
    return Viewpoint(*(None if None in pair else pair[0] + share * (pair[1] - pair[0]) for pair in pairs))


def _viewpoint(frame: CameraKeyframe) -> Viewpoint:
    distance = FRONTAL_POSITION[2] if frame.distance is None else frame.distance
    return Viewpoint(frame.yaw_deg, frame.pitch_deg, distance, frame.fov_deg)


def _on_orbit(config: AnimateConfig, time_s: float) -> Viewpoint:
    angle = 2 * math.pi * time_s / config.orbit_s
    return Viewpoint(config.yaw_deg * math.sin(angle), config.pitch_deg * math.cos(angle))


def _check(path: CameraPath) -> None:
    times = [frame.time_s for frame in path.keyframes]
    if not times:
        raise ValueError("keyframes: expected at least one")
    if any(later <= earlier for earlier, later in zip(times, times[1:], strict=False)):
        raise ValueError(f"keyframes: expected growing time_s, got {times}")
    if len({frame.fov_deg is None for frame in path.keyframes}) > 1:
        raise ValueError("fov_deg: expected in all keyframes or in none")
    for frame in path.keyframes:
        values = [value for value in vars(frame).values() if value is not None]
        if not all(map(math.isfinite, values)):
            raise ValueError(f"keyframes: expected finite numbers, got {frame}")
        if not _viewpoint(frame).distance > 0:
            raise ValueError(f"distance: expected above 0, got {frame.distance}")
        if not 0 < (frame.fov_deg or 1) < 180:
            raise ValueError(f"fov_deg: expected between 0 and 180, got {frame.fov_deg}")
