"""Films of a chosen source under a chosen driver, made by what `portrait4d-animate` runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from portrait4d.config.animation import AnimateConfig, Layout, Stabilise
from portrait4d.files.errors import UserError
from portrait4d.inference.animate_job import AnimationReport, run_animation
from portrait4d.webapp.sources import copy_portrait
from portrait4d.webapp.state import AppState, bundled_clips

_MOST_FRAMES_PER_SECOND = 60
_STILL_FPS = 8.0


@dataclass(frozen=True)
class FilmRequest:
    """A film that a visitor asks for.

    Attributes:
        source: key of the source, see `AppState.portrait`.
        clip: name of a bundled clip, or key of an uploaded one.
        layout, stabilise, relative, camera: see `AnimateConfig`.
    """

    source: str
    clip: str
    layout: Layout = "side-by-side"
    stabilise: Stabilise = "off"
    relative: bool = False
    camera: str = "driver"


def make_film(state: AppState, request: FilmRequest, report: Callable[[int, int | None], None]) -> tuple[str, str]:
    """Make a film and return where it was published, `token/name`, and what to say of it.

    Args:
        state: holds networks and uploads.
        request: what is asked for.
        report: told how many frames are done, of how many (None: not known).

    Raises:
        UserError: source or clip is gone, shows no face, or the network cannot be loaded.
    """
    with state.workspace.job() as folder:
        source, out = folder / "source", folder / "film.mp4"
        copy_portrait(state.portrait(request.source), source)
        config = AnimateConfig(
            source=(source,),
            driving=str(_driver(state, request.clip)),
            out=out,
            network=state.network.path,
            stabilise=request.stabilise,
            relative=request.relative,
            camera=request.camera,
            still_fps=_STILL_FPS,
            layout=request.layout,
            frames=math.ceil(state.config.max_seconds * _MOST_FRAMES_PER_SECOND),
            device=state.config.device,
            cache=None,
        )
        done = run_animation(config, report, state.trackers(), state.reenactor())
        return state.workspace.publish(out), _caption(done)


def _driver(state: AppState, clip: str) -> Path:
    bundled = bundled_clips()
    if clip in bundled:
        return bundled[clip]
    folder = state.uploaded_clips.find(clip)
    if folder is None:
        raise UserError("There is no clip of yours in memory. Upload one, or record yourself.")
    return next(folder.iterdir())


def _caption(done: AnimationReport) -> str:
    rate = done.frames / done.render_s if done.render_s else 0.0
    parts = [f"{done.frames} frames, {rate:.1f} a second."]
    if done.missing:
        parts.append(f"No face was found in {done.missing} of them.")
    return " ".join(parts + [f"{problem}." for problem in done.problems])
