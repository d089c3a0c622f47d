"""What a run does: the options of the scripts as frozen dataclasses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class ReenactConfig:
    """Reenactment of a folder of source portraits by a folder of driving portraits.

    Attributes:
        network: .safetensors file or published .pkl.
        srcdir, tardir: prepared folders of the sources and of the driving portraits.
        outdir: where results go.
        use_neck: turn the neck in front of a frontal camera; otherwise keep the neck still and move the camera.
        use_simplified: read bfm2flame_params_simplified instead of flame_optim_params.
        motion: stored motion vectors (PD-FGC reads those that are missing), or all read from the pictures, by PD-FGC's
            encoder or by ours of the open head world.
        shape, shape_res, shape_level, shape_format: export meshes; grid points per side, raw density of the surface.
        render_size: rays per side (None: the network's own); chunk: rays at once (None: chosen for the device).
        fov_deg: vertical field of view in degrees; None keeps the driving portrait's intrinsics.
        device, dtype: where and in which type frames are computed (source features and volume rendering stay float32).
        seed, random_sampling: draw sample positions instead of the deterministic midpoints.
        pairs: every source with every driver, or the first with the first and so on.
        camera: of the driving portrait, frontal (head upright), or an orbit.
        yaw_deg, pitch_deg: orbit amplitude with several views, position with one.
        orbit_frames: orbit views of each driving frame.
        grid, video, fps: also write one picture of all results, and a film for each source.
        source_cache: reuse what depends on the source alone.
        resume: skip results that are there.
    """

    network: Path
    srcdir: Path
    tardir: Path
    outdir: Path
    use_neck: bool = True
    use_simplified: bool = False
    motion: Literal["stored", "pdfgc", "synthetic"] = "stored"
    shape: bool = False
    shape_res: int = 128
    shape_level: float = 25.0
    shape_format: Literal["ply", "obj", "glb"] = "ply"
    render_size: int | None = None
    chunk: int | None = None
    fov_deg: float | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0
    random_sampling: bool = False
    pairs: Literal["all", "zip"] = "all"
    camera: Literal["driver", "frontal", "orbit"] = "driver"
    yaw_deg: float = 30.0
    pitch_deg: float = 0.0
    orbit_frames: int = 1
    grid: bool = False
    video: bool = False
    fps: float = 25.0
    source_cache: bool = True
    resume: bool = False


@dataclass(frozen=True)
class SampleHeadsConfig:
    """Films of heads that GenHead makes up.

    Attributes:
        network: .safetensors file or published .pkl.
        outdir: where results go.
        seeds: one head for each; also the row of `params`.
        trunc, trunc_cutoff: truncation of the first so many styles (None: of all).
        params: folder with the published parameter sets; None for the built-in motion of a neutral identity.
        frames: pictures of each head, a closed loop.
        shapes, shape_res, shape_level, shape_format: export meshes; grid points per side, raw density of the surface.
        render_size: rays per side (None: the network's own); chunk: rays at once (None: chosen for the device).
        fov_deg: vertical field of view in degrees; None keeps that of the parameters, 12 degrees.
        device, dtype: where and in which precision the networks run (volume rendering stays in float32).
        seed, random_sampling: draw sample positions instead of the deterministic midpoints.
        grid, video, fps: also write one picture of all heads, and a film of each.
        resume: skip pictures that are there.
    """

    network: Path
    outdir: Path
    seeds: tuple[int, ...]
    trunc: float = 0.7
    trunc_cutoff: int | None = 14
    params: Path | None = None
    frames: int = 40
    shapes: bool = False
    shape_res: int = 128
    shape_level: float = 25.0
    shape_format: Literal["ply", "obj", "glb"] = "ply"
    render_size: int | None = None
    chunk: int | None = None
    fov_deg: float | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0
    random_sampling: bool = False
    grid: bool = False
    video: bool = False
    fps: float = 25.0
    resume: bool = False
