"""What an export is, and how an exported head is rendered."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ExportFormat = Literal["glb", "ply", "planes", "onnx"]
FORMAT_SUFFIXES: dict[ExportFormat, str] = {"glb": ".glb", "ply": ".ply", "planes": ".safetensors", "onnx": ".onnx"}


@dataclass(frozen=True)
class ExportConfig:
    """One reenacted head as a file for other programs.

    Attributes:
        network: .safetensors file or published .pkl.
        source: whose head: a prepared folder, of which the first portrait is taken, or a picture in its align_images.
        out: file to write.
        format: what to write; None: as the suffix of `out` says.
        driving: whose expression and head pose, like `source`; None: the source's own.
        upright: turn the head straight ahead.
        float16: planes: store them in half the space.
        motion: motion vectors stored beside the portraits, or read from the pictures by PD-FGC's encoder, or by ours
            of the open head world.
        shape_res, shape_level: meshes: grid points per side, raw density of the surface.
        render_size: planes and onnx: rays per side; None: the network's own.
        device: where the network runs.
    """

    network: Path
    source: Path
    out: Path
    format: ExportFormat | None = None
    driving: Path | None = None
    upright: bool = False
    float16: bool = False
    motion: Literal["stored", "pdfgc", "synthetic"] = "stored"
    shape_res: int = 128
    shape_level: float = 10.0
    render_size: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class RenderPlanesConfig:
    """Pictures of an exported head.

    Attributes:
        planes: file of a head.
        out: .png or .jpg for a picture, .mp4 for a film.
        camera: of films: "orbit", or the path of a .json file, see `inference/camera_paths.py`.
        yaw_deg, pitch_deg: where the camera is for a picture; amplitude of the orbit.
        seconds: length of the film; None: 4 seconds, once around, or to the last keyframe of the path.
        fps: frames per second.
        fov_deg: vertical field of view in degrees; None: that of the driving portrait.
        render_size: rays per side; None: as the head was exported.
        device: where to render.
    """

    planes: Path
    out: Path
    camera: str = "orbit"
    yaw_deg: float = 30.0
    pitch_deg: float = 0.0
    seconds: float | None = None
    fps: float = 25.0
    fov_deg: float | None = None
    render_size: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
