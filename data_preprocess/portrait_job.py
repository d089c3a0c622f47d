"""A job over the portraits of prepared folders: a file for each, read ahead, in batches, past bad ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from data_preprocess.job_report import JobReport
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, PortraitFolder, PreparedPortrait
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.files.read_ahead import map_in_order

T = TypeVar("T")


@dataclass(frozen=True)
class PortraitJobConfig:
    """Which portraits, and how.

    Attributes:
        input_dir: a prepared folder, or a folder with prepared ones somewhere below.
        save_dir: results are written here, below the same relative paths; None for `input_dir`.
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
class PortraitTask:
    """A portrait, and the file to make of it."""

    portrait: PreparedPortrait
    target: Path


def plan_tasks(
    config: PortraitJobConfig, name_target: Callable[[PreparedPortrait], Path], report: JobReport
) -> list[PortraitTask]:
    """List what is left to do; count what is there already, and note folders that cannot be used.

    Args:
        config: which portraits.
        name_target: the path of a portrait's result in its prepared folder.
        report: for the counts and notes.

    Raises:
        InputFileError: there is no prepared folder at all.
    """
    tasks = list(_list_tasks(config, name_target, report))
    pending = [task for task in tasks if config.overwrite or not task.target.is_file()]
    report.skipped += len(tasks) - len(pending)
    return pending


def run_tasks(
    config: PortraitJobConfig,
    tasks: list[PortraitTask],
    load: Callable[[PreparedPortrait], T],
    write: Callable[[list[PortraitTask], list[T]], None],
    report: JobReport,
) -> None:
    """Load portraits in threads and write their results in batches.

    Args:
        config: batch and threads.
        tasks: what to do.
        load: called in threads; a `UserError` of it is noted, and the portrait left out.
        write: writes the results of a batch, and counts them.
        report: for the notes.

    Raises:
        UserError: a place that cannot be written.
    """

    def try_load(task: PortraitTask) -> T | UserError:
        try:
            return load(task.portrait)
        except UserError as error:
            return error

    try:
        with tqdm(total=len(tasks), unit="picture", smoothing=0.05) as progress:
            pairs = zip(tasks, map_in_order(try_load, tasks, config.workers, config.batch), strict=True)
            while batch := list(islice(pairs, config.batch)):
                for _, loaded in batch:
                    if isinstance(loaded, UserError):
                        report.fail(loaded)
                usable = [pair for pair in batch if not isinstance(pair[1], UserError)]
                if usable:
                    write(*map(list, zip(*usable, strict=True)))
                progress.update(len(batch))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror or error})") from error


def _list_tasks(
    config: PortraitJobConfig, name_target: Callable[[PreparedPortrait], Path], report: JobReport
) -> Iterator[PortraitTask]:
    roots = sorted(path.parent for path in config.input_dir.rglob(ALIGNED_IMAGES) if path.is_dir())
    for root in roots or [config.input_dir]:
        try:
            portraits = PortraitFolder(root).items()
        except InputFileError as error:
            if not roots:
                raise
            report.fail(error)
            continue
        output = (config.save_dir or config.input_dir) / root.relative_to(config.input_dir)
        yield from (PortraitTask(portrait, output / name_target(portrait)) for portrait in portraits)
