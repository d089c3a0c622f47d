"""Time reenactment of one source: the plain way against our fast modes, frame by frame in turns.

Without flags: the published full-size network with seeded weights on the ellipsoid head, bundled examples, 512x512
pixels. "naive" computes everything for every frame (`naive_reenact.py`); "float32" and "bfloat16" are what
`gen_images_portrait4d.py` runs, with the source encoded once. Prints a table for each mode: milliseconds (medians) of
the stages and of a whole frame, frames per second, memory that a frame needs beyond the weights, and the error of its
picture against naive's (largest, and PSNR for a peak of 2).
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("PORTRAIT4D_NATIVE", "1")  # read at the first use

import torch
from interleaved import seconds_of
from naive_reenact import STAGES, NaiveFrame
from torch import Tensor
from working_memory import WorkingMemory

from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.inference.demo import write_untrained_network
from portrait4d.inference.demo_cast import PORTRAITS
from portrait4d.inference.reenact import Frame, Reenactor
from portrait4d.ops.backend import fast_types, load_native, pick_device

NAIVE = "naive"
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

    def __init__(self, reenactor: Reenactor) -> None:
        self.reenactor = reenactor
        self.device = reenactor.device
        self.measures = Measures(("frame",))

    def run(self, source: Frame, driver: Frame) -> None:
        """Measure one frame."""
        reenactor, network, options = self.reenactor, self.reenactor.network, self.reenactor.options
        view = reenactor.view(driver)
        features = self._time("encode source, once", lambda: reenactor.encode_source(source))
        render = self._time("frame", lambda: reenactor.render(source, features, driver, view))
        self.measures.picture = render.image_sr
        with torch.inference_mode(), reenactor.precision():
            canonical = self._time(
                "re-enact", lambda: network.canonical_encoder.reenact(features.tokens, driver.motion)
            )
            self._time("generate planes", lambda: network.plane_generator(canonical, features.detail))
            pose = self._time("head-pose field", lambda: network.head_pose_field(view.params))
            planes, size = render.planes.float(), options.resolution
            self._time("render rays", lambda: network.render_rays(planes, view.camera, pose, size, options))
            self._time("super-resolve", lambda: network.super_resolve(render.features, options.super_resolution))

    def _time(self, stage: str, call: Callable[[], object]) -> object:
        seconds, result = seconds_of(call, self.device)
        self.measures.add(stage, seconds)
        return result


def measure(options: argparse.Namespace, modes: list[str]) -> dict[str, Measures]:
    """Measure the modes in turns, after one round that does not count but for the memory."""
    runs: dict[str, NaiveMode | FastMode] = {}
    with tempfile.TemporaryDirectory() as folder:
        network = options.network or Path(folder) / "seeded.safetensors"
        if options.network is None:
            write_untrained_network(network, options.config, ["motion_kind=flame"])  # what every portrait has
        for mode in modes:
            config = ReenactConfig(
                network=network,
                srcdir=options.srcdir,
                tardir=options.srcdir,
                outdir=Path(folder),
                render_size=options.render_size,
                device=options.device,
                dtype="float32" if mode == NAIVE else mode,
            )
            runs[mode] = (NaiveMode if mode == NAIVE else FastMode)(Reenactor(config))
    first = next(iter(runs.values())).reenactor
    portraits = PortraitFolder(options.srcdir).items()
    if first.needs_motion_encoder(portraits):
        first.load_motion_encoder()
    source, driver = (first.load_frame(portraits[number % len(portraits)]) for number in (0, 1))
    for number in range(options.rounds + 1):
        for run in runs.values():
            memory = WorkingMemory(run.device)
            run.run(source, driver)
            if number == 0:
                run.measures.memory_gib = memory.peak_gib()
                run.measures.seconds.clear()
    return {mode: run.measures for mode, run in runs.items()}


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
            exact = largest <= MAX_ERROR if mode == "float32" else psnr >= MIN_PSNR_DB
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


def main() -> None:
    """Parse the command line, measure, print tables, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, help="network file (default: seeded, of --config's sizes)")
    parser.add_argument("--config", default="portrait4d-v2-512.yaml", help="sizes of the seeded network")
    parser.add_argument("--srcdir", type=Path, default=PORTRAITS, help="prepared folder; its first two portraits serve")
    parser.add_argument("--render-size", type=int, default=128, help="rays per side")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--naive", action="store_true", help="measure the plain way alone")
    parser.add_argument("--modes", nargs="+", choices=[NAIVE, "float32", "bfloat16", "float16"], help="what to measure")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are printed")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    modes = [NAIVE] if options.naive else options.modes or [NAIVE, *fast_types(device)]
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
    summary = summarise(measure(options, modes))
    print_tables(summary)
    if options.json:
        options.json.write_text(json.dumps(summary | {"setting": setting}, indent=2))


if __name__ == "__main__":
    main()
