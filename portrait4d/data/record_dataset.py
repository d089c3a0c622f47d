"""What datasets of still portraits and of clips have in common: a store of records, and which item is which record."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from portrait4d.data.record_stores import open_records, record_errors
from portrait4d.data.records import Fields, RecordKind
from portrait4d.geometry.head_params import LABEL_DIM
from portrait4d.geometry.mirroring import HeadMirror

ItemT = TypeVar("ItemT", bound=tuple)


class RecordDataset(Dataset[ItemT]):
    """Numbered items of a database; with a mirror every item comes a second time, mirrored, behind the originals.

    Args:
        path: LMDB database or folder of shards.
        kind: of its records.
        read_side: gives the side in pixels of a record's pictures.
        mirror: maps of the head model's coefficients, or None.

    Attributes:
        resolution: side of all pictures in pixels.
        record_indices, is_mirrored: (len,) record of each item, and whether it is a mirrored copy.

    Raises:
        InputFileError: no database, damaged, or empty.
    """

    record_indices: np.ndarray
    is_mirrored: np.ndarray

    def __init__(
        self, path: str | Path, kind: RecordKind, read_side: Callable[[Fields], int], mirror: HeadMirror | None
    ) -> None:
        self.store = open_records(path, kind)
        self.mirror = mirror
        with self.store.fields(0) as fields, record_errors(self.store, 0):
            self.resolution = read_side(fields)

    def choose_records(self, indices: np.ndarray) -> None:
        """Make the records `indices` the items, and their mirrored copies if there is a mirror."""
        copies = 1 if self.mirror is None else 2
        self.record_indices = np.tile(indices, copies)
        self.is_mirrored = np.arange(copies * len(indices)) >= len(indices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, R, R)."""
        return 3, self.resolution, self.resolution

    @property
    def label_shape(self) -> tuple[int]:
        """(437,)."""
        return (LABEL_DIM,)

    def __len__(self) -> int:
        return len(self.record_indices)

    def __getitem__(self, index: int) -> ItemT:
        return self.load(index)

    @abstractmethod
    def load(self, index: int, generator: torch.Generator | None = None) -> ItemT:
        """Load item `index`; `generator` is the source of what is random about it."""

    def record_of(self, index: int) -> int:
        """Return the record of item `index`.

        Raises:
            IndexError: no such item.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        return int(self.record_indices[index])
