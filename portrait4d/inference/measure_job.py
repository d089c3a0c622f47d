"""Measuring: real and fake pictures to metrics, in one process or several, with stored statistics of the reals.

Each metric gives one line of JSON. It is appended to the file of `--out`; without that, to `metric-<name>.jsonl` beside
the network if that lies in a run directory (one with the options of its training). Source: metrics.md section 6.
"""

import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from portrait4d import __version__
from portrait4d.config.measuring import MeasureConfig
from portrait4d.files.append import append_line
from portrait4d.files.errors import InputFileError, OutputFileError, UserError, explain_write_errors
from portrait4d.files.home import expand_home
from portrait4d.geometry.mirroring import HeadMirror
from portrait4d.inference.fake_heads import FakeHeads, share_size
from portrait4d.metrics.evaluate import (
    Metric,
    NumberedImages,
    SetStatistics,
    collect_statistics,
    compute_metric,
    join_captures,
    parse_metric,
)
from portrait4d.metrics.feature_statistics import Capture, FeatureStatistics, merge_statistics
from portrait4d.metrics.image_sets import ImageSet, load_batches, open_image_set
from portrait4d.models.pretrained.detectors import load_detector, require_fitting
from portrait4d.ops.backend import exact_convolutions, pick_device

RUN_FILES = ("training_options.json", "config.yaml", "config.json")
"""A directory with one of these is a training run."""


@dataclass(frozen=True)
class Part:
    """A set to collect.

    Attributes:
        is_fake: fakes, or reals.
        limit: the first so many pictures; None for all.
        mirror: with mirrored copies.
        half: 0 or 1: a random half of the reals (of the mirrored ones too, if there are any); None for all.
    """

    is_fake: bool
    limit: int | None
    mirror: bool = False
    half: int | None = None


@dataclass(frozen=True)
class Need:
    """What metrics need to know of a part."""

    capture: Capture
    classes: bool = False


def run_measurement(config: MeasureConfig) -> Iterator[dict]:
    """Compute every metric and yield its line, already appended to its file.

    Raises:
        UserError: an unknown metric, no labels for the network's heads, an unusable detector, network or data, or a
            file that cannot be written: noticed before anything is measured.
    """
    try:
        metrics = [parse_metric(name) for name in dict.fromkeys(config.metrics)]
    except ValueError as error:
        raise UserError(f"--metrics: {error}") from None
    if not metrics:
        return
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(config.gpus, context)) if config.gpus > 1 else None
        job = _Job(config, metrics, pool)
        for path in filter(None, (result_path(config, metric.name) for metric in metrics)):
            _require_writable(path)
        for metric in metrics:
            line = job.measure(metric)
            path = result_path(config, metric.name)
            if path is not None:
                _append(path, json.dumps(line))
            yield line


def result_path(config: MeasureConfig, metric: str) -> Path | None:
    """Return the file to which a metric's line is appended, None for none."""
    if config.out is not None:
        return config.out
    is_run = config.fakes is None and any((config.network.parent / name).is_file() for name in RUN_FILES)
    return config.network.parent / f"metric-{metric}.jsonl" if is_run else None


def _require_writable(path: Path) -> None:
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()


def _append(path: Path, line: str) -> None:
    try:
        append_line(path, line)
    except OutputFileError as error:
        raise UserError(f"{error}; this is missing in it: {line}") from error


def format_duration(seconds: float) -> str:
    """Return a duration in words, such as "5s", "1m 05s", "1h 02m 03s", "1d 02h 03m"."""
    total = round(seconds)
    minutes, hours, days = total // 60 % 60, total // 3600 % 24, total // 86400
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{minutes}m {total % 60:02d}s"
    return f"{hours}h {minutes:02d}m {total % 60:02d}s" if not days else f"{days}d {hours:02d}h {minutes:02d}m"


class _Job:
    def __init__(self, config: MeasureConfig, metrics: Sequence[Metric], pool: ProcessPoolExecutor | None) -> None:
        self.config = config
        self.pool = pool
        self.device = pick_device(config.device)
        detector = load_detector(config.detector, self.device, config.accept_unverified)
        self.detector = detector.identity
        self.reals = open_image_set(config.data)
        sets = [self.reals]
        if config.fakes is not None:
            sets.append(open_image_set(config.fakes))
        elif not config.network.is_file():
            raise InputFileError(config.network, "no such file", "give --network a .safetensors or .pkl, or --fakes")
        elif not self.reals.has_labels:
            problem = "pictures without labels, which the network's heads need"
            raise InputFileError(config.data, problem, "give a database or a prepared folder, or --fakes")
        self.needs: dict[Part, Need] = {}
        for metric in metrics:
            for part in self._parts(metric):
                known = self.needs.get(part, Need(metric.capture))
                classes = known.classes or (part.is_fake and metric.kind == "is")
                self.needs[part] = Need(join_captures([known.capture, metric.capture]), classes)
        with_classes = any(need.classes for need in self.needs.values())
        for images in sets:
            require_fitting(detector, images.load(0).to(self.device), images.path, with_classes)
        self.collected: dict[Part, SetStatistics] = {}

    def measure(self, metric: Metric) -> dict:
        config, started = self.config, time.perf_counter()
        fake, *reals = (self._collect(part) for part in self._parts(metric))
        generator = torch.Generator().manual_seed(config.seed)
        try:
            results = compute_metric(metric, reals[0] if reals else None, fake, generator, self.device)
            if len(reals) == 3:
                floor = compute_metric(metric, reals[1], reals[2], generator, self.device)
                results |= {f"{name}_floor": value for name, value in floor.items()}
        except ValueError as error:
            raise UserError(f"{metric.name}: {error}") from error
        seconds = time.perf_counter() - started
        source = config.fakes or config.network
        return {
            "results": results,
            "metric": metric.name,
            "total_time": seconds,
            "total_time_str": format_duration(seconds),
            "num_gpus": config.gpus,
            "snapshot_pkl": source.name if result_path(config, "") and config.out is None else str(source),
            "timestamp": time.time(),
            "num_real": reals[0].features.count if reals else 0,
            "num_fake": fake.features.count,
            "detector": asdict(self.detector),
            "settings": json.loads(json.dumps(asdict(config), default=str)),
            "version": __version__,
        }

    def _parts(self, metric: Metric) -> list[Part]:
        """Return the parts a metric compares: fakes, reals, and with a floor both halves of the reals."""
        mirror = self.config.mirror and metric.mirrors
        parts = [Part(True, metric.fakes, mirror and self.config.fakes is None)]
        if metric.kind != "is":
            halves = (None, 0, 1) if self.config.floor else (None,)
            parts += [Part(False, metric.real_limit, mirror, half) for half in halves]
        return parts

    def _collect(self, part: Part) -> SetStatistics:
        if part not in self.collected:
            stored = self._stored(part)
            self.collected[part] = stored or self._collect_parts(part)
            if stored is None and not part.is_fake and self.config.cache is not None:
                self._keep(part)
        return self.collected[part]

    def _keep(self, part: Part) -> None:
        path, description = self._cache_entry(part)
        try:
            self.collected[part].features.save(path, description)
        except OutputFileError as error:
            tqdm.write(f"{error}; the next run measures again", file=sys.stderr)

    def _stored(self, part: Part) -> SetStatistics | None:
        if part.is_fake or self.config.cache is None:
            return None
        path, description = self._cache_entry(part)
        if not os.path.isfile(path):  # unlike Path.is_file, False where a folder may not be read
            return None
        try:
            return SetStatistics(FeatureStatistics.load(path, description))
        except InputFileError as error:
            tqdm.write(f"measured again: {error}", file=sys.stderr)
            return None

    def _cache_entry(self, part: Part) -> tuple[Path, dict]:
        description = {
            "data": str(self.config.data.resolve()),
            "fingerprint": self.reals.fingerprint,
            "detector": asdict(self.detector),
            "part": asdict(part),
            "seed": None if part.half is None else self.config.seed,
            "capture": asdict(self.needs[part].capture),
        }
        digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
        return expand_home(self.config.cache) / f"reals-{self.detector.name}-{digest[:32]}.npz", description

    def _collect_parts(self, part: Part) -> SetStatistics:
        config, need = self.config, self.needs[part]
        if self.pool is None:
            return collect_share(config, part, need)
        with tempfile.TemporaryDirectory() as folder:
            jobs = [
                self.pool.submit(_collect_to_files, config, part, need, rank, folder) for rank in range(config.gpus)
            ]
            for problem in [job.result() for job in jobs]:
                if problem is not None:
                    raise UserError(problem)
            return _load_shares(Path(folder), config.gpus, need)


def collect_share(config: MeasureConfig, part: Part, need: Need, rank: int = 0) -> SetStatistics:
    """Collect what one of `config.gpus` processes has to do of a part.

    Raises:
        UserError: as `run_measurement`.
    """
    device = pick_device(config.device)
    detector = load_detector(config.detector, device, accept_unverified=True)  # checked before
    batches, count = _open_batches(config, part, rank)
    title = ("fakes" if part.is_fake else "reals") + ("" if part.half is None else f", half {part.half + 1}")
    bar = tqdm(total=count, unit="img", desc=title, disable=not config.verbose or rank > 0)
    with bar, exact_convolutions(device):
        return collect_statistics(batches, detector, need.capture, need.classes, device, bar.update)


def _open_batches(config: MeasureConfig, part: Part, rank: int) -> tuple[Iterable[NumberedImages], int]:
    """Return one process's batches and the number of pictures in them."""
    if part.is_fake and config.fakes is None:
        heads = FakeHeads(config)
        mirror = HeadMirror.fit(heads.sampler.network.head.cpu()) if part.mirror else None
        heads.sampler.network.to(heads.sampler.device)
        data = open_image_set(config.data, mirror)
        groups = heads.batches(data, part.limit, rank, config.gpus)
        return _join(groups, config.batch), share_size(part.limit, rank, config.gpus)
    images = open_image_set(config.fakes) if part.is_fake else _open_reals(config, part.mirror)
    chosen = _choose(images, part, config.seed)
    batches = load_batches(images, chosen, config.batch, config.workers, rank, config.gpus)
    return batches, len(range(rank, len(chosen), config.gpus))


def _open_reals(config: MeasureConfig, mirror: bool) -> ImageSet:
    return open_image_set(config.data, HeadMirror.unchanged() if mirror else None)


def _choose(images: ImageSet, part: Part, seed: int) -> list[int]:
    """Return the numbers of the pictures of a part, ascending: the first ones, or a random half of those."""
    count = len(images) if part.limit is None else min(len(images), part.limit)
    if part.half is None:
        return list(range(count))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[part.half * (count // 2) : (part.half + 1) * (count // 2)].sort()[0].tolist()


def _join(groups: Iterable[NumberedImages], size: int) -> Iterator[NumberedImages]:
    """Join small batches to ones of at least `size` pictures."""
    waiting: list[NumberedImages] = []
    for group in groups:
        waiting.append(group)
        if sum(len(batch.images) for batch in waiting) >= size:
            yield NumberedImages(*map(torch.cat, zip(*waiting, strict=True)))
            waiting = []
    if waiting:
        yield NumberedImages(*map(torch.cat, zip(*waiting, strict=True)))


def _collect_to_files(config: MeasureConfig, part: Part, need: Need, rank: int, folder: str) -> str | None:
    """Run in a process of its own; return a UserError's text, so that all are waited for."""
    if torch.cuda.is_available() and config.device != "cpu":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.gpus))
    try:
        share = collect_share(config, part, need, rank)
    except UserError as error:
        return str(error)
    share.features.save(Path(folder) / f"{rank}-features.npz")
    if share.classes is not None:
        share.classes.save(Path(folder) / f"{rank}-classes.npz")
    return None


def _load_shares(folder: Path, ranks: int, need: Need) -> SetStatistics:
    def merged(kind: str) -> FeatureStatistics:
        return merge_statistics([FeatureStatistics.load(folder / f"{rank}-{kind}.npz") for rank in range(ranks)])

    return SetStatistics(merged("features"), merged("classes") if need.classes else None)
