"""Criteria for golden arrays, and where golden files, manifests and photos are found."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Criterion = Callable[[np.ndarray], bool]
"""Absolute errors divided by the array's largest golden value -> acceptable or not."""


@dataclass(frozen=True)
class Context:
    """Folders: the golden files to check, the repository's own (for what those lack), and real portraits."""

    golden: Path
    default: Path
    real: Path

    def find(self, name: str) -> Path:
        """Return an accessory from the golden folder, else from the repository's."""
        for folder in (self.golden, self.default):
            if (folder / name).exists():
                return folder / name
        raise FileNotFoundError(f"{name}: neither in {self.golden} nor in {self.default}")


@dataclass(frozen=True)
class Result:
    """One compared array."""

    file: str
    array: str
    max_abs: float
    max_rel: float
    ok: bool
    remark: str = ""

    def line(self) -> str:
        """Return `file array max_abs max_rel ok|FAIL`."""
        verdict = "ok" if self.ok else "FAIL"
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.file} {self.array} {self.max_abs:.3e} {self.max_rel:.3e} {verdict}{remark}"


def everywhere(tolerance: float) -> Criterion:
    """Accept if no error exceeds `tolerance`."""
    return lambda errors: bool(errors.max(initial=0) <= tolerance)


def nearly_everywhere(tolerance: float, share: float, ceiling: float) -> Criterion:
    """Accept if at most a `share` of the errors exceed `tolerance` and none the `ceiling`."""
    return lambda errors: bool((errors > tolerance).mean() <= share and errors.max() <= ceiling)


def nearly_all_pixels(tolerance: float = 1e-4, share: float = 1e-3) -> Criterion:
    """Accept a mask or mesh render (C, H, W) if in less than a `share` of its pixels a channel exceeds `tolerance`."""
    return lambda errors: bool((errors > tolerance).any(axis=-3).mean() < share)


def quantiles(median: float, high: float) -> Criterion:
    """Accept if the median and the 95th percentile are within bounds (`deformation.md` section 10)."""
    return lambda errors: bool(np.median(errors) <= median and np.quantile(errors, 0.95) <= high)


def compare(file: Path, array: str, ours: np.ndarray, golden: np.ndarray, criterion: Criterion) -> Result:
    """Compare one array."""
    ours = np.asarray(ours)
    if ours.shape != golden.shape:
        return Result(file.name, array, np.inf, np.inf, False, f"shape {ours.shape} instead of {golden.shape}")
    absolute = np.abs(ours.astype(np.float64) - golden.astype(np.float64))
    if not np.isfinite(absolute).all():
        return Result(file.name, array, np.inf, np.inf, False, "not finite")
    largest = np.abs(golden.astype(np.float64)).max(initial=0) or 1.0
    relative = absolute / largest
    remark = f"median {np.median(relative):.1e}, 95 % {np.quantile(relative, 0.95):.1e}" if relative.size else ""
    return Result(file.name, array, absolute.max(initial=0), relative.max(initial=0), criterion(relative), remark)
