"""How much memory something needs beyond what is there before it."""

import ctypes
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"


class WorkingMemory:
    """From its creation on, watches the largest amount of memory: of the process on Linux, of the allocator on CUDA."""

    def __init__(self, device: torch.device) -> None:
        """Start to watch."""
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        elif sys.platform.startswith("linux"):
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
            self._before = _status("VmRSS")

    def peak_gib(self) -> float:
        """Return the most memory beyond the start's so far, GiB; NaN where nothing can be said."""
        if self.device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self.device) - self._before) / 2**30
        return (_status("VmHWM") - self._before) / 2**30 if sys.platform.startswith("linux") else float("nan")


def _status(name: str) -> int:
    """Return one of the process's counters in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
