"""Motion vectors of prepared portraits, by the PD-FGC encoder. Source: preprocess-motion.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data_preprocess.job_report import JobReport
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, MOTION_VECTORS, PortraitFolder, PreparedPortrait
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.files.read_ahead import map_in_order
from portrait4d.geometry.face_alignment import motion_crop
from portrait4d.inference.reenact import pick_device
from portrait4d.models.pretrained.motion_encoder import MotionEncoder, load_motion_encoder


@dataclass(frozen=True)
class MotionConfig:
    """What to encode.

    Attributes:
        input_dir: a prepared folder, or a folder with prepared ones somewhere below.
        save_dir: motion_feats is written here, below the same relative paths; None for `input_dir`.
        device: "auto", "cpu" or "cuda".
        batch: pictures at once.
        workers: threads that read.
        overwrite: do again what is there.
    """

    input_dir: Path
    save_dir: Path | None = None
    device: str = "auto"
    batch: int = 32
    workers: int = 2
    overwrite: bool = False


@dataclass(frozen=True)
class _Task:
    portrait: PreparedPortrait
    target: Path


def extract_motion(config: MotionConfig, encoder: MotionEncoder | None = None) -> JobReport:
    """Write a motion vector (548,) float32 for each portrait, go on past bad ones, and say which those were.

    Vectors that are there already are kept.

    Args:
        config: what to do.
        encoder: None loads the published one.

    Raises:
        UserError: nothing can be done at all: no portraits, no weights, no device, or a place that cannot be written.
    """
    report = JobReport()
    tasks = list(_plan(config, report))
    device = pick_device(config.device)
    encoder = (load_motion_encoder() if encoder is None else encoder).to(device)
    open_tasks = [task for task in tasks if config.overwrite or not task.target.is_file()]
    report.skipped = len(tasks) - len(open_tasks)
    try:
        with tqdm(total=len(open_tasks), unit="picture", smoothing=0.05) as progress:
            crops = map_in_order(_load_crop, open_tasks, config.workers, config.batch)
            pairs = zip(open_tasks, crops, strict=True)
            while batch := list(islice(pairs, config.batch)):
                _encode(encoder, batch, report)
                progress.update(len(batch))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror or error})") from error
    return report


def _plan(config: MotionConfig, report: JobReport) -> Iterator[_Task]:
    roots = sorted(path.parent for path in config.input_dir.rglob(ALIGNED_IMAGES) if path.is_dir())
    for root in roots or [config.input_dir]:
        try:
            portraits = PortraitFolder(root).items()
        except InputFileError as error:
            if not roots:
                raise
            report.fail(error)
            continue
        output = (config.save_dir or config.input_dir) / root.relative_to(config.input_dir) / MOTION_VECTORS
        yield from (_Task(portrait, output / f"{portrait.stem}.npy") for portrait in portraits)


def _load_crop(task: _Task) -> Tensor | UserError:
    try:
        image, landmarks = task.portrait.load_image(), task.portrait.load_landmarks68()
    except UserError as error:
        return error
    return motion_crop(image[None], torch.from_numpy(landmarks)[None])[0][0]


@torch.no_grad()
def _encode(encoder: MotionEncoder, batch: list[tuple[_Task, Tensor | UserError]], report: JobReport) -> None:
    usable = []
    for task, crop in batch:
        if isinstance(crop, UserError):
            report.fail(crop)
        else:
            usable.append((task, crop))
    if not usable:
        return
    crops = torch.stack([crop for _, crop in usable]).to(next(encoder.parameters()).device)
    for (task, _), motion in zip(usable, encoder(crops).vector.cpu().numpy(), strict=True):
        with atomic_path(task.target) as temporary:
            np.save(temporary, motion)
        report.written += 1
