"""What a run leaves behind for people: log.txt, stats.jsonl (one line per tick), TensorBoard events.

Names are the reference's (training-genhead.md §8): "Loss/G/loss", "Progress/kimg", "Timing/sec_per_tick", ...
"""

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from portrait4d.files.append import append_line
from portrait4d.files.atomic import write_text
from portrait4d.training.distributed import Ranks
from portrait4d.training.run_state import RunState
from portrait4d.training.tasks import Task

STATS, TEXT = "stats.jsonl", "log.txt"


class RunLog:
    """The records of a run.

    Args:
        folder: run directory.
        ranks: only the first process writes; statistics are of all.
        verbose: show progress on the terminal.

    Attributes:
        last: mean of each statistic at the last tick.
    """

    def __init__(self, folder: Path, ranks: Ranks, verbose: bool = True) -> None:
        self.folder, self.ranks, self.verbose = folder, ranks, verbose
        self.values: dict[str, list[Tensor]] = {}
        self.last: dict[str, dict[str, float]] = {}
        self.timing = False
        self._board = None

    def resume(self, tick: int) -> None:
        """Drop the lines behind the first `tick` ones, which an interrupted run wrote and this one will write anew."""
        path = self.folder / STATS
        self.values = {}
        if self.ranks.is_first and path.is_file():
            lines = path.read_text().splitlines()[:tick]
            write_text(path, "".join(line + "\n" for line in lines))
            if lines:
                self.last = {k: v for k, v in json.loads(lines[-1]).items() if isinstance(v, dict)}

    def record(self, name: str, values: Tensor | float) -> None:
        """Add values to a statistic of the present tick. All processes must use the same names."""
        # Only kept: to add up on a GPU at once would cost six operations, and a copy that waits, for every value.
        kept = values.detach() if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64)
        self.values.setdefault(name, []).append(kept.flatten())

    def time(self, name: str, seconds: float) -> None:
        """Add the duration of something."""
        self.record(f"Timing/{name}", 1000 * seconds)

    @contextmanager
    def timed(self, name: str, device: torch.device) -> Iterator[None]:
        """Measure the block in milliseconds; on a GPU, whose work runs ahead, only a tick's first use of the name."""
        wait = device.type == "cuda" and f"Timing/{name}" not in self.values
        if wait:
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        yield
        if wait:
            torch.cuda.synchronize(device)
        if wait or device.type != "cuda":
            self.time(name, time.perf_counter() - started)

    def line(self, text: str) -> None:
        """Write a line to log.txt and, on request, to the terminal."""
        if self.ranks.is_first:
            append_line(self.folder / TEXT, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
            if self.verbose:
                tqdm.write(text)

    def write_tick(self, task: Task, state: RunState, measured: dict[str, float], maintenance_s: float) -> None:
        """Add everything up over the processes and write the tick's line. `measured` are values of a validation."""
        statistics = self._collect()
        kimg = state.images_seen / 1000
        tick_s, tick_kimg = state.seconds - state.tick_seconds, max(kimg - state.tick_start / 1000, 1e-6)
        values = {
            "Progress/tick": state.tick,
            "Progress/kimg": kimg,
            "Timing/total_sec": state.seconds,
            "Timing/sec_per_tick": tick_s,
            "Timing/sec_per_kimg": tick_s / tick_kimg,
            "Timing/maintenance_sec": maintenance_s,
            "Timing/total_hours": state.seconds / 3600,
            "Resources/cpu_mem_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            **{f"Guard/{name}_skipped": scale.skipped for name, scale in state.scales.items()},
            **{f"Guard/{name}_scale": scale.value for name, scale in state.scales.items()},
            **{f"Progress/{name}": value for name, value in state.extra.items()},
            **measured,
        }
        if task.ranks.device.type == "cuda":
            values["Resources/peak_gpu_mem_gb"] = torch.cuda.max_memory_allocated(task.ranks.device) / 2**30
            torch.cuda.reset_peak_memory_stats(task.ranks.device)
        statistics |= {name: {"num": 1, "mean": float(value), "std": 0.0} for name, value in values.items()}
        self.last |= statistics
        if self.ranks.is_first:
            append_line(self.folder / STATS, json.dumps({**self.last, "timestamp": time.time()}))
            self._write_board(state, kimg)
            self.line(_status(self.last, measured))

    def close(self) -> None:
        """Close the event file."""
        if self._board is not None:
            self._board.close()

    def _collect(self) -> dict[str, dict[str, float]]:
        """Return count, mean and standard deviation of what was recorded, over all processes, and start anew."""
        names = sorted(self.values)
        if not names:
            return {}
        table = torch.stack([_moments(self.values[name]) for name in names]).to(self.ranks.device)
        self.values = {}
        rows = self.ranks.sum(table).cpu().tolist()
        found = {}
        for name, (count, total, squares) in zip(names, rows, strict=True):
            mean = total / count
            found[name] = {"num": int(count), "mean": mean, "std": max(squares / count - mean * mean, 0.0) ** 0.5}
        return found

    def _write_board(self, state: RunState, kimg: float) -> None:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder), purge_step=int(kimg))
        for name, statistic in self.last.items():
            self._board.add_scalar(name, statistic["mean"], int(kimg), walltime=state.seconds)
        self._board.flush()


def _moments(values: list[Tensor]) -> Tensor:
    """Return number, sum and sum of squares (3,) float64, on the CPU."""
    joined = torch.cat(values).cpu().double()
    return torch.stack([joined.new_tensor(float(len(joined))), joined.sum(), joined.square().sum()])


def _status(last: dict[str, dict[str, float]], measured: dict[str, float]) -> str:
    """Return a tick's line for people."""

    def mean(name: str) -> float:
        return last[name]["mean"]

    parts = [
        f"tick {mean('Progress/tick'):.0f}",
        f"kimg {mean('Progress/kimg'):.3f}",
        f"time {mean('Timing/total_sec'):.0f}s",
        f"sec/tick {mean('Timing/sec_per_tick'):.1f}",
        f"sec/kimg {mean('Timing/sec_per_kimg'):.1f}",
        f"cpumem {mean('Resources/cpu_mem_gb'):.2f}",
    ]
    if "Resources/peak_gpu_mem_gb" in last:
        parts.append(f"gpumem {mean('Resources/peak_gpu_mem_gb'):.2f}")
    shown = [name for name in sorted(last) if name.startswith("Loss/G/l")] + sorted(measured)
    return "  ".join(parts + [f"{name} {mean(name):.4g}" for name in shown])
