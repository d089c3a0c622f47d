"""Paths of cameras around a head, as .json files."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CameraKeyframe:
    """Where the camera is at one time.

    Attributes:
        time_s: in seconds from the beginning of the film.
        yaw_deg, pitch_deg: how far it is turned about the head, to its left and up.
        distance: from the neck joint, world units; None: that of the frontal camera, 4.2.
        fov_deg: vertical field of view; None: the driver's.
    """

    time_s: float
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    distance: float | None = None
    fov_deg: float | None = None


@dataclass(frozen=True)
class CameraPath:
    """Keyframes in the order of time, between which the camera moves evenly.

    Attributes:
        keyframes: at least one.
        loop: begin again after the last one; otherwise the camera stays there.
    """

    keyframes: tuple[CameraKeyframe, ...]
    loop: bool = False
