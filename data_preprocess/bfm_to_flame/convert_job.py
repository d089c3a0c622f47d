"""Convert folders of Basel Face Model coefficients: file by file, past bad ones, results written atomically."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data_preprocess.bfm_model import load_bfm
from data_preprocess.bfm_to_flame.bfm_files import BfmShape, list_coefficient_files, load_coefficients
from data_preprocess.bfm_to_flame.flame_files import FLAME_PARAMS, save_flame_shape
from data_preprocess.bfm_to_flame.mesh_transfer import MeshTransfer, load_correspondence
from data_preprocess.bfm_to_flame.parameter_mapper import load_parameter_mapper, simplified_labels, unmapped_head
from data_preprocess.job_report import JobReport
from portrait4d.data.portrait_folder import SIMPLIFIED_LABELS
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError
from portrait4d.training.head_choice import load_head


@dataclass(frozen=True)
class SimplifiedConfig:
    """Flags of bfm2flame_simplified.py: folders, whether to map, faces at once, whether to keep what is there."""

    input_dir: Path
    save_dir: Path
    use_mapper: bool = True
    batch: int = 256
    resume: bool = False


@dataclass(frozen=True)
class MeshConfig:
    """Flags of run_convert.py: folders, head model, processes, files handed to one at a time, whether to resume."""

    input_dir: Path
    save_dir: Path
    head: str = "flame"
    processes: int = 1
    files_at_once: int = 1
    resume: bool = False


def run_simplified(config: SimplifiedConfig) -> JobReport:
    """Write `bfm2flame_params_simplified` labels of all coefficients.

    Raises:
        UserError: no coefficients, or no mapper.
    """
    report = JobReport()
    paths = _pending(config.input_dir, config.save_dir / SIMPLIFIED_LABELS, config.resume, report)
    mapper = load_parameter_mapper() if config.use_mapper and paths else None
    with tqdm(total=len(paths), unit="face") as progress:
        for first in range(0, len(paths), config.batch):
            faces = _load_faces(paths[first : first + config.batch], report)
            if faces:
                identity, expression, angle = (
                    np.stack([getattr(face, name) for face in faces.values()])
                    for name in ("identity", "expression", "angle_rad")
                )
                head = unmapped_head(len(faces))
                if mapper is not None:
                    head = mapper(torch.from_numpy(identity), torch.from_numpy(expression))
                for path, label in zip(faces, simplified_labels(head, angle).numpy(), strict=True):
                    with atomic_path(config.save_dir / SIMPLIFIED_LABELS / path.name) as temporary:
                        np.save(temporary, label)
            report.written += len(faces)
            progress.update(len(paths[first : first + config.batch]))
    return report


def run_mesh_transfer(config: MeshConfig) -> JobReport:
    """Write `bfm2flame_params` of all coefficients.

    Raises:
        UserError: no coefficients, or a model or table that is missing or damaged.
    """
    report = JobReport()
    paths = _pending(config.input_dir, config.save_dir / FLAME_PARAMS, config.resume, report)
    if not paths:
        return report
    transfer = load_transfer(config.head)  # also to say what is missing once, before processes start
    with tqdm(total=len(paths), unit="face") as progress:
        for problem in _convert_all(config, transfer, paths):
            if problem is None:
                report.written += 1
            else:
                report.fail(problem)
            progress.update()
    return report


def load_transfer(head: str) -> MeshTransfer:
    """Load the Basel model, the head model and the correspondence between them.

    Raises:
        AssetMissingError, InputFileError: one of them is missing or damaged.
    """
    bfm = load_bfm()
    return MeshTransfer(bfm, load_head(head), load_correspondence(bfm))


def convert_file(transfer: MeshTransfer, save_dir: Path, path: Path) -> str | None:
    """Convert one file; return what was wrong with it, or None."""
    try:
        save_flame_shape(save_dir / FLAME_PARAMS / path.name, transfer.fit(load_coefficients(path)))
    except InputFileError as error:
        return str(error)
    return None


def _convert_all(config: MeshConfig, transfer: MeshTransfer, paths: list[Path]) -> Iterator[str | None]:
    processes = min(config.processes, len(paths), os.cpu_count() or 1)
    if processes == 1:
        yield from map(partial(convert_file, transfer, config.save_dir), paths)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start_worker, (config.head,)) as pool:
        yield from pool.map(partial(_convert_in_worker, config.save_dir), paths, chunksize=config.files_at_once)


_worker: dict[str, MeshTransfer] = {}


def _start_worker(head: str) -> None:
    torch.set_num_threads(1)
    _worker["transfer"] = load_transfer(head)


def _convert_in_worker(save_dir: Path, path: Path) -> str | None:
    return convert_file(_worker["transfer"], save_dir, path)


def _pending(input_dir: Path, target: Path, resume: bool, report: JobReport) -> list[Path]:
    """List the files to convert, leaving out those with a result if `resume`."""
    paths = list_coefficient_files(input_dir)
    pending = [path for path in paths if not (resume and (target / path.name).is_file())]
    report.skipped = len(paths) - len(pending)
    return pending


def _load_faces(paths: list[Path], report: JobReport) -> dict[Path, BfmShape]:
    faces = {}
    for path in paths:
        try:
            faces[path] = load_coefficients(path)
        except InputFileError as error:
            report.fail(error)
    return faces
