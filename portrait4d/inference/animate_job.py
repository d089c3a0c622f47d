"""Photos and a driver to a film, as a chain of threads: decode, track, network (the caller's thread), encode.

Between them wait a few frames at most, so that memory does not grow with the length of the film. The film appears
under its name when it is complete; what was there before stays until then.
"""

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from copy import copy
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path

from torch import Tensor

from portrait4d import __version__
from portrait4d.config.animation import ALPHA_SUFFIXES, FILM_OUTPUTS, AnimateConfig
from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.film_writer import FilmSettings, FilmWriter
from portrait4d.files.errors import UserError
from portrait4d.files.outputs import refuse_to_replace
from portrait4d.files.read_ahead import read_ahead, write_behind
from portrait4d.inference.animate_sources import load_sources
from portrait4d.inference.animator import Animator, Follower
from portrait4d.inference.driving_sources import DrivingClip, DrivingFrame, open_driving, resample, track
from portrait4d.inference.reenact import Reenactor
from portrait4d.inference.stabilise import StateSmoother, SteadinessMeter
from portrait4d.inference.templates import TEMPLATE_SUFFIX, TemplateFrame, TemplateWriter
from portrait4d.inference.tracking import Tracker, TrackerMaker
from portrait4d.models.checkpoints import LANDMARK_NETWORK, MOTION_ENCODER, names_open_head
from portrait4d.models.pretrained.bundled import bundled_path

Progress = Callable[[int, int | None], None]
"""Called with the number of frames that are rendered, and of all, None while unknown; may raise to stop."""

PRETRAINED = Path(__file__).parents[1] / "pretrained_models"
PUBLISHED_NETWORK = "portrait4d-v2-vfhq512.pkl"
BUNDLED_NETWORK = bundled_path("portrait4d")

_WAITING_BYTES = 64 << 20
_WAITING_FRAMES = 16
"""Most frames that wait before a step, small as they may be."""
_WAITING_RESULTS = 4
_USUAL_RATES = (1, 240)


@dataclass
class AnimationReport:
    """What became of an animation.

    Attributes:
        out: the film.
        frames: in it.
        missing: how many of them showed no face in the driver.
        size: (width, height) in pixels.
        sound: its encoding, None without.
        jitter: {"head_deg", "motion": (before, after)} of the driver's states, see `SteadinessMeter`.
        expression_kept: spread of the driver's expression after smoothing, 1 as before.
        prepare_s: seconds until network and sources were ready.
        first_frame_s: seconds until the first frame was rendered, from the beginning.
        render_s: seconds from the first frame's start to the last one's end.
        problems: what is not as it should be.
    """

    out: Path
    frames: int = 0
    missing: int = 0
    size: tuple[int, int] = (0, 0)
    sound: str | None = None
    jitter: dict[str, tuple[float, float]] = field(default_factory=dict)
    expression_kept: float = 1.0
    prepare_s: float = 0.0
    first_frame_s: float = 0.0
    render_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """The problems, for `script_options.run_job`."""
        return self.problems

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        rate = self.frames / self.render_s if self.render_s else math.inf
        lines = [
            f"{self.out}: {self.frames} frames of {self.size[0]} x {self.size[1]} pixels, "
            f"{f'sound {self.sound}' if self.sound else 'no sound'}",
            f"first frame after {self.first_frame_s:.2f} s, of which {self.prepare_s:.2f} s preparing; then {rate:.2f} "
            "frames/s",
        ]
        if self.missing:
            lines.append(f"{self.missing} frames without a face")
        if self.jitter:
            (head, head_after), (motion, motion_after) = self.jitter["head_deg"], self.jitter["motion"]
            lines.append(
                f"jitter before -> after: head {head:.3f} -> {head_after:.3f} deg/frame2, motion {motion:.4f} -> "
                f"{motion_after:.4f}; expression kept {100 * self.expression_kept:.1f} %"
            )
        return "\n".join([*lines, *self.problems])


@dataclass(frozen=True)
class NetworkChoice:
    """A network file, whether its heads are those of the open head world, and a line that says what follows."""

    path: Path
    is_open_world: bool
    explanation: str


def choose_network(path: Path | None) -> NetworkChoice:
    """Choose a network: the one named, else the published one if it is there, else the bundled one.

    Raises:
        InputFileError: the one named is missing or damaged.
        UserError: none is named, and none is there.
    """
    if path is None:
        places = (Path("pretrained_models") / PUBLISHED_NETWORK, PRETRAINED / PUBLISHED_NETWORK, BUNDLED_NETWORK)
        path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(f"{BUNDLED_NETWORK}: no such file; name a network with --network")
    is_open = path.suffix != ".pkl" and names_open_head(path)
    trackers = "our trackers of the open head world" if is_open else "the published face networks"
    limits = " (for people: a published network and its weights, see fetch_assets.py --list)" if is_open else ""
    return NetworkChoice(path, is_open, f"network {path}, faces found by {trackers}{limits}")


def run_animation(
    config: AnimateConfig,
    progress: Progress | None = None,
    make_tracker: TrackerMaker | None = None,
    reenactor: Reenactor | None = None,
) -> AnimationReport:
    """Animate photos and write the film.

    Args:
        config: what to make.
        progress: told of each frame.
        make_tracker: finds faces in pictures that are not prepared; None: those of the open head world.
        reenactor: the network of `config`, if it is loaded already; it is not changed.

    Raises:
        UserError: options that contradict each other; a network, source or driver that is missing or of no use; no
            face in the driver; or a place that cannot be written.
    """
    check_config(config)
    started = time.perf_counter()
    reenactor = copy(reenactor or _load_reenactor(config))
    reenactor.options = replace(reenactor.options, resolution=config.render_size)
    clip = open_driving(config, reenactor.network.config.motion_kind != "flame")
    check_driving(config, clip)
    maker = make_tracker or OpenTrackers(reenactor)
    sources = load_sources(config.source, reenactor, maker, config.cache)
    job = _Job(config, clip, Animator(config, reenactor, sources), maker, started)
    try:
        return job.run(progress or (lambda done, total: None))
    except OSError as error:
        place = error.filename or config.out
        raise UserError(f"{place}: cannot be written ({error.strerror or error})") from error


def _load_reenactor(config: AnimateConfig) -> Reenactor:
    network = config.network or choose_network(None).path
    machine = {"chunk": config.chunk, "device": config.device, "dtype": config.dtype}
    return Reenactor(ReenactConfig(network, Path(), Path(), Path(), **machine))


def check_config(config: AnimateConfig) -> None:
    """Make sure that options fit each other, and that no input is overwritten.

    Raises:
        UserError: they do not, or one is.
    """
    suffix, transparent = config.out.suffix.lower(), config.background == "transparent"
    problems = {
        f"--out {config.out}: expected {', '.join(FILM_OUTPUTS)}": suffix not in FILM_OUTPUTS,
        "--source: expected at least one": not config.source,
        f"--out {config.out}: a transparent film is {' or '.join(ALPHA_SUFFIXES)}": transparent
        and suffix not in ALPHA_SUFFIXES,
        "--background transparent: goes with --layout result": transparent and config.layout != "result",
        "--background: has no effect with --paste-back": config.background != "source" and config.paste_back != "off",
        "--camera: expected driver with --paste-back": config.paste_back != "off" and config.camera != "driver",
        f"--colour {config.colour}: expected #rrggbb": not re.fullmatch("#[0-9a-fA-F]{6}", config.colour),
        f"--fps {config.fps}: expected 1 to 240": config.fps is not None and not 1 <= config.fps <= 240,
        f"--still-fps {config.still_fps}: expected 1 to 240": not 1 <= config.still_fps <= 240,
        f"--orbit-s {config.orbit_s}: expected above 0": not 0 < config.orbit_s < math.inf,
        f"--expression-scale {config.expression_scale}: expected 0 to 3": not 0 <= config.expression_scale <= 3,
        f"--save-template {config.save_template}: expected the suffix {TEMPLATE_SUFFIX}": config.save_template
        is not None
        and config.save_template.suffix.lower() != TEMPLATE_SUFFIX,
    }
    for problem, holds in problems.items():
        if holds:
            raise UserError(problem)
    for option, out in {"--out": config.out, "--save-template": config.save_template}.items():
        if out is not None:
            refuse_to_replace(option, out, [*config.source, config.driving, config.network])


def check_driving(config: AnimateConfig, clip: DrivingClip) -> None:
    """Make sure that a driver can do what is asked of it.

    Raises:
        UserError: it cannot.
    """
    if config.paste_back == "driving":
        if not clip.has_pictures:
            raise UserError("--paste-back driving: a template has no pictures to paste into")
        if config.layout != "result":
            raise UserError("--paste-back driving: goes with --layout result")
    if clip.is_live and config.fps is not None:
        raise UserError("--fps: a webcam has its own frame rate")


@dataclass
class OpenTrackers:
    """Trackers of the open head world, for pictures of its heads."""

    reenactor: Reenactor
    hint: str = (
        "without the published weights faces are found in pictures of the open head world only "
        "(fetch_assets.py --list names them)"
    )

    @cached_property
    def name(self) -> str:
        """What tracks: version, weights and the crops' size, which what is kept of its results depends on."""
        weights = b"".join(path.read_bytes() for path in (LANDMARK_NETWORK, MOTION_ENCODER))
        return f"open head world {__version__} {hashlib.sha256(weights).hexdigest()} {self._size}"

    def __call__(self) -> Tracker:
        """Return a tracker for a new clip."""
        from portrait4d.inference.open_tracker import load_open_tracker

        return load_open_tracker(str(self.reenactor.device), self._size)

    @property
    def _size(self) -> int:
        return self.reenactor.network.config.image_resolution


class _Job:
    def __init__(
        self, config: AnimateConfig, clip: DrivingClip, animator: Animator, make_tracker: TrackerMaker, started: float
    ) -> None:
        self.config, self.clip, self.animator, self.make_tracker = config, clip, animator, make_tracker
        self.started = started
        self.report = AnimationReport(config.out, prepare_s=time.perf_counter() - started)
        self.follower = Follower(config.missing == "fade")
        self.smoother, self.meter = StateSmoother(config.stabilise), SteadinessMeter()
        low, high = _USUAL_RATES
        self.rate = Fraction(config.fps or clip.rate).limit_denominator(1001)
        self.rate = self.rate if low <= self.rate <= high else Fraction(config.still_fps).limit_denominator(1001)

    def run(self, progress: Progress) -> AnimationReport:
        with ExitStack() as stack:
            sound = self.clip.sound if self.config.audio else None
            settings = FilmSettings(self.rate, self.config.background == "transparent", sound)
            film = stack.enter_context(FilmWriter(self.config.out, settings))
            template = None
            if self.config.save_template is not None:
                template = stack.enter_context(TemplateWriter(self.config.save_template, self.rate))
            put = stack.enter_context(write_behind(lambda item: film.write(*item), _WAITING_RESULTS))
            try:
                self._render_all(put, template, progress)
            except KeyboardInterrupt:
                if not (self.clip.is_live and self.report.frames):
                    raise
            self._finish(film)
        self.report.sound = film.sound_codec
        self.report.problems += [film.sound_problem] if film.sound_problem else []
        return self.report

    def _render_all(
        self, put: Callable[[tuple[Tensor, Fraction]], None], template: TemplateWriter | None, progress: Progress
    ) -> None:
        report, total, begun = self.report, self._expected(), time.perf_counter()
        with ExitStack() as stack:
            for frame in self._frames(stack):
                if template is not None:
                    template.write(TemplateFrame(frame.time_s, None if frame.face is None else frame.face.state))
                picture = self._render(frame)
                put((picture, frame.time_s))
                report.frames += 1
                report.missing += frame.face is None
                report.size = (picture.shape[2], picture.shape[1])
                report.render_s = time.perf_counter() - begun
                if report.frames == 1:
                    report.first_frame_s = time.perf_counter() - self.started
                progress(report.frames, total)

    def _render(self, frame: DrivingFrame) -> Tensor:
        state = None
        if frame.face is None:
            self.meter.interrupt()
        else:
            state = self.smoother.smooth(frame.face.state, frame.time_s)
            self.meter.add(frame.face.state, state)
        return self.animator.render(frame, self.follower.follow(state, float(frame.time_s)))

    def _frames(self, stack: ExitStack) -> Iterator[DrivingFrame]:
        """Read and track frames in threads, which `stack` ends, the last one first."""
        frames = stack.enter_context(closing(self._decoded()))
        frames = stack.enter_context(closing(self._ahead(frames)))
        if self.clip.needs_tracker:
            frames = stack.enter_context(closing(track(frames, self.make_tracker())))
            frames = stack.enter_context(closing(self._ahead(frames)))
        return frames

    def _decoded(self) -> Iterator[DrivingFrame]:
        frames = self.clip.frames()
        if self.config.fps is not None:
            frames = resample(frames, self.config.fps)
        yield from islice(frames, self.config.frames)

    def _ahead(self, frames: Iterator[DrivingFrame]) -> Iterator[DrivingFrame]:
        if self.clip.is_live:
            return frames  # what waits would be late
        return read_ahead(frames, _weigh, _WAITING_BYTES)

    def _expected(self) -> int | None:
        count, limit = self.clip.count, self.config.frames
        if count is not None and self.config.fps is not None:
            count = math.ceil(count * self.config.fps / self.clip.rate)
        return limit if count is None else min(count, limit or count)

    def _finish(self, film: FilmWriter) -> None:
        report = self.report
        if report.frames == report.missing:
            if not report.frames:
                raise UserError(f"{self.config.driving}: no frame in it")
            raise UserError(f"{self.config.driving}: no face found in {report.frames} frames; {self.make_tracker.hint}")
        report.jitter, report.expression_kept = self.meter.jitter, self.meter.expression_kept
        if self.clip.problem is not None:
            report.problems.append(f"the film ends early: {self.clip.problem}")


def _weigh(frame: DrivingFrame) -> float:
    size = 0 if frame.picture is None else frame.picture.nbytes
    return max(size, _WAITING_BYTES / _WAITING_FRAMES)
