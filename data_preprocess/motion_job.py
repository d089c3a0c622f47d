"""Motion vectors of prepared portraits, by the PD-FGC encoder or ours of the open head world.

Source: preprocess-motion.md.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data_preprocess.job_report import JobReport
from data_preprocess.portrait_job import PortraitJobConfig, PortraitTask, plan_tasks, run_tasks
from portrait4d.data.portrait_folder import MOTION_VECTORS, PreparedPortrait
from portrait4d.files.atomic import atomic_path
from portrait4d.geometry.face_alignment import motion_crop
from portrait4d.models.checkpoints import load_compact_motion_encoder
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.models.pretrained.motion_encoder import MotionEncoder, load_motion_encoder
from portrait4d.ops.backend import pick_device


@dataclass(frozen=True)
class MotionConfig(PortraitJobConfig):
    """Which portraits, and how; `encoder`: the published one, or ours that reads the open head world."""

    encoder: Literal["pdfgc", "synthetic"] = "pdfgc"


def extract_motion(config: MotionConfig, encoder: MotionEncoder | CompactMotionEncoder | None = None) -> JobReport:
    """Write a motion vector (548,) float32 for each portrait, go on past bad ones, and say which those were.

    Vectors that are there already are kept.

    Args:
        config: what to do.
        encoder: of the kind that `config` names; None loads it.

    Raises:
        UserError: nothing can be done at all: no portraits, no weights, no device, or a place that cannot be written.
    """
    report = JobReport()
    tasks = plan_tasks(config, lambda portrait: Path(MOTION_VECTORS, f"{portrait.stem}.npy"), report)
    device = pick_device(config.device)
    is_synthetic = config.encoder == "synthetic"
    if encoder is None:
        encoder = load_compact_motion_encoder() if is_synthetic else load_motion_encoder()
    encoder.to(device)

    def load(portrait: PreparedPortrait) -> Tensor:
        image, landmarks = portrait.load_image()[None], torch.from_numpy(portrait.load_landmarks68())[None]
        return (encoder.crop(image, landmarks) if is_synthetic else motion_crop(image, landmarks)[0])[0]

    @torch.no_grad()
    def write(batch: list[PortraitTask], crops: list[Tensor]) -> None:
        found = encoder(torch.stack(crops).to(device))
        motions = (found @ encoder.projection if is_synthetic else found.vector).cpu().numpy()
        for task, motion in zip(batch, motions, strict=True):
            with atomic_path(task.target) as temporary:
                np.save(temporary, motion)
            report.written += 1

    run_tasks(config, tasks, load, write, report)
    return report
