"""Masks of prepared portraits by face parsing, as the datasets read them: `segs/NAME`, head 255, background 0.

Source: datasets.md §1.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from data_preprocess.face_parsing import FaceParser, ParserInput, choose_head_labels, load_face_parser, read_licence
from data_preprocess.job_report import JobReport
from data_preprocess.media import WRITABLE_SUFFIXES
from data_preprocess.portrait_job import PortraitJobConfig, PortraitTask, plan_tasks, run_tasks
from portrait4d.data.image_io import save_image
from portrait4d.data.portrait_folder import SEGMENTATIONS, PreparedPortrait
from portrait4d.files.errors import InputFileError
from portrait4d.ops.backend import pick_device


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(PortraitJobConfig):
    """Which portraits, and how they are parsed.

    Attributes:
        checkpoint: see `face_parsing.load_face_parser`.
        head_labels, background_labels: see `face_parsing.choose_head_labels`.
        download: fetch the checkpoint if it is not on this machine.
    """

    checkpoint: str
    head_labels: tuple[str, ...] | None = None
    background_labels: tuple[str, ...] = ("background",)
    download: bool = False


def segment_faces(config: SegmentationConfig, parser: FaceParser | None = None) -> JobReport:
    """Write a mask for each portrait, go on past bad ones, and say which those were.

    A mask has the size and the file name of its picture; three equal channels, 255 where the head is, 0 elsewhere.
    Masks that are there already are kept.

    Args:
        config: what to do.
        parser: None loads the checkpoint, after its licence has been shown.

    Raises:
        UserError: nothing can be done at all: no portraits, no network, no such labels, no device, or a place that
            cannot be written.
    """
    report = JobReport()
    tasks = plan_tasks(config, lambda portrait: Path(SEGMENTATIONS, portrait.image_path.name), report)
    if parser is None:
        device = pick_device(config.device)
        tqdm.write(f"{config.checkpoint}: {read_licence(config.checkpoint, config.download)}")
        parser = load_face_parser(config.checkpoint, device, config.download)
    head = torch.tensor(sorted(choose_head_labels(parser.labels, config.head_labels, config.background_labels)))

    def load(portrait: PreparedPortrait) -> ParserInput:
        if portrait.image_path.suffix.lower() not in WRITABLE_SUFFIXES:
            known = ", ".join(WRITABLE_SUFFIXES)
            raise InputFileError(portrait.image_path, f"masks are written for pictures {known} only", "convert it")
        return parser.prepare(portrait.load_image())

    def write(batch: list[PortraitTask], inputs: list[ParserInput]) -> None:
        for task, labels in zip(batch, parser.label_pixels(inputs), strict=True):
            inside = torch.isin(labels, head)
            if not inside.any():
                report.fail(InputFileError(task.portrait.image_path, "no head in it, says the network"))
                continue
            save_image(task.target, (inside.float() * 2 - 1).expand(3, -1, -1), quality=100)
            report.written += 1

    run_tasks(config, tasks, load, write, report)
    return report
