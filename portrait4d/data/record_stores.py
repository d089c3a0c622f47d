"""Open a folder of records, whatever container it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor

from portrait4d.data.lmdb_store import DATA_FILE, LmdbRecordStore
from portrait4d.data.records import CLIP, STILL, RecordKind, RecordStore, decode_record
from portrait4d.data.shards import INDEX_FILE, ShardRecordStore
from portrait4d.files.errors import InputFileError

StoreT = TypeVar("StoreT", bound=RecordStore)
MotionFunction = Callable[[Tensor, Tensor], Tensor]
"""Pictures (F, 3, R, R) in [-1, 1] and their labels (F, 437) to motion vectors (F, 548)."""


def open_records(path: str | Path, kind: RecordKind) -> RecordStore:
    """Open an LMDB database or a folder of tar shards.

    Raises:
        InputFileError: neither, damaged, empty, or (shards) of another kind.
    """
    path = Path(path)
    if (path / DATA_FILE).is_file():
        return _not_empty(LmdbRecordStore(path, kind))
    if (path / INDEX_FILE).is_file():
        return _not_empty(ShardRecordStore(path, kind))
    raise InputFileError(path, f"neither an LMDB database ({DATA_FILE}) nor tar shards ({INDEX_FILE})", "pack one")


def detect_kind(path: str | Path) -> RecordKind:
    """Tell stills from clips by the first record: its image is an encoded file, or the record counts frames.

    Raises:
        InputFileError: neither, or there is none.
    """
    path = Path(path)
    if (path / INDEX_FILE).is_file():
        return ShardRecordStore(path).kind
    with _not_empty(LmdbRecordStore(path, CLIP)).reader.record(0) as data:
        try:
            if isinstance(decode_record(CLIP, data).get("num"), int):
                return CLIP
            if "image" in decode_record(STILL, data):
                return STILL
        except ValueError as error:
            raise InputFileError(path, f"record 0 is damaged: {error}") from error
    raise InputFileError(path, "record 0 is neither a still picture nor a clip")


def _not_empty(store: StoreT) -> StoreT:
    if not len(store):
        raise InputFileError(store.path, "holds no record", "pack it again")
    return store


@contextmanager
def record_errors(store: RecordStore, index: int) -> Iterator[None]:
    """Turn what is wrong with record `index` into an InputFileError that names database and record."""
    try:
        yield
    except ValueError as error:
        raise InputFileError(store.path, f"record {index} is damaged: {error}", "pack it again") from error


def rescale_camera(label: np.ndarray, resolution: int) -> np.ndarray:
    """Convert labels (..., 437) of old preprocessing: intrinsics in pixels, translation in metres.

    Intrinsics are divided by twice the principal point's x, the translation becomes three times as large; skew terms
    are multiplied by `resolution` as well, as the reference does. Source: datasets.md §3.
    """
    label = label.copy()
    intrinsics = label[..., 16:22].copy()
    label[..., 16:22] = intrinsics / (2 * intrinsics[..., 2:3])
    label[..., [17, 19]] *= resolution
    label[..., [3, 7, 11]] *= 3
    return label
