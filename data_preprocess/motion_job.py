"""Motion vectors of prepared portraits, by the PD-FGC encoder. Source: preprocess-motion.md."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_preprocess.job_report import JobReport
from data_preprocess.portrait_job import PortraitJobConfig, PortraitTask, plan_tasks, run_tasks
from portrait4d.data.portrait_folder import MOTION_VECTORS, PreparedPortrait
from portrait4d.files.atomic import atomic_path
from portrait4d.geometry.face_alignment import motion_crop
from portrait4d.models.pretrained.motion_encoder import MotionEncoder, load_motion_encoder
from portrait4d.ops.backend import pick_device

MotionConfig = PortraitJobConfig


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
    tasks = plan_tasks(config, lambda portrait: Path(MOTION_VECTORS, f"{portrait.stem}.npy"), report)
    device = pick_device(config.device)
    encoder = (load_motion_encoder() if encoder is None else encoder).to(device)

    @torch.no_grad()
    def write(batch: list[PortraitTask], crops: list[Tensor]) -> None:
        motions = encoder(torch.stack(crops).to(device)).vector.cpu().numpy()
        for task, motion in zip(batch, motions, strict=True):
            with atomic_path(task.target) as temporary:
                np.save(temporary, motion)
            report.written += 1

    run_tasks(config, tasks, _load_crop, write, report)
    return report


def _load_crop(portrait: PreparedPortrait) -> Tensor:
    image, landmarks = portrait.load_image(), portrait.load_landmarks68()
    return motion_crop(image[None], torch.from_numpy(landmarks)[None])[0][0]
