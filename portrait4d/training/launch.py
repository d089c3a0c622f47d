"""From a configuration to a running training: run directory, processes, and where to go on.

Run directories are <outdir>/NNNNN-<name>; the newest of a name is gone on with by the same command. Under torchrun
the processes are there already; otherwise they are spawned here.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.multiprocessing
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from portrait4d.config.landmark_training import LandmarkTraining
from portrait4d.config.load import config_from_dict, plain_config
from portrait4d.config.motion_training import MotionEncoderTraining
from portrait4d.config.recon_training import ReconV1Training, ReconV2Training
from portrait4d.config.training import FREE_KEYS, GenHeadTraining
from portrait4d.data.unfinished_folder import lock_folder
from portrait4d.files.atomic import write_text
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.training.distributed import Ranks, joined_ranks
from portrait4d.training.loop import train
from portrait4d.training.run_log import RunLog
from portrait4d.training.run_state import RunState
from portrait4d.training.snapshots import Snapshots, newest_state
from portrait4d.training.starting_weights import load_starting_weights
from portrait4d.training.stop_signal import pass_signals_on
from portrait4d.training.tasks import Task

OPTIONS = "training_options.json"
TrainingConfig = GenHeadTraining | LandmarkTraining | MotionEncoderTraining | ReconV1Training | ReconV2Training
BuildTask = Callable[[TrainingConfig, Ranks], Task]


@dataclass(frozen=True)
class Launch:
    """A training to be started.

    Attributes:
        config: resolved.
        build: makes its task in every process; a module-level function.
        name: of the run directory, behind its number.
        outdir: parent of run directories.
        resume: "auto" (go on with the newest run of that name), "new", or a run directory.
        verbose: show progress on the terminal.
    """

    config: TrainingConfig
    build: BuildTask
    name: str
    outdir: Path
    resume: str = "auto"
    verbose: bool = True


def launch(job: Launch) -> Path:
    """Train, and return the run directory.

    Raises:
        UserError: naming what the user can put right: data, disk, device, a changed configuration.
    """
    run = job.config.run
    device = pick_device_type(run.device)
    if "WORLD_SIZE" in os.environ:
        return _launch_under_torchrun(job, device)
    folder = choose_run_folder(job)
    with _claim(job, folder):
        if run.gpus == 1:
            with joined_ranks(0, 1, device, "") as ranks:
                _train_rank(job, folder, ranks)
        else:
            _spawn(job, folder, device)
    return folder


def pick_device_type(wanted: str) -> str:
    """Return "cuda" or "cpu".

    Raises:
        UserError: a GPU is wanted and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device: no CUDA device is there; use auto or cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def choose_run_folder(job: Launch) -> Path:
    """Return the directory to train in; a new one is not made yet.

    Raises:
        UserError: if the run that would be gone on with has another configuration.
        InputFileError: `resume` names no run directory.
    """
    if job.resume not in ("auto", "new"):
        folder = Path(job.resume)
        if not (folder / OPTIONS).is_file():
            raise InputFileError(folder, f"is no run directory (it has no {OPTIONS})", "give one, or auto, or new")
        _require_same_config(folder, job.config)
        return folder
    numbered = _numbered_runs(job.outdir)
    same_name = [folder for _, name, folder in numbered if name == job.name]
    if job.resume == "auto" and same_name:
        _require_same_config(same_name[-1], job.config)
        return same_name[-1]
    number = numbered[-1][0] + 1 if numbered else 0
    return job.outdir / f"{number:05d}-{job.name}"


def load_run_config(kind: type[TrainingConfig], folder: Path) -> TrainingConfig:
    """Read the configuration of a run directory.

    Raises:
        InputFileError: it is missing or does not fit this version.
    """
    return _read_options(kind, folder, "use the release that wrote it")


def _read_options(kind: type[TrainingConfig], folder: Path, remedy: str) -> TrainingConfig:
    """Read a run's options; those that are newer than the run have their defaults."""
    path = folder / OPTIONS
    try:
        return config_from_dict(kind, json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise InputFileError(path, f"no readable options ({error})", remedy) from None


def describe_run(cfg: Path, config: TrainingConfig, desc: str | None) -> str:
    """Return the name of a run: <configuration>-batch<B>[-<desc>]."""
    return f"{cfg.stem}-batch{config.run.batch}" + (f"-{desc}" if desc else "")


def _numbered_runs(outdir: Path) -> list[tuple[int, str, Path]]:
    """Return number, name and directory of all runs, ascending."""
    if not outdir.is_dir():
        return []
    matches = ((re.fullmatch(r"(\d+)-(.*)", path.name), path) for path in outdir.iterdir() if path.is_dir())
    return sorted((int(match[1]), match[2], path) for match, path in matches if match)


@contextmanager
def _claim(job: Launch, folder: Path) -> Iterator[None]:
    """Keep other processes out of a run directory; note the options there, clear away what a killed run half wrote."""
    with lock_folder(folder):
        for left in folder.glob(".tmp-*"):
            left.unlink()
        write_text(folder / OPTIONS, json.dumps(plain_config(job.config), indent=2) + "\n")
        yield


def _require_same_config(folder: Path, config: TrainingConfig) -> None:
    """Check that a run may go on with a configuration; before its first state any will do."""
    if newest_state(folder) is None:
        return
    there = _read_options(type(config), folder, "give --resume new to start afresh")
    stored, present = (_flatten(plain_config(one)) for one in (there, config))
    keys = sorted(key for key in present if stored[key] != present[key])
    changed = [f"{key}: {stored[key]} there, {present[key]} now" for key in keys if key not in FREE_KEYS]
    if changed:
        raise UserError(
            f"{folder}: the run there has another configuration ({'; '.join(changed[:3])}); "
            "repeat its options to go on, or give --resume new or another --desc to start afresh"
        )


def _flatten(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _spawn(job: Launch, folder: Path, device: str) -> None:
    """Run all ranks as processes of this machine; what a user can put right comes back as text."""
    count = job.config.run.gpus
    if device == "cuda" and count > torch.cuda.device_count():
        raise UserError(f"run.gpus: {count} wanted, {torch.cuda.device_count()} are there")
    with tempfile.TemporaryDirectory() as meeting:
        context = torch.multiprocessing.spawn(_spawned_rank, (job, folder, device, Path(meeting)), count, join=False)
        try:
            with pass_signals_on(context.pids()[0]):
                while not context.join():
                    pass
        except (ProcessExitedException, ProcessRaisedException):
            problems = sorted(Path(meeting).glob("problem-*"))
            if not problems:
                raise
            raise UserError(problems[0].read_text()) from None  # the other ranks only missed that one


def _spawned_rank(rank: int, job: Launch, folder: Path, device: str, meeting: Path) -> None:
    if device == "cpu":
        share = max(1, (os.cpu_count() or 1) // job.config.run.gpus)
        torch.set_num_threads(min(share, torch.get_num_threads()))
    with joined_ranks(rank, job.config.run.gpus, device, f"file://{meeting}/meeting") as ranks:
        try:
            _train_rank(job, folder, ranks)
        except UserError as error:  # noted before leaving, which makes the other ranks fail
            write_text(meeting / f"problem-{rank}", str(error))
            raise SystemExit(1) from None


def _launch_under_torchrun(job: Launch, device: str) -> Path:
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if count != job.config.run.gpus:
        raise UserError(f"run.gpus: expected {count}, as torchrun started, got {job.config.run.gpus}")
    with joined_ranks(rank, count, device, "env://") as ranks:
        chosen = [choose_run_folder(job) if ranks.is_first else None]
        with _claim(job, chosen[0]) if ranks.is_first else nullcontext():
            if count > 1:
                torch.distributed.broadcast_object_list(chosen, 0)
            _train_rank(job, chosen[0], ranks)
    return chosen[0]


def _train_rank(job: Launch, folder: Path, ranks: Ranks) -> None:
    """Train as one process."""
    torch.set_float32_matmul_precision("highest")  # geometry, such as a head's vertices, is never rounded to TF32
    torch.backends.cudnn.allow_tf32 = job.config.optim.tf32
    torch.manual_seed(job.config.run.seed)  # initial weights, the same in all processes
    log, snapshots = RunLog(folder, ranks, job.verbose), Snapshots(folder)
    task = job.build(job.config, ranks)
    state = RunState(images_seen=round(job.config.start.kimg * 1000))
    state.tick_start = state.images_seen
    try:
        snapshots.require_space(task)
        if newest_state(folder) is not None:
            snapshots.load_state(task, state)
            log.line(f"going on at {state.images_seen} images")
        elif job.config.start.weights is not None:
            for line in load_starting_weights(job.config.start.weights, task):
                log.line(line)
        ranks.broadcast([*task.networks.values(), task.average])
        log.resume(state.tick)
        train(task, state, log, snapshots)
    finally:
        task.close()
        log.close()
