"""The pipeline on many machines with Ray: workers hold the networks, and whoever is free gets the next item.

An item is a clip whose face is followed, a film, or some pictures of a folder. The machines share the file system:
workers read and write the same paths as `pipeline` does alone. Since results are written atomically and kept, an item
whose worker died is simply given out again.
"""

import logging
import os
import re
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import ModuleType
from typing import Any

import torch
from tqdm import tqdm

from data_preprocess.extras import import_extra
from data_preprocess.face_networks import FaceNetworks, load_face_networks
from data_preprocess.job_report import JobReport
from data_preprocess.media import Clip, Media
from data_preprocess.pipeline import (
    PreprocessConfig,
    explain_errors,
    plan_preprocessing,
    prepare_clips,
    remove_all_unfinished,
    say_what_is_left_out,
)
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.ops.backend import pick_device

LOCAL = "local"
"""Stands for the address of a Ray that is started on this machine, and ends with the job."""

BATCHES_PER_ITEM = 8
RETRIES = 2
"""How often an item, or loading the networks, is tried again when the worker dies."""

_CONNECT_TIMEOUT_S = 20.0
_THREADS = 2
"""Of a worker that read, and as many that write."""

Load = Callable[[torch.device], FaceNetworks]


class FaceWorker:
    """What runs in a process of its own: the networks, and the pipeline for one item at a time.

    Problems that end the job come back as values: exceptions would lose their text on the way.

    Args:
        config: of the job, with absolute paths.
        load: loads the networks.
    """

    def __init__(self, config: PreprocessConfig, load: Load) -> None:
        self.config = config
        self.load = load

    @cached_property
    def networks(self) -> FaceNetworks:
        """The networks, loaded when first asked for."""
        return self.load(pick_device(self.config.device))

    def start(self) -> bool | UserError:
        """Load the networks and tell whether they draw faces."""
        try:
            return self.networks.draw is not None
        except UserError as error:
            return UserError(str(error))

    def prepare(self, clip: Clip) -> JobReport | UserError:
        """Prepare an item."""
        report = JobReport()
        try:
            with explain_errors(self.config), closing(prepare_clips(self.config, self.networks, [clip])) as results:
                for result in results:
                    report.add_item(len(result.faces), result.problems)
        except UserError as error:
            return UserError(str(error))
        return report


def run_on_ray(config: PreprocessConfig, address: str = LOCAL) -> JobReport:
    """Do what `pipeline.run_preprocessing` does with `config.workers` Ray workers.

    Results of an item whose worker died count as there already when it is done again.

    Args:
        config: what to do.
        address: of a Ray cluster, "auto" for the one that this machine belongs to, or `LOCAL`.

    Raises:
        UserError: Ray is not installed or not there, or nothing can be done at all, as on one machine.
    """
    if config.workers < 1:
        raise UserError(f"--workers: --ray needs at least one, got {config.workers}")
    ray = import_extra("ray", "--ray")
    count = config.workers
    places = {"input_dir": config.input_dir.absolute(), "save_dir": config.save_dir.absolute()}
    config = replace(config, workers=_THREADS, **places)
    media = plan_preprocessing(config)
    load = partial(load_face_networks, accept_unverified=config.accept_unverified)
    with _connected(ray, address, count):
        kind = ray.remote(num_cpus=1, num_gpus=_gpus(ray, config.device), max_restarts=-1, max_task_retries=RETRIES)
        workers = [kind(FaceWorker).remote(config, load) for _ in range(count)]
        report = _Dispatch(ray, config, media).run(workers)
    with explain_errors(config):
        remove_all_unfinished(media)
    return report


@dataclass
class _Dispatch:
    """Give items to workers, one at a time, until all are done."""

    ray: ModuleType
    config: PreprocessConfig
    media: Media

    def __post_init__(self) -> None:
        self.items = deque(_list_items(self.config, self.media))
        self.last_death = ""

    def run(self, workers: list[Any]) -> JobReport:
        report, announced = JobReport(), False
        running = {worker.start.remote(): (worker, None) for worker in workers}
        with tqdm(total=self.media.frames, unit="picture", smoothing=0.05) as progress:
            while self.items or any(item for _, item in running.values()):
                if not running:
                    raise UserError(f"--ray: no worker could load the networks ({self.last_death})")
                done = self.ray.wait(list(running), num_returns=1)[0][0]
                worker, item = running.pop(done)
                outcome = self._result(done)
                if item is not None:
                    progress.update(self._note(item, outcome, report))
                elif outcome is None:
                    continue
                elif not announced:
                    say_what_is_left_out(self.media, outcome, report)
                    announced = True
                if self.items:
                    following = self.items.popleft()
                    running[worker.prepare.remote(following)] = worker, following
        if not announced:
            say_what_is_left_out(self.media, True, report)
        return report

    def _result(self, done: Any) -> JobReport | bool | None:
        """Return what a worker says, None if it died of it."""
        try:
            result = self.ray.get(done)
        except self.ray.exceptions.RayTaskError:
            raise
        except self.ray.exceptions.RayError as error:
            self.last_death = " ".join(str(error).split())
            return None
        if isinstance(result, UserError):
            raise result
        return result

    def _note(self, item: Clip, part: JobReport | None, report: JobReport) -> int:
        """Note what became of an item, and return how many pictures are done with; deadly ones are tried singly."""
        if part is None and item.frames != 1 and not (item.is_film or self.config.follows(item)):
            self.items.extend(item.split(1))
            return 0
        if part is None:
            path = item.pictures[0] if item.frames == 1 and item.pictures else item.source
            report.fail(InputFileError(path, f"{RETRIES + 1} workers died of it"))
        else:
            report.merge(part)
        return item.frames or 0


def _list_items(config: PreprocessConfig, media: Media) -> Iterator[Clip]:
    for clip in media.clips:
        if config.follows(clip):
            yield clip
        else:
            yield from clip.split(BATCHES_PER_ITEM * config.batch)


@contextmanager
def _connected(ray: ModuleType, address: str, workers: int) -> Iterator[None]:
    """Connect to a cluster or start a Ray here; leave it at the end."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # report nothing to Ray's makers
        options |= {"num_cpus": workers, "include_dashboard": False}
    try:
        _require_listener(address)
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(f"--ray {address}: no Ray answers there ({' '.join(str(error).split())})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise an `OSError` if nothing listens at HOST:PORT, for which Ray itself would wait without end."""
    place = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if place:
        socket.create_connection((place[1], int(place[2])), _CONNECT_TIMEOUT_S).close()


def _gpus(ray: ModuleType, device: str) -> int:
    """Return how many GPUs a worker needs: one, if there are any and the device is not the CPU."""
    some = ray.cluster_resources().get("GPU", 0) >= 1
    if device == "cuda" and not some:
        raise UserError("--device cuda: the Ray cluster has no GPU; use --device cpu")
    return int(some and device != "cpu")
