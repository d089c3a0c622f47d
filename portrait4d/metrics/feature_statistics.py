"""Running statistics of feature vectors in float64: count, mean, covariance, and on request the vectors themselves.

Batches are folded in with the pairwise update of means and scatter matrices (Chan, Golub, LeVeque 1979), which loses no
digits where plain sums of squares do; the result is the population covariance E[x x'] - m m' of metrics.md section 5.
Parts of one set, measured by several processes, merge into what one process measures.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from portrait4d.files.atomic import write_bytes
from portrait4d.files.errors import InputFileError

FORMAT = "portrait4d-feature-statistics-1"


@dataclass(frozen=True)
class Capture:
    """What to keep of a set: its `moments`, and the vectors of items numbered below `features` (0: none)."""

    moments: bool = True
    features: int = 0


class FeatureStatistics:
    """Accumulates feature vectors of a numbered set.

    Args:
        capture: what to keep.

    Attributes:
        count: vectors seen.
        dim: their length D, None before the first.
        mean: (D,) float64.
    """

    def __init__(self, capture: Capture | None = None) -> None:
        self.capture = capture or Capture()
        self.count = 0
        self.dim: int | None = None
        self.mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))
        self._features: list[np.ndarray] = []
        self._numbers: list[np.ndarray] = []

    def append(self, features: Tensor | np.ndarray, numbers: Tensor | np.ndarray | None = None) -> None:
        """Fold in a batch.

        Args:
            features: (B, D) real.
            numbers: (B,) each item's number in its set, which orders kept vectors; None counts on from `count`.

        Raises:
            ValueError: another shape or length, or numbers that are not finite.
        """
        batch = _to_numpy(features)
        if batch.ndim != 2 or self.dim not in (None, batch.shape[1]):
            raise ValueError(f"features: expected shape (B, {self.dim or 'D'}), got {batch.shape}")
        if not np.isfinite(batch).all():
            raise ValueError("features: expected finite numbers, got NaN or infinity")
        numbers = np.arange(self.count, self.count + len(batch)) if numbers is None else _to_numpy(numbers)
        if numbers.shape != (len(batch),):
            raise ValueError(f"numbers: expected shape ({len(batch)},), got {numbers.shape}")
        if not len(batch):
            return
        if self.capture.features:
            kept = numbers < self.capture.features
            self._features.append(batch[kept].astype(np.float32))
            self._numbers.append(numbers[kept].astype(np.int64))
        wide = batch.astype(np.float64)
        mean = wide.mean(axis=0)
        scatter = np.zeros((0, 0))
        if self.capture.moments:
            centred = wide - mean
            scatter = centred.T @ centred
        self._fold(len(batch), mean, scatter)

    def merge(self, other: "FeatureStatistics") -> None:
        """Fold in the statistics of another part of the same set.

        Raises:
            ValueError: another length of vectors, or another `capture`.
        """
        if other.capture != self.capture:
            raise ValueError(f"other: expected {self.capture}, got {other.capture}")
        if not other.count:
            return
        if self.dim not in (None, other.dim):
            raise ValueError(f"other: expected vectors of {self.dim} numbers, got {other.dim}")
        self._features += other._features
        self._numbers += other._numbers
        self._fold(other.count, other.mean, other._scatter)

    def covariance(self) -> np.ndarray:
        """Return the population covariance (D, D), float64, symmetric.

        Raises:
            ValueError: nothing was seen, or moments are not captured.
        """
        if not self.count or not self.capture.moments:
            raise ValueError(f"statistics: expected moments of at least one vector, got {self.count} vectors")
        scatter = self._scatter / self.count
        return (scatter + scatter.T) / 2

    def features(self) -> np.ndarray:
        """Return the kept vectors (N, D), float32, in the order of their items' numbers."""
        if not self._features:
            return np.zeros((0, self.dim or 0), np.float32)
        order = np.argsort(np.concatenate(self._numbers), kind="stable")
        return np.concatenate(self._features)[order]

    def save(self, path: str | Path, description: dict | None = None) -> None:
        """Write everything to an .npz file without pickles, atomically.

        Args:
            path: the file.
            description: JSON that `load` compares; what the numbers are of.
        """
        header = {
            "format": FORMAT,
            "moments": self.capture.moments,
            "features": self.capture.features,
            "description": description,
        }
        buffer = io.BytesIO()
        np.savez(
            buffer,
            header=np.array(json.dumps(header)),
            count=np.array(self.count, np.int64),
            mean=self.mean,
            scatter=self._scatter,
            features=self.features(),
            numbers=np.sort(np.concatenate(self._numbers)) if self._numbers else np.zeros(0, np.int64),
        )
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path, description: dict | None = None) -> "FeatureStatistics":
        """Load a file of `save`. Nothing in it is run.

        Args:
            path: the file.
            description: what the numbers must be of; None accepts any.

        Raises:
            InputFileError: the file is missing, damaged, or describes something else.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                arrays = {name: file[name] for name in ("count", "mean", "scatter", "features", "numbers")}
            statistics = cls(Capture(bool(header["moments"]), int(header["features"])))
            if header["format"] != FORMAT:
                raise ValueError(f"expected format {FORMAT}, got {header['format']!r}")
            statistics._restore(arrays)
        except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise InputFileError(path, f"not readable feature statistics ({error})", "delete it") from error
        if description is not None and header["description"] != description:
            raise InputFileError(path, "statistics of something else", "delete it")
        return statistics

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        mean, scatter, features = arrays["mean"], arrays["scatter"], arrays["features"]
        dim = len(mean)
        wanted = (dim, dim) if self.capture.moments else (0, 0)
        if mean.ndim != 1 or scatter.shape not in (wanted, (0, 0)) or features.shape != (len(arrays["numbers"]), dim):
            raise ValueError(f"shapes {mean.shape}, {scatter.shape} and {features.shape} do not belong together")
        if not np.isfinite(mean).all() or not np.isfinite(scatter).all():
            raise ValueError("numbers that are not finite")
        self.count = int(arrays["count"])
        self.dim = dim if self.count else None
        self.mean, self._scatter = mean, scatter
        if len(features):
            self._features, self._numbers = [features], [arrays["numbers"]]

    def _fold(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if self.dim is None:
            self.dim, self.mean, self._scatter, self.count = len(mean), mean.copy(), scatter.copy(), count
            return
        total = self.count + count
        shift = mean - self.mean
        if self.capture.moments:
            self._scatter += scatter + np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total


def merge_statistics(parts: Sequence[FeatureStatistics]) -> FeatureStatistics:
    """Merge parts of one set, in the given order, into new statistics.

    Raises:
        ValueError: no part, or parts that do not fit together.
    """
    if not parts:
        raise ValueError("parts: expected at least one, got none")
    merged = FeatureStatistics(parts[0].capture)
    for part in parts:
        merged.merge(part)
    return merged


def _to_numpy(values: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)
