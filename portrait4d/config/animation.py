"""What an animation is: photos, what drives them, and the film to make."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Stabilise = Literal["off", "light", "strong"]
Layout = Literal["result", "side-by-side", "grid"]
WEBCAM = "webcam:"
"""Begins the name of a camera of this machine: webcam:0."""
CAMERAS = ("driver", "frontal", "orbit")
ALPHA_SUFFIXES = (".webm", ".mov")
"""Films that can be transparent."""
FILM_OUTPUTS = (".mp4", *ALPHA_SUFFIXES)


@dataclass(frozen=True)
class AnimateConfig:
    """Photos animated by what a film, pictures, a template or a camera shows.

    Attributes:
        source: photos, folders of photos or prepared folders; one head for each picture.
        driving: film, folder of pictures, prepared folder, template (.safetensors) or "webcam:N".
        out: film to write, .mp4, .mov or .webm; transparent ones .mov or .webm.
        network: .safetensors file or published .pkl; None: the bundled demonstration network.
        paste_back: lay the head back into the source's photo, or into the driving frames.
        background: what is behind the head where nothing is pasted back.
        colour: of the background, "#rrggbb".
        stabilise: how much trembling of head pose and motion is filtered away.
        relative: apply the driver's change against its first frame to the source's own pose and expression.
        expression_scale: factor on how far expressions are from the source's own (relative: from the driver's first).
        camera: "driver" (frontal, the head turns as the driver's does), "frontal" (upright head), "orbit", or the path
            of a .json file, see `inference/camera_paths.py`.
        yaw_deg, pitch_deg, orbit_s: amplitude of the orbit, and how long a round takes in seconds.
        fps: frames per second of the film; None keeps the times of the driving frames.
        still_fps: frames per second of driving pictures, which have no times.
        layout: results only; source | result | driver; or driver and results in a grid.
        missing: while no face is found, hold the last pose, or fade to the source's own.
        frames: stop after so many driving frames; None: at the end.
        save_template: also write motion and pose here.
        audio: keep the driving film's sound.
        render_size: rays per side; None: the network's own.
        chunk: rays at once (None: chosen for the device).
        device, dtype: where and in which precision the networks run.
        cache: folder of preprocessed sources; None keeps none.
    """

    source: tuple[Path, ...]
    driving: str
    out: Path
    network: Path | None = None
    paste_back: Literal["off", "source", "driving"] = "off"
    background: Literal["source", "colour", "transparent"] = "source"
    colour: str = "#00b140"
    stabilise: Stabilise = "off"
    relative: bool = False
    expression_scale: float = 1.0
    camera: str = "driver"
    yaw_deg: float = 30.0
    pitch_deg: float = 0.0
    orbit_s: float = 4.0
    fps: float | None = None
    still_fps: float = 25.0
    layout: Layout = "result"
    missing: Literal["hold", "fade"] = "hold"
    frames: int | None = None
    save_template: Path | None = None
    audio: bool = True
    render_size: int | None = None
    chunk: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    cache: Path | None = Path("~/.cache/portrait4d/sources")
