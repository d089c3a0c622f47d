"""Timing of calls that are compared: in turns, so that a machine that slows down slows them all."""

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from portrait4d.ops.backend import build_native, without_native

T = TypeVar("T")


def seconds_of(call: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Return the seconds that a call takes, and its result."""
    _synchronise(device)
    started = time.perf_counter()
    result = call()
    _synchronise(device)
    return time.perf_counter() - started, result


def median_ms(calls: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median milliseconds of each call after one warm-up, the calls taken in turns."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            seconds, _ = seconds_of(call, device)
            if number:
                samples[name].append(seconds * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


def against_pytorch(call: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """Return a call by the PyTorch versions and, if they can be built, by the native operations."""

    def by_pytorch() -> object:
        with without_native():
            return call()

    return {"PyTorch": by_pytorch, "native": call} if build_native() else {"PyTorch": by_pytorch}


def speedup(times: dict[str, float]) -> str:
    """Return a table's columns of `against_pytorch` times: PyTorch's, ours and their ratio, or dashes."""
    if "native" not in times:
        return f"{times['PyTorch']:11.2f}{'-':>11s}{'-':>9s}"
    return f"{times['PyTorch']:11.2f}{times['native']:11.2f}{times['PyTorch'] / times['native']:8.1f}x"


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
