"""Data sets of the open head world: portraits like FFHQ's folders, clips like VFHQ's, and cross-identity ground truth.

Everything follows from the seed and the numbers of person and motion, so a killed run goes on by the same command:
what is complete is passed over. Roots are laid out as `data/pack_sources.py` reads them (datasets.md section 1).
"""

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from portrait4d.data.unfinished_folder import lock_folder
from portrait4d.files.atomic import atomic_path, write_text
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.figure import Detail, build_figure
from portrait4d.synthetic_heads.head_template import NAME, VERSION, open_head_assets, open_head_extras
from portrait4d.synthetic_heads.motions import CLIP_FPS, Motion, sample_clip_motions, sample_still_motion
from portrait4d.synthetic_heads.portraits import is_complete, plan_shot, write_portrait

PER_FOLDER = 1000
SEED_STEP = 1_000_000
"""Persons of seed S have the appearance seeds S * SEED_STEP, S * SEED_STEP + 1, ..."""
GUARD = ".writer"
"""The lock of `data.unfinished_folder`, removed at the end of a run."""
MANIFEST, SETTINGS, TRUTH = "manifest.jsonl", "settings.json", "truth"


@dataclass(frozen=True)
class PortraitSetConfig:
    """What to write. Every field but `out` and `workers` decides what the files hold.

    Attributes:
        out: root folder.
        identities: persons; without clips also the number of portraits.
        clips: 0 for single portraits; clip i shows person i modulo `identities`.
        frames: of a clip.
        views: extra cameras of every portrait.
        resolution: pixels per side.
        seed: everything follows from it.
        truth: also write every person with the next one's motion.
        image_format: "png" or "jpg".
        fps: frames per second of clips.
        workers: processes.
    """

    out: Path
    identities: int
    clips: int = 0
    frames: int = 50
    views: int = 0
    resolution: int = 512
    seed: int = 0
    truth: bool = False
    image_format: str = "png"
    fps: float = CLIP_FPS
    workers: int = 1

    def __post_init__(self) -> None:
        limits = {"identities": 1, "clips": 0, "frames": 1, "views": 0, "resolution": 16, "seed": 0, "workers": 1}
        for name, least in limits.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected {least} or more, got {getattr(self, name)}")
        if self.image_format not in ("png", "jpg"):
            raise ValueError(f"image_format: expected png or jpg, got {self.image_format}")
        if self.truth and min(self.identities, self.clips or self.identities) < 2:
            raise UserError("--truth: one person's motion goes to another, so at least two are needed")

    @property
    def content(self) -> dict:
        """What decides the files' content, as JSON."""
        values = {key: value for key, value in asdict(self).items() if key not in ("out", "workers")}
        return {"head": NAME, "head_version": VERSION, **values}


@dataclass(frozen=True)
class Job:
    """One portrait or one clip: a person with one sequence of motions.

    Attributes:
        folder: prepared folder, relative to the root.
        stems: names of the portraits in it.
        person, motion: numbers of the person and of the motion.
        views: extra cameras.
    """

    folder: str
    stems: tuple[str, ...]
    person: int
    motion: int
    views: int


@dataclass(frozen=True)
class SetReport:
    """How many portraits (frames) were written, and how many were there already."""

    written: int
    kept: int

    def summary(self, out: Path) -> str:
        """Return one line for the terminal."""
        return f"{self.written} portraits written to {out}, {self.kept} were there already"


def plan_jobs(config: PortraitSetConfig, truth: bool = False) -> list[Job]:
    """List the jobs of the data itself, or of its cross-identity ground truth (person i, motion i + 1)."""
    if config.clips:
        names = [f"clip-{number:05d}" for number in range(config.clips)]
        stems = tuple(f"{frame:05d}" for frame in range(config.frames))
        if not truth:
            return [Job(name, stems, k % config.identities, k, config.views) for k, name in enumerate(names)]
        pairs = [(k, (k + 1) % config.clips) for k in range(config.clips)]
        return [Job(f"{TRUTH}/{names[a]}_{names[b]}", stems, a % config.identities, b, 0) for a, b in pairs]
    if not truth:
        numbers = range(config.identities)
        return [Job(_still_folder(k), (f"{k:05d}",), k, k, config.views) for k in numbers]
    pairs = [(k, (k + 1) % config.identities) for k in range(config.identities)]
    return [Job(f"{TRUTH}/{_still_folder(a)}", (f"{a:05d}_{b:05d}",), a, b, 0) for a, b in pairs]


def write_portrait_set(config: PortraitSetConfig) -> SetReport:
    """Write a data set, or the rest of one.

    Raises:
        UserError: the folder holds a set of other settings or cannot be written, or another process is writing there.
    """
    with lock_folder(config.out):
        try:
            return _write_all(config)
        except OSError as error:
            raise UserError(f"{error.filename or config.out}: cannot be written ({error.strerror})") from error
        finally:
            (config.out / GUARD).unlink(missing_ok=True)


def _write_all(config: PortraitSetConfig) -> SetReport:
    _check_settings(config)
    for left in config.out.rglob(".tmp-*"):  # of a killed run
        left.unlink()
    open_head_assets()  # built and cached here, so that the workers find it
    passes = [(plan_jobs(config), config.out / MANIFEST)]
    if config.truth:
        passes.append((plan_jobs(config, truth=True), config.out / TRUTH / MANIFEST))
    written = kept = 0
    total = sum(len(job.stems) for jobs, _ in passes for job in jobs)
    with tqdm(total=total, unit="portrait", smoothing=0.05) as progress, _runner(config) as run:
        for jobs, manifest in passes:
            with atomic_path(manifest) as temporary, temporary.open("w") as lines:
                for rows, new in run(jobs):
                    lines.writelines(json.dumps(row) + "\n" for row in rows)
                    written, kept = written + new, kept + len(rows) - new
                    progress.update(len(rows))
    return SetReport(written, kept)


def _check_settings(config: PortraitSetConfig) -> None:
    path = config.out / SETTINGS
    if not path.exists():
        others = [p.name for p in config.out.iterdir() if not p.name.startswith(".")]
        if others:
            raise InputFileError(config.out, f"holds other files ({others[0]}, ...)", "choose an empty or new --out")
        write_text(path, json.dumps(config.content, indent=1) + "\n")
        return
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise InputFileError(path, f"not readable as JSON ({error})", "choose another --out") from error
    if not isinstance(stored, dict):
        raise InputFileError(path, "expected settings, got something else", "choose another --out")
    content = config.content
    differing = [f"{key} {stored.get(key)}, not {content[key]}" for key in content if stored.get(key) != content[key]]
    if differing:
        problem = f"the set there has {'; '.join(differing)}"
        raise InputFileError(path, problem, "repeat its options or choose another --out")


@contextmanager
def _runner(config: PortraitSetConfig) -> Iterator:
    """Yield a function from jobs to their results in order: in this process, or in spawned workers."""
    if config.workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as the workers: the same bits, and no slower for one small picture
        try:
            yield lambda jobs: (run_job(config, job) for job in jobs)
        finally:
            torch.set_num_threads(threads)
        return
    pool = worker_pool(config.workers)
    try:
        yield lambda jobs: pool.map(_Task(config), jobs)
    except BrokenProcessPool as error:
        raise UserError("a worker process was ended from outside; run the same command again to go on") from error
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker(SpawnProcess):
    """A process that leaves Ctrl-C and a scheduler's SIGTERM to the main one, from its first moment on."""

    def start(self) -> None:
        """Start it; it inherits that these signals are held back."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        """End it by force, for a pool of which one worker is gone: SIGTERM would not."""
        self.kill()


class _WorkerContext(SpawnContext):
    Process = _Worker


def start_worker() -> None:
    """Prepare a worker process: one thread, gone when the main process is."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def worker_pool(
    workers: int, initializer: Callable[..., None] = start_worker, arguments: tuple = ()
) -> ProcessPoolExecutor:
    """Build a pool of processes that signals to all of a run do not end, only the main process or its end.

    Args:
        workers: how many.
        initializer: is called in each with `arguments`; it must call `start_worker`.
    """
    return ProcessPoolExecutor(workers, _WorkerContext(), initializer, arguments)


def _end_with_parent() -> None:
    """End this worker when the main process is gone, however it went."""
    multiprocessing.parent_process().join()
    os._exit(1)


@dataclass(frozen=True)
class _Task:
    config: PortraitSetConfig

    def __call__(self, job: Job) -> tuple[list[dict], int]:
        return run_job(self.config, job)


def run_job(config: PortraitSetConfig, job: Job) -> tuple[list[dict], int]:
    """Write what a job lacks; return its manifest rows and the number of portraits written."""
    folder, suffix = config.out / job.folder, f".{config.image_format}"
    person = sample_appearance(config.seed * SEED_STEP + job.person)
    if config.clips:
        motions = sample_clip_motions(config.seed, job.motion, config.frames, config.fps)
    else:
        motions = [sample_still_motion(config.seed, job.motion)]
    figure, rows, new = None, [], 0
    for stem, motion in zip(job.stems, motions, strict=True):
        row = {"file": f"{job.folder}/align_images/{stem}{suffix}", "person": job.person, "motion": job.motion}
        rows.append(row | {"appearance_seed": person.seed, "views": job.views} | _parameters(motion))
        rows[-1]["shape"] = _named(person.shape, open_head_extras().shape_names)
        rows[-1]["camera"] = plan_shot(person, motion).label_camera[0].tolist()
        if is_complete(folder, stem, suffix, job.views):
            continue
        figure = figure or build_figure(person, Detail.for_size(config.resolution))
        write_portrait(folder, f"{stem}{suffix}", figure, motion, config.resolution, job.views)
        new += 1
    return rows, new


def _parameters(motion: Motion) -> dict:
    values = {key: getattr(motion, key).tolist() for key in ("neck_rad", "jaw_rad", "gaze_rad", "camera_translation")}
    return values | {"expression": _named(motion.expression, open_head_extras().expression_names)}


def _named(values: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Return the coefficients that are not zero, by name; the other slots are zero."""
    return {name: float(value) for name, value in zip(names, values, strict=False) if value}


def _still_folder(number: int) -> str:
    return f"{number // PER_FOLDER:02d}000"
