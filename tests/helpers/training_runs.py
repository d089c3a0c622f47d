"""What training runs leave behind, and running them as a user does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from portrait4d.training.snapshots import newest_state, read_state
from tests.helpers.cli import ROOT

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
QUICK = (
    "run.workers=0",
    "network.render_resolution=8",
    "resolution.initial=8",
    "network.volume.depth_samples=4",
    "network.volume.importance_samples=4",
)
"""Overrides that make genhead-smoke.yaml still smaller."""


def stats(run: Path) -> list[dict]:
    """Return the lines of statistics."""
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def ticks(run: Path) -> list[int]:
    """Return the numbers of the ticks in the statistics."""
    return [int(line["Progress/tick"]["mean"]) for line in stats(run)]


def final_state(run: Path) -> dict[str, Tensor]:
    """Return the tensors of the newest state."""
    return read_state(newest_state(run))[0]


def assert_same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Compare tensors by name to the bit."""
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, different


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Compare tensors by name, relative to the largest number of each."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        error = (tensor - second[name]).abs().max() / tensor.abs().max().clamp_min(1e-12)
        assert error <= tolerance, f"{name}: {float(error):.2e}"


@contextmanager
def started(script: str, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a script in a process group of its own; none of it is left behind the block."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        env=os.environ | ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
