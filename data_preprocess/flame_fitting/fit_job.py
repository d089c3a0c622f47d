"""Fit folders of pictures, or of clips: batch by batch, past bad items, results written atomically.

Single pictures: <data_dir>/2dldmks_align and 3dldmks_align; align_images and the heads to start from in <save_dir> or
else <data_dir>; written to <save_dir>/flame_optim_params. Clips: everything in <data_dir>/<clip>, written to
<save_dir>/<clip>/flame_optim_params. Source: flame-fitting.md §5-6.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_preprocess.flame_fitting.fitting_head import FittedParts, reduce_head
from data_preprocess.flame_fitting.observations import (
    START_FOLDERS,
    Observation,
    load_observation,
    stack_start,
    stack_targets,
)
from data_preprocess.flame_fitting.solver import Schedule, fit_head
from data_preprocess.flame_fitting.visuals import write_visuals
from data_preprocess.job_report import JobReport
from portrait4d.data.portrait_folder import (
    ALIGNED_IMAGES,
    FITTED_LABELS,
    LANDMARKS_98,
    PortraitFolder,
    PreparedPortrait,
)
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_fit import HeadFit, labels_of
from portrait4d.geometry.pose_solver import Beliefs, solve_pose
from portrait4d.ops.backend import pick_device
from portrait4d.training.head_choice import load_head


@dataclass(frozen=True)
class FitConfig:
    """Flags of the fitting scripts.

    Attributes:
        data_dir: pictures' landmarks, or a folder of clips.
        save_dir: where results go; None is data_dir.
        batch: pictures fitted together; of clips the number of frames, -1 for all.
        init: a key of START_FOLDERS.
        optimise_rotation: find the head's rotation from the landmarks first, and with init "neutral" its geometry.
        head: "flame" or "synthetic".
        device: "auto", "cpu" or "cuda".
        resume: keep results that are there.
        visualize: write preview pictures.
        steps: of both stages.
    """

    data_dir: Path
    save_dir: Path | None
    batch: int
    init: str = "bfm2flame"
    optimise_rotation: bool = False
    head: str = "flame"
    device: str = "auto"
    resume: bool = False
    visualize: bool = False
    steps: tuple[int, int] = (Schedule.placement_steps, Schedule.refinement_steps)

    @property
    def schedule(self) -> Schedule:
        """The schedule of these steps."""
        return Schedule(*self.steps)

    @property
    def output(self) -> Path:
        """The root of the results."""
        return self.data_dir if self.save_dir is None else self.save_dir


def fit_pictures(config: FitConfig) -> JobReport:
    """Fit every picture of a folder on its own, `config.batch` at a time.

    Raises:
        UserError: no pictures, no head model, or no such device.
    """
    roots = (config.output, config.data_dir)
    images = PortraitFolder(_first_with(roots, ALIGNED_IMAGES)).items()
    start_root = _first_with(roots, START_FOLDERS[config.init] or LANDMARKS_98)
    portraits = [PreparedPortrait(item.stem, item.image_path, config.data_dir) for item in images]
    job = _Job(config)
    pending = [portrait for portrait in portraits if not job.is_done(config.output, portrait)]
    job.report.skipped = len(portraits) - len(pending)
    batches = [pending[first : first + config.batch] for first in range(0, len(pending), config.batch)]
    with tqdm(total=len(batches) * config.schedule.steps, unit="step") as progress:
        for number, batch in enumerate(batches):
            progress.set_description(f"batch {number + 1} of {len(batches)}")
            job.fit(batch, start_root, config.output, progress, shared_shape=False)
    return job.report


def fit_clips(config: FitConfig) -> JobReport:
    """Fit the frames of each clip together, with one identity.

    Raises:
        UserError: no clips, no head model, or no such device.
    """
    job, clips = _Job(config), _list_clips(config)
    with tqdm(total=len(clips) * config.schedule.steps, unit="step") as progress:
        for number, clip in enumerate(clips):
            progress.set_description(f"clip {clip.name[:24]}")
            try:
                frames = PortraitFolder(clip).items()
            except InputFileError as error:
                job.report.fail(error)
                frames = []
            frames = frames if config.batch < 0 else frames[: config.batch]
            output = config.output / clip.name
            if all(job.is_done(output, frame) for frame in frames):
                job.report.skipped += len(frames)
            else:
                job.fit(frames, clip, output, progress, shared_shape=True)
            progress.update((number + 1) * config.schedule.steps - progress.n)
    return job.report


class _Job:
    def __init__(self, config: FitConfig) -> None:
        self.config = config
        self.report = JobReport()
        self.device = pick_device(config.device)
        self._head: tuple[HeadModel, FittedParts] | None = None

    @property
    def head(self) -> tuple[HeadModel, FittedParts]:
        """The head model and what fitting needs of it, loaded when first asked for."""
        if self._head is None:
            head = load_head(self.config.head).to(self.device)
            self._head = head, reduce_head(head)
        return self._head

    def is_done(self, output: Path, portrait: PreparedPortrait) -> bool:
        return self.config.resume and (output / FITTED_LABELS / f"{portrait.stem}.npy").is_file()

    def fit(
        self, portraits: list[PreparedPortrait], start_root: Path, output: Path, progress: tqdm, shared_shape: bool
    ) -> None:
        """Fit pictures together and write their labels; bad ones are left out and reported."""
        observations = self._load(portraits, start_root)
        if not observations:
            return
        start, targets = stack_start(observations, shared_shape, self.device), stack_targets(observations, self.device)
        _, parts = self.head
        if self.config.optimise_rotation:
            start = solve_pose(parts.landmarks, targets, start, Beliefs() if self.config.init == "neutral" else None)
        fit = fit_head(parts, targets, start, self.config.schedule, progress.update)
        self._save(observations, fit, output)

    def _load(self, portraits: list[PreparedPortrait], start_root: Path) -> list[Observation]:
        observations = []
        for portrait in portraits:
            try:
                observations.append(load_observation(portrait, self.config.init, start_root))
            except InputFileError as error:
                self.report.fail(error)
        return observations

    def _save(self, observations: list[Observation], fit: HeadFit, output: Path) -> None:
        labels = labels_of(fit).cpu()
        for observation, label in zip(observations, labels, strict=True):
            stem = observation.portrait.stem
            if not label.isfinite().all():
                self.report.fail(f"{observation.portrait.image_path}: the fit did not converge")
                continue
            with atomic_path(output / FITTED_LABELS / f"{stem}.npy") as temporary:
                np.save(temporary, label.numpy())
            self.report.written += 1
            if self.config.visualize:
                head, parts = self.head
                try:
                    write_visuals(output, observation, label.to(self.device), head, parts)
                except InputFileError as error:
                    self.report.fail(error)


def _first_with(roots: tuple[Path, ...], folder: str) -> Path:
    """Return the first root that holds `folder`, else the last."""
    return next((root for root in roots if (root / folder).is_dir()), roots[-1])


def _list_clips(config: FitConfig) -> list[Path]:
    needed = [LANDMARKS_98, *filter(None, [START_FOLDERS[config.init]])]
    if not config.data_dir.is_dir():
        raise InputFileError(config.data_dir, "no such folder", "give a folder of clips")
    clips = [path for path in sorted(config.data_dir.iterdir()) if all((path / folder).is_dir() for folder in needed)]
    if not clips:
        raise InputFileError(config.data_dir, f"no sub-folder with {' and '.join(needed)} in this folder")
    return clips
