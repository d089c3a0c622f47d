"""Time reenactment of one source: the plain way against our fast modes, frame by frame in turns.

Without flags: the published full-size network with seeded weights on the ellipsoid head, bundled examples, 512x512
pixels. "naive" computes everything for every frame (`naive_reenact.py`); "float32" and "bfloat16" are what
`gen_images_portrait4d.py` runs, with the source encoded once. Prints a table for each mode: milliseconds (medians) of
the stages and of a whole frame, frames per second, memory that a frame needs beyond the weights, and the error of its
picture against naive's (largest, and PSNR for a peak of 2).

On a GPU those two modes replay CUDA graphs; "-eager" after a type starts kernels one by one, "-batchN" renders N
driving frames at once. A frame is timed over many in a row there, stages one by one; float32 keeps out of TF32 in all
modes. The fastest mode is compared with the rates that the GPU reaches (`roofline.py`).
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

os.environ.setdefault("PORTRAIT4D_NATIVE", "1")  # read at the first use

import torch
from interleaved import seconds_of
from naive_reenact import STAGES, NaiveFrame
from roofline import roofline
from torch import Tensor
from working_memory import WorkingMemory

from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.geometry.head_params import HeadParams
from portrait4d.inference.demo import write_untrained_network
from portrait4d.inference.demo_cast import PORTRAITS
from portrait4d.inference.reenact import Frame, Reenactor
from portrait4d.models.outputs import SourceFeatures
from portrait4d.ops.backend import fast_types, load_native, pick_device

NAIVE = "naive"
GPU_MODES = ("float32", "float32-eager", "bfloat16", "bfloat16-eager", "bfloat16-batch4")
FRAMES_IN_A_ROW = 20
MAX_ERROR, MIN_PSNR_DB = 1e-4, 45.0
"""Limits of the error that count for `speedup_over_naive`: the first in float32, the second in half types."""


@dataclass
class Measures:
    """What was measured of one mode: seconds of each stage, the picture of a frame, GiB that a frame needs."""

    frame_stages: tuple[str, ...]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    picture: Tensor | None = None
    memory_gib: float = 0.0

    def add(self, stage: str, seconds: float) -> None:
        """Note one measurement."""
        self.seconds.setdefault(stage, []).append(seconds)

    def milliseconds(self) -> dict[str, float]:
        """Return the median of every stage."""
        return {stage: 1e3 * statistics.median(values) for stage, values in self.seconds.items()}

    def frame_ms(self) -> float:
        """Return the milliseconds of a frame: the sum of its stages' medians."""
        medians = self.milliseconds()
        return sum(medians[stage] for stage in self.frame_stages)


class NaiveMode:
    """The plain way; it recomputes the source for each frame."""

    def __init__(self, reenactor: Reenactor) -> None:
        self.reenactor = reenactor
        self.device = reenactor.device
        self.measures = Measures(STAGES)
        reenactor.network.to(memory_format=torch.contiguous_format)

    def run(self, source: Frame, driver: Frame) -> None:
        """Measure one frame."""
        config = self.reenactor.config
        frame = NaiveFrame(self.reenactor.network, source, driver, self.reenactor.view(driver), config.render_size)
        for stage in STAGES:
            seconds, result = seconds_of(lambda stage=stage: frame.run(stage), self.device)
            self.measures.add(stage, seconds)
        self.measures.picture = result


class FastMode:
    """What users run: the source is encoded once; a frame is one call, timed as a whole and once more by its stages."""

    def __init__(self, reenactor: Reenactor, eager: bool = False, batch: int = 1) -> None:
        self.reenactor, self.eager, self.batch = reenactor, eager, batch
        self.device = reenactor.device
        self.in_a_row = FRAMES_IN_A_ROW if self.device.type == "cuda" else 1
        self.measures = Measures(("frame",))

    def run(self, source: Frame, driver: Frame) -> None:
        """Measure one frame."""
        reenactor = self.reenactor
        driver = repeat_frame(driver, self.batch)
        features = self._time("encode source, once", lambda: reenactor.encode_source(source))
        frame = self.frame(source, driver, features)
        for _ in range(2 if self.in_a_row > 1 else 0):
            frame()  # a graph is recorded for the second one
        seconds, _ = seconds_of(lambda: [frame() for _ in range(self.in_a_row - 1)] and None, self.device)
        last, self.measures.picture = seconds_of(frame, self.device)
        self.measures.add("frame", (seconds + last) / self.in_a_row / self.batch)
        if self.batch == 1:
            self._time_stages(features, driver)

    def frame(self, source: Frame, driver: Frame, features: SourceFeatures) -> Callable[[], Tensor]:
        """Return what makes the picture (1, 3, S, S) of a frame, or of the first one of a batch."""

        def call() -> Tensor:
            graphs = self.reenactor.graphs
            self.reenactor.graphs = None if self.eager else graphs
            render = self.reenactor.render(source, features, driver, self.reenactor.view(driver))
            self.reenactor.graphs = graphs
            return render.image_sr[:1]

        return call

    def _time_stages(self, features: SourceFeatures, driver: Frame) -> None:
        reenactor, network, options = self.reenactor, self.reenactor.network, self.reenactor.options
        view = self._time("view", lambda: reenactor.view(driver))
        with torch.inference_mode(), reenactor.precision():
            canonical = self._time(
                "re-enact", lambda: network.canonical_encoder.reenact(features.tokens, driver.motion)
            )
            planes = self._time("generate planes", lambda: network.plane_generator(canonical, features.detail))
            planes = planes.float().unflatten(1, (3, -1))
            pose = self._time("head-pose field", lambda: network.head_pose_field(view.params))
            size = options.resolution or network.config.render_resolution
            with torch.autocast(self.device.type, enabled=False):
                rays = self._time("render rays", lambda: network.render_rays(planes, view.camera, pose, size, options))
            pictures = 2 * rays.features.mT.unflatten(2, (size, size)) - 1
            self._time("super-resolve", lambda: network.super_resolve(pictures, options.super_resolution))

    def _time(self, stage: str, call: Callable[[], object]) -> object:
        if self.device.type == "cuda":
            call()  # so that kernels are chosen and loaded
        seconds, result = seconds_of(call, self.device)
        self.measures.add(stage, seconds)
        return result


def repeat_frame(frame: Frame, count: int) -> Frame:
    """Return a batch of one frame."""

    def repeated(value: object) -> object:
        if isinstance(value, HeadParams):
            return HeadParams(*(repeated(getattr(value, field.name)) for field in fields(value)))
        return value.repeat(count, *(1,) * (value.ndim - 1)) if isinstance(value, Tensor) else value

    return replace(frame, **{field.name: repeated(getattr(frame, field.name)) for field in fields(frame)})


def measure(runs: dict[str, NaiveMode | FastMode], source: Frame, driver: Frame, rounds: int) -> dict[str, Measures]:
    """Measure the modes in turns, after one round that does not count but for the memory."""
    for number in range(rounds + 1):
        for run in runs.values():
            memory = WorkingMemory(run.device)
            run.run(source, driver)
            if number == 0:
                run.measures.memory_gib = memory.peak_gib()
                run.measures.seconds.clear()
    return {mode: run.measures for mode, run in runs.items()}


def load_frames(runs: dict[str, NaiveMode | FastMode], folder: Path) -> tuple[Frame, Frame]:
    """Load the first two portraits of a prepared folder: source and driver."""
    first = next(iter(runs.values())).reenactor
    portraits = PortraitFolder(folder).items()
    if first.needs_motion_encoder(portraits):
        first.load_motion_encoder()
    source, driver = (first.load_frame(portraits[number % len(portraits)]) for number in (0, 1))
    return source, driver


def started_one_by_one(
    runs: dict[str, NaiveMode | FastMode], source: Frame, driver: Frame
) -> tuple[FastMode, Callable[[], Tensor]] | None:
    """Return the fastest mode of single frames, and its frame without a graph, if there is any."""
    fast = [run for run in runs.values() if isinstance(run, FastMode) and run.batch == 1]
    if not fast:
        return None
    best = min(fast, key=lambda run: run.measures.frame_ms())
    features = best.reenactor.encode_source(source)
    return best, FastMode(best.reenactor, eager=True).frame(source, driver, features)


def build_modes(options: argparse.Namespace, modes: list[str]) -> dict[str, NaiveMode | FastMode]:
    """Load networks, one for each type but for naive's own, and return the modes."""
    runs: dict[str, NaiveMode | FastMode] = {}
    reenactors: dict[str, Reenactor] = {}
    with tempfile.TemporaryDirectory() as folder:
        network = options.network or Path(folder) / "seeded.safetensors"
        if options.network is None:
            write_untrained_network(network, options.config, ["motion_kind=flame"])  # what every portrait has
        config = ReenactConfig(
            network=network,
            srcdir=options.srcdir,
            tardir=options.srcdir,
            outdir=Path(folder),
            render_size=options.render_size,
            device=options.device,
        )
        for mode in modes:
            if mode == NAIVE:
                runs[mode] = NaiveMode(Reenactor(config))
                continue
            dtype, _, variant = mode.partition("-")
            if dtype not in reenactors:
                reenactors[dtype] = Reenactor(replace(config, dtype=dtype))
            batch = int(variant.removeprefix("batch")) if variant.startswith("batch") else 1
            runs[mode] = FastMode(reenactors[dtype], variant == "eager", batch)
    return runs


def profile(call: Callable[[], object]) -> str:
    """Return a table of the kernels of five calls, by the GPU's time."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as recorded:
        for _ in range(5):
            call()
        torch.cuda.synchronize()
    return recorded.key_averages().table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=100)


def summarise(measured: dict[str, Measures]) -> dict[str, object]:
    """Return what goes into the JSON file: figures of all modes, the speed-up of the fastest that is exact enough."""
    naive = measured.get(NAIVE)
    modes: dict[str, dict[str, object]] = {}
    for mode, measures in measured.items():
        frame_ms = measures.frame_ms()
        figures = {
            "ms": measures.milliseconds(),
            "frame_ms": frame_ms,
            "frames_per_second": 1e3 / frame_ms,
            "memory_gib": measures.memory_gib,
        }
        if naive is not None and mode != NAIVE:
            error = measures.picture.double() - naive.picture.double()
            largest = error.abs().max().item()
            psnr = 20 * math.log10(2 / max(error.square().mean().sqrt().item(), 1e-12))
            exact = largest <= MAX_ERROR if mode.startswith("float32") else psnr >= MIN_PSNR_DB
            figures |= {"max_error": largest, "psnr_db": psnr, "within_limit": exact}
            figures["speedup_over_naive"] = naive.frame_ms() / frame_ms
        modes[mode] = figures
    served = [mode for mode, figures in modes.items() if figures.get("within_limit")]
    best = max(served, key=lambda mode: modes[mode]["speedup_over_naive"], default=None)
    speedup = modes[best]["speedup_over_naive"] if best else None
    return {"speedup_over_naive": speedup, "mode": best, "modes": modes}


def print_tables(summary: dict[str, object]) -> None:
    """Print a table for each mode and one line that sums up."""
    for mode, figures in summary["modes"].items():
        print(f"\n{mode}")
        for stage, milliseconds in figures["ms"].items():
            if stage == "frame":
                continue  # of which the others are parts
            print(f"  {stage:24s}{milliseconds:10.1f} ms")
        print(f"  {'one frame in all':24s}{figures['frame_ms']:10.1f} ms, {figures['frames_per_second']:.3g} frames/s")
        print(f"  {'memory of a frame':24s}{figures['memory_gib']:10.2f} GiB")
        if "max_error" in figures:
            print(f"  {'error':24s}{figures['max_error']:10.1e} at most, PSNR {figures['psnr_db']:.1f} dB")
            print(f"  {'speed-up over naive':24s}{figures['speedup_over_naive']:10.2f}")
    if summary["mode"]:
        print(f"\n{summary['speedup_over_naive']:.2f} times naive's speed, in {summary['mode']}")


def write(path: Path | None, summary: dict[str, object]) -> None:
    """Write the figures as JSON, if anywhere."""
    if path is not None:
        path.write_text(json.dumps(summary, indent=2))


def main() -> None:
    """Parse the command line, measure, print tables, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, help="network file (default: seeded, of --config's sizes)")
    parser.add_argument("--config", default="portrait4d-v2-512.yaml", help="sizes of the seeded network")
    parser.add_argument("--srcdir", type=Path, default=PORTRAITS, help="prepared folder; its first two portraits serve")
    parser.add_argument("--render-size", type=int, default=128, help="rays per side")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--naive", action="store_true", help="measure the plain way alone")
    parser.add_argument("--modes", nargs="+", choices=[NAIVE, *GPU_MODES, "float16"], help="what to measure")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are printed")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--profile", type=Path, help="on a GPU, also write a table of kernels here")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    fast = GPU_MODES if device.type == "cuda" else fast_types(device)
    modes = [NAIVE] if options.naive else options.modes or [NAIVE, *fast]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    setting = {
        "device": name,
        "threads": torch.get_num_threads(),
        "network": str(options.network or f"{options.config}, seeded"),
        "rays": options.render_size**2,
        "rounds": options.rounds,
        "native": load_native(),
    }
    print(", ".join(f"{key} {value}" for key, value in setting.items()))
    runs = build_modes(options, modes)
    frames = load_frames(runs, options.srcdir)
    summary = summarise(measure(runs, *frames, options.rounds)) | {"setting": setting}
    print_tables(summary)
    write(options.json, summary)
    for mode, run in runs.items():
        if run.reenactor.graphs is not None and isinstance(run, FastMode) and not run.eager:
            graphs = run.reenactor.graphs
            summary["modes"][mode] |= {"graphs": graphs.recorded, "recording_seconds": graphs.seconds}
            print(f"{mode}: {graphs.recorded} CUDA graphs of its type, recorded in {graphs.seconds:.2f} s")
    write(options.json, summary)
    fast = started_one_by_one(runs, *frames) if device.type == "cuda" else None
    if fast is None:
        return
    summary["roofline"] = roofline(fast[1], fast[0].measures.frame_ms(), device)
    print("\nroofline: " + ", ".join(f"{name} {value:.4g}" for name, value in summary["roofline"].items()), flush=True)
    write(options.json, summary)
    if options.profile:
        options.profile.write_text(profile(fast[1]))


if __name__ == "__main__":
    main()
