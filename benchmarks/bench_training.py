"""Time of a training step, phase by phase: images per second, where the time goes, peak memory.

    python benchmarks/bench_training.py genhead --cfg genhead-ffhq512.yaml head=synthetic run.batch=1 run.gpus=1
    python benchmarks/bench_training.py v1 head=synthetic supervision.source=synthetic_heads motion=exact run.gpus=1 ...

GenHead's data are made in a temporary folder if data.path is not given: synthetic portraits of the network's size.
Each phase is run once to warm up, then --repeats times; the time of an iteration counts lazy phases by their interval.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from portrait4d.config.load import load_config
from portrait4d.config.recon_training import ReconV1Training, ReconV2Training
from portrait4d.config.training import DataConfig, GenHeadTraining
from portrait4d.data.pack_folders import PackConfig, pack_stills
from portrait4d.synthetic_heads.portrait_sets import PortraitSetConfig, write_portrait_set
from portrait4d.training.distributed import joined_ranks
from portrait4d.training.genhead_task import build_genhead_task
from portrait4d.training.launch import pick_device_type
from portrait4d.training.loop import learning
from portrait4d.training.recon_v1_task import build_recon_v1_task
from portrait4d.training.recon_v2_task import build_recon_v2_task
from portrait4d.training.tasks import Moment, Phase, Step, Task

TRAININGS = {
    "genhead": (GenHeadTraining, build_genhead_task, "genhead-ffhq512.yaml"),
    "v1": (ReconV1Training, build_recon_v1_task, "portrait4d-genhead512.yaml"),
    "v2": (ReconV2Training, build_recon_v2_task, "portrait4d-v2-vfhq512.yaml"),
}


def make_portraits(folder: Path, size: int) -> Path:
    """Write and pack four synthetic portraits."""
    write_portrait_set(PortraitSetConfig(out=folder / "raw", identities=4, resolution=size, seed=7))
    pack_stills(PackConfig(data_dir=folder / "raw", output_dir=folder / "db", resolution=size, rebalance="none"))
    return next((folder / "db").iterdir())


def run_phase(task: Task, phase: Phase, chunks: list, moment: Moment) -> None:
    """Compute a phase's gradients and step."""
    task.optimisers[phase.network].zero_grad(set_to_none=True)
    with learning(task.networks[phase.network]):
        for number, chunk in enumerate(chunks):
            generators = task.chunk_generators(moment, phase.name, number)
            task.compute_gradients(
                chunk, Step(phase, moment, *generators, lambda loss: loss.backward(), lambda name, values: None)
            )
    task.optimisers[phase.network].step()


def measure(task: Task, repeats: int, images_seen: int) -> dict:
    """Time data and phases in seconds, medians."""
    cuda = task.ranks.device.type == "cuda"
    times: dict[str, list[float]] = {}

    def timed(name: str, run: object) -> object:
        if cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        result = run()
        if cuda:
            torch.cuda.synchronize()
        times.setdefault(name, []).append(time.perf_counter() - started)
        return result

    task.skip_batches(0)
    for number in range(repeats + 1):
        moment = Moment(images_seen, number)
        chunks = timed("data", lambda moment=moment: task.load_chunks(moment))
        for phase in task.phases:
            timed(phase.name, lambda p=phase, c=chunks, m=moment: run_phase(task, p, c, m))
    task.close()
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    iteration = medians["data"] + sum(medians[phase.name] / phase.interval for phase in task.phases)
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": medians,
        "intervals": {phase.name: phase.interval for phase in task.phases},
        "iteration_seconds": iteration,
        "images_per_second": task.run.batch / iteration,
        "peak_gib": peak / 2**30,
    }


def main() -> int:
    """Parse the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", choices=TRAININGS)
    parser.add_argument("--cfg", default=None, help="configuration; default: the published one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kimg", type=float, default=2000.0, help="where in the schedules, in kimg")
    parser.add_argument("--json", type=Path, default=None, help="also write the result there")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    kind, build, default = TRAININGS[options.training]
    config = load_config(kind, options.cfg or default, options.overrides)
    device = pick_device_type(config.run.device)
    with tempfile.TemporaryDirectory() as folder, joined_ranks(0, 1, device, "") as ranks:
        if kind is GenHeadTraining and config.data.path is None:
            path = make_portraits(Path(folder), config.network.image_resolution)
            config = replace(config, data=DataConfig(path))
        result = measure(build(config, ranks), options.repeats, round(options.kimg * 1000))
    where = torch.cuda.get_device_name() if ranks.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.training}, batch {config.run.batch}, {config.optim.precision}, {where}")
    for name, seconds in result["seconds"].items():
        every = result["intervals"].get(name, 1)
        share = seconds / every / result["iteration_seconds"]
        print(f"{name:8s} {seconds:9.3f} s  every {every:2d}  {100 * share:5.1f} % of an iteration")
    print(f"iteration {result['iteration_seconds']:.3f} s, {result['images_per_second']:.3f} images/s, "
          f"peak {result['peak_gib']:.2f} GiB")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
