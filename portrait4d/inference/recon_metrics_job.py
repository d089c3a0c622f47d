"""Evaluation of a reconstructor: results of a benchmark's cases, judged against the truth.

<outdir>/frames.jsonl      one line for each frame, and one for each failure
<outdir>/summary.json      means, confidence intervals, what is missing, what failed, all settings
<outdir>/<subject>.png     source | driver | result | truth, a row for each of up to 24 cases, of the first few subjects
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from portrait4d import __version__
from portrait4d.config.experiments import ReenactConfig
from portrait4d.config.recon_metrics import FaceEncoder, ReconMetricsConfig
from portrait4d.data.image_io import image_grid, save_image, to_uint8
from portrait4d.files.atomic import write_text
from portrait4d.files.errors import UserError
from portrait4d.inference.recon_benchmarks import (
    Benchmark,
    Case,
    ClipBenchmark,
    ClipLoading,
    Subject,
    gaga_vfhq,
)
from portrait4d.inference.recon_judges import Judges, LandmarkEstimator, Truths
from portrait4d.inference.recon_renderer import Renderer, Results
from portrait4d.inference.recon_summary import ANSWERS, Row, list_missing, summarise_speed, summarise_tasks
from portrait4d.inference.reenact import Reenactor
from portrait4d.inference.synthetic_benchmark import SyntheticBenchmark, load_protocol
from portrait4d.metrics.distances import frechet_distance_of_features
from portrait4d.metrics.frame_errors import masked_distances, own_is_nearest
from portrait4d.metrics.image_quality import mask_overlap
from portrait4d.models.pretrained.motion_encoder import load_motion_encoder
from portrait4d.ops.resize import resize_antialiased

COMMON = "common"
"""The task in which all persons show one motion, so that their identities can be told apart."""
DRAWN_CASES = 24


def run_recon_metrics(config: ReconMetricsConfig, landmarks_of: LandmarkEstimator | None = None) -> dict:
    """Evaluate a reconstructor, write all files and return the summary.

    Args:
        config: what to measure.
        landmarks_of: estimator for the jitter of landmarks.

    Raises:
        UserError: nothing can be measured: no network, protocol, data or device, or an encoder without weights.
    """
    torch.set_float32_matmul_precision("highest")
    machine = {name: getattr(config, name) for name in ("chunk", "device", "dtype")}
    reenactor = Reenactor(ReenactConfig(config.network, Path(), Path(), config.outdir, **machine))
    benchmark = open_benchmark(config, reenactor)
    encoder: FaceEncoder = config.encoder or ("synthetic" if benchmark.is_synthetic else "pdfgc")
    judges = Judges(config, encoder, reenactor.device, landmarks_of)
    reader = judges.reader
    if config.motion == "encoder" and reader is None:
        load_motion_encoder()  # says what is missing
    return _Job(config, Renderer(config, reenactor, reader), benchmark, judges).run()


def open_benchmark(config: ReconMetricsConfig, reenactor: Reenactor) -> Benchmark:
    """Open what the configuration names; true pictures that are not in the cache are rendered now.

    Raises:
        UserError: no such protocol or data.
    """
    network = reenactor.network.config
    if config.protocol not in ("folder", "gaga-vfhq"):
        if config.data is not None:
            raise UserError("--data: only the protocols folder and gaga-vfhq take it")
        protocol = load_protocol(config.protocol)
        benchmark = SyntheticBenchmark(protocol, network.image_resolution, config.cache, config.identities)
        benchmark.prepare(config.workers, config.verbose)
        return benchmark
    if config.data is None:
        raise UserError(f"--protocol {config.protocol}: give the prepared clips with --data")
    reads_stored = config.motion == "stored" and network.motion_kind == "pdfgc"
    loading = ClipLoading(
        network.image_resolution, config.use_simplified, reads_stored, with_face=config.motion == "encoder"
    )
    if config.protocol == "gaga-vfhq":
        return gaga_vfhq(config.data, config.identities, config.frames, loading)
    return ClipBenchmark([config.data], config.frames, loading, f"folder {config.data.resolve().name}")


class _Job:
    def __init__(self, config: ReconMetricsConfig, renderer: Renderer, benchmark: Benchmark, judges: Judges) -> None:
        self.config, self.renderer, self.benchmark, self.judges = config, renderer, benchmark, judges
        self.device = renderer.device
        self.rows: list[Row] = []
        self.failures: dict[str, str] = {}
        self.features: dict[tuple[str, str, str], list[Tensor]] = {}
        self.common: list[tuple[Row, dict[str, Tensor], Tensor]] = []

    def run(self) -> dict:
        means = self._mean_truths()
        for number, subject in enumerate(self._subjects("judging")):
            self.failures |= subject.failures
            if not subject.cases:
                continue
            results, failures = self.renderer.results(subject)
            self.failures |= failures
            if results.cases:
                self._judge(subject, results, means)
                if number < self.config.pictures:
                    self._draw(subject, results)
        if not self.rows:
            first = next(iter(self.failures.values()), "no frame")
            raise UserError(f"nothing could be measured: {first}")
        self._rank()
        summary = self._summary()
        self._write(summary)
        return summary

    def _subjects(self, title: str) -> Iterator[Subject]:
        yield from tqdm(
            self.benchmark.subjects(), title, len(self.benchmark), unit="subject", disable=not self.config.verbose
        )

    def _mean_truths(self) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for subject in self._subjects("mean head"):
            for case in subject.cases:
                sums[case.task] = sums.get(case.task, 0) + case.truth.image
                counts[case.task] = counts.get(case.task, 0) + 1
        return {task: (total / counts[task]).to(self.device) for task, total in sums.items()}

    @torch.inference_mode()
    def _judge(self, subject: Subject, results: Results, means: dict[str, Tensor]) -> None:
        truths = self._truths(subject, results.cases)
        seen = self.judges.look(truths.images, truths.landmarks)
        answers = {
            "result": results.images,
            "copy": truths.source.expand_as(truths.images),
            "mean": torch.stack([means[case.task] for case in results.cases]),
        }
        found = {answer: self.judges.compare(pictures, truths, seen) for answer, pictures in answers.items()}
        if truths.masks is None:
            self.judges.missing["psnr_head"] = self.judges.missing["mask_iou"] = "frames without a segmentation in segs"
        else:
            reduced = resize_antialiased(truths.masks, results.masks.shape[-1])
            found["result"]["mask_iou"] = mask_overlap(results.masks, reduced)
        moves = seen.reading.moves if seen.reading else {}
        for place, case in enumerate(results.cases):
            values = {answer: _at(measures, place) for answer, measures in found.items()}
            placed = (case.task, subject.name, case.driver.name, case.place, case.yaw_deg)
            truth = {} if case.task == COMMON else _at(moves, place)  # one motion: nothing to correlate
            row = Row(*placed, values, truth, results.seconds[place])
            self.rows.append(row)
            if case.task == COMMON and truths.masks is not None:
                pictures = {answer: images[place] for answer, images in answers.items()}
                self.common.append((row, pictures | {"truth": truths.images[place]}, truths.masks[place]))
        self._collect(results.cases, answers | {"truth": truths.images})

    def _truths(self, subject: Subject, cases: list[Case]) -> Truths:
        frames = [case.truth for case in cases]
        size = subject.source.image.shape[-1]
        has_masks = all(frame.mask is not None for frame in frames)
        return Truths(
            images=torch.stack([frame.image for frame in frames]).to(self.device),
            masks=torch.stack([frame.mask for frame in frames]).to(self.device) if has_masks else None,
            landmarks=self.renderer.landmarks(frames, size),
            source=subject.source.image[None].to(self.device),
            source_landmarks=self.renderer.landmarks([subject.source], size),
            runs=find_runs(cases),
        )

    def _collect(self, cases: list[Case], answers: dict[str, Tensor]) -> None:
        """Keep features for Frechet distances; there is one mean picture for a whole task, hence none for it."""
        for task in dict.fromkeys(case.task for case in cases):
            places = [place for place, case in enumerate(cases) if case.task == task]
            for answer in ("result", "copy", "truth"):
                images = to_uint8(answers[answer][places])
                for name, detector in self.judges.detectors.items():
                    found = detector.network.features(images.to(self.device)).cpu()
                    self.features.setdefault((task, name, answer), []).append(found)

    def _distances(self) -> dict[tuple[str, str, str], float]:
        joined = {key: torch.cat(parts) for key, parts in self.features.items()}
        return {
            (task, name, answer): frechet_distance_of_features(joined[task, name, "truth"], found)
            for (task, name, answer), found in joined.items()
            if answer != "truth" and len(found) > 1
        }

    def _rank(self) -> None:
        """Tell of each person whether the result is nearest to the own true picture, under one motion for all."""
        if len(self.common) < 2:
            return
        rows, pictures, masks = zip(*self.common, strict=True)
        truths, masks = torch.stack([found["truth"] for found in pictures]), torch.stack(masks)
        for answer in ANSWERS:
            distances = masked_distances(torch.stack([found[answer] for found in pictures]), truths, masks)
            for row, nearest in zip(rows, own_is_nearest(distances).tolist(), strict=True):
                row.values[answer]["rank1"] = float(nearest)

    def _summary(self) -> dict:
        config, judges = self.config, self.judges
        tasks = summarise_tasks(self.rows, self._distances(), config.seed)
        return {
            "protocol": self.benchmark.name,
            "network": str(config.network),
            "tasks": tasks,
            "speed": summarise_speed(self.rows) | {"device": str(self.device), "threads": torch.get_num_threads()},
            "missing": list_missing(tasks, judges.missing),
            "failure_count": len(self.failures),
            "failures": self.failures,
            "definitions": judges.definitions,
            "detectors": {name: asdict(detector.identity) for name, detector in judges.detectors.items()},
            "settings": json.loads(json.dumps(asdict(config), default=str)),
            "version": __version__,
        }

    def _write(self, summary: dict) -> None:
        lines = [asdict(row) for row in self.rows]
        lines += [{"failed": name, "error": error} for name, error in self.failures.items()]
        write_text(self.config.outdir / "frames.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        write_text(self.config.outdir / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")

    def _draw(self, subject: Subject, results: Results) -> None:
        tiles: list[Tensor] = []
        for case, image in list(zip(results.cases, results.images.cpu(), strict=True))[:DRAWN_CASES]:
            tiles += [subject.source.image, case.driver.image, image, case.truth.image]
        save_image(self.config.outdir / f"{subject.name}.png", image_grid(tiles, 4, margin=2))


def find_runs(cases: Sequence[Case]) -> list[list[int]]:
    """Return the longest lists of numbers of cases, three or more, that show consecutive frames of one task."""
    runs: list[list[int]] = [[0]] if cases else []
    for number in range(1, len(cases)):
        before, case = cases[number - 1], cases[number]
        if (case.task, case.place) == (before.task, before.place + 1):
            runs[-1].append(number)
        else:
            runs.append([number])
    return [run for run in runs if len(run) >= 3]


def _at(measures: dict[str, Tensor], place: int) -> dict[str, float]:
    """Return the numbers of one frame; jitter has none at the ends of runs."""
    values = {name: float(values[place]) for name, values in measures.items()}
    return {name: value for name, value in values.items() if value == value}
