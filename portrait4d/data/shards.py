"""Records as tar shards in the manner of webdataset, for data larger than one disk or read by many nodes.

<folder>/shard-00000.tar   members KEY.json (kind and integers), KEY.FIELD[.png|.jpg] in field order; KEY as in LMDB
<folder>/shard-00000.npy   int64 (records, integers + 2 x byte fields): integers, then offset and length; -1: absent
<folder>/index.json        kind, count, and the shards with their counts; missing while the folder is unfinished

With the small index files a shard serves random access like a database (`ShardRecordStore`); without them it is read
from front to back, from a pipe if need be (`stream_shard`).
"""

import io
import json
import mmap
import os
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from portrait4d.data.records import RECORD_KINDS, Fields, RecordKind, decode_record
from portrait4d.data.unfinished_folder import finish_folder, lock_folder
from portrait4d.files.atomic import atomic_path, write_text
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.files.numpy_errors import UNREADABLE_ARRAY

INDEX_FILE = "index.json"
SHARD_BYTES = 2**30
"""A shard is closed when it holds this many bytes."""
_STATE_FILE = "packing_state.json"
_SIGNATURES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}
_BLOCK = 512


def shards_of_rank(shards: Sequence[Path], rank: int, ranks: int) -> list[Path]:
    """Deal shards out: rank r of n reads numbers r, r + n, ...

    Raises:
        ValueError: unless 0 <= rank < ranks.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank: expected 0 to {ranks - 1}, got {rank}")
    return list(shards)[rank::ranks]


def stream_shard(file: BinaryIO, kind: RecordKind) -> Iterator[tuple[str, dict[str, int | bytes]]]:
    """Yield (key, fields) of a shard read from front to back; `file` need not be seekable.

    Raises:
        ValueError: damaged, cut short, or of another kind.
    """
    key, fields = None, {}
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                name, _, extension = member.name.partition(".")
                data = archive.extractfile(member).read()
                if extension == "json":
                    if key is not None:
                        yield key, fields
                    notes = json.loads(data)
                    if notes.pop("kind", None) != kind.name:
                        raise ValueError(f"shard: expected records of {kind.name}, got another kind at {name}")
                    key, fields = name, notes
                elif name != key or extension.partition(".")[0] not in kind.blobs:
                    raise ValueError(f"shard: expected fields of record {key}, got {member.name}")
                else:
                    fields[extension.partition(".")[0]] = data
    except (tarfile.TarError, OSError, AttributeError) as error:
        raise ValueError(f"shard: expected a complete tar file, got a damaged one ({error})") from error
    if key is not None:
        yield key, fields


class ShardRecordStore:
    """Random access to the records of a folder of shards; see `records.RecordStore`. Safe to fork and to pickle.

    Args:
        path: folder with index.json.
        kind: expected kind; None takes what the index says.

    Raises:
        InputFileError: no shards, damaged, unfinished or of another kind.
    """

    def __init__(self, path: str | Path, kind: RecordKind | None = None) -> None:
        self.path = Path(path)
        try:
            index = json.loads((self.path / INDEX_FILE).read_text())
            self.kind = RECORD_KINDS[index["kind"]]
            self.shards = [self.path / name for name, _ in index["shards"]]
            counts = [count for _, count in index["shards"]]
            self._rows = [np.load(shard.with_suffix(".npy"), allow_pickle=False) for shard in self.shards]
        except UNREADABLE_ARRAY as error:
            raise InputFileError(self.path / INDEX_FILE, f"not a readable index of shards ({error})") from error
        if kind is not None and kind != self.kind:
            raise InputFileError(self.path, f"expected records of {kind.name}, got {self.kind.name}")
        columns = len(self.kind.integers) + 2 * len(self.kind.blobs)
        if not all(_is_table(rows, count, columns) for rows, count in zip(self._rows, counts, strict=True)):
            raise InputFileError(self.path, "its shards' index files do not fit index.json", "copy it again")
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(int).tolist()
        self._maps: dict[int, mmap.mmap] = {}

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_maps": {}}

    def __len__(self) -> int:
        return self._starts[-1]

    @contextmanager
    def fields(self, index: int) -> Iterator[Fields]:
        """Give the fields of record `index`, valid inside the block only.

        Raises:
            IndexError: unless 0 <= index < len.
            InputFileError: the shard is missing or cut short.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        shard = bisect_right(self._starts, index) - 1
        row = self._rows[shard][index - self._starts[shard]].tolist()
        view = memoryview(self._map(shard))
        count = len(self.kind.integers)
        fields: Fields = {name: value for name, value in zip(self.kind.integers, row, strict=False) if value != -1}
        for name, start, length in zip(self.kind.blobs, row[count::2], row[count + 1 :: 2], strict=True):
            if start + length > len(view):
                raise InputFileError(self.shards[shard], f"is cut short in record {index}", "copy it again")
            if start >= 0:
                fields[name] = view[start : start + length]
        yield fields

    def _map(self, shard: int) -> mmap.mmap:
        if shard not in self._maps:
            try:
                with self.shards[shard].open("rb") as file:
                    self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise InputFileError(self.shards[shard], f"cannot be read ({error})", "copy it again") from error
        return self._maps[shard]


def _is_table(rows: object, count: int, columns: int) -> bool:
    return isinstance(rows, np.ndarray) and rows.shape == (count, columns) and rows.dtype.kind == "i"


class ShardWriter:
    """Write records as shards; a killed writer is resumed after its last complete shard. See `RecordWriter`.

    Args:
        folder: the unfinished folder; made if it does not exist.
        kind: of the records.
        shard_bytes: when a shard is closed.

    Raises:
        UserError: the place cannot be written, another process is writing there, or what is there is damaged.
    """

    def __init__(self, folder: Path, kind: RecordKind, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.kind, self.shard_bytes = folder, kind, shard_bytes
        self._guard = lock_folder(folder)
        state_path = folder / _STATE_FILE
        self.is_complete = (folder / INDEX_FILE).exists() and not state_path.exists()
        try:
            notes = json.loads(state_path.read_text()) if state_path.exists() else {"shards": [], "state": None}
            self._shards: list[list] = notes["shards"]
            self.state: dict | None = notes["state"]
            self.entries = sum(count for _, count in self._shards)
        except (OSError, ValueError, LookupError, TypeError) as error:
            self._guard.close()
            raise InputFileError(state_path, f"is damaged ({error})", f"remove {folder} and begin again") from error
        self._archive: tarfile.TarFile | None = None
        self._rows: list[list[int]] = []

    def append(self, values: Sequence[bytes], state: dict) -> None:
        """Append encoded records that belong together; `state` is noted when their shard is complete.

        Raises:
            UserError: disk full.
        """
        try:
            for value in values:
                self._add(f"{self.entries:08d}", decode_record(self.kind, value))
                self.entries += 1
            self.state = state
            if self._archive is not None and self._archive.offset >= self.shard_bytes:
                self._close_shard()
        except OSError as error:
            raise self._full(error) from error

    def finish(self, target: Path) -> None:
        """Close the last shard, write the index, and give the folder its final name in one step.

        Raises:
            UserError: disk full, or `target` exists.
        """
        try:
            if not self.is_complete:
                self._close_shard()
                index = {"kind": self.kind.name, "count": self.entries, "shards": self._shards}
                write_text(self.folder / INDEX_FILE, json.dumps(index))
                (self.folder / _STATE_FILE).unlink()
        except OSError as error:
            raise self._full(error) from error
        self._guard.close()
        finish_folder(self.folder, target)

    def close(self) -> None:
        """Close without finishing; complete shards can be resumed from."""
        if self._archive is not None:
            with suppress(OSError):  # a full disk, again: the shard is not complete and will be written anew
                self._archive.fileobj.close()
        self._guard.close()

    def _add(self, key: str, fields: Fields) -> None:
        if self._archive is None:
            self._archive = tarfile.open(self._temporary, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        integers = {name: fields[name] for name in self.kind.integers if name in fields}
        self._add_member(f"{key}.json", json.dumps({"kind": self.kind.name} | integers).encode())
        row = [integers.get(name, -1) for name in self.kind.integers]
        for name in self.kind.blobs:
            if name not in fields:
                row += [-1, 0]
                continue
            suffix = next((s for mark, s in _SIGNATURES.items() if bytes(fields[name][:4]).startswith(mark)), "")
            row += [self._add_member(f"{key}.{name}{suffix}", fields[name]), len(fields[name])]
        self._rows.append(row)

    def _add_member(self, name: str, data: bytes | memoryview) -> int:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._archive.addfile(member, io.BytesIO(data))
        return self._archive.offset - -(-len(data) // _BLOCK) * _BLOCK

    def _close_shard(self) -> None:
        if self._archive is not None:
            name = f"shard-{len(self._shards):05d}.tar"
            self._archive.close()
            with self._temporary.open("rb+") as file:
                os.fsync(file.fileno())
            with atomic_path((self.folder / name).with_suffix(".npy")) as temporary:
                np.save(temporary, np.array(self._rows, np.int64))
            self._temporary.replace(self.folder / name)
            self._shards.append([name, len(self._rows)])
            self._archive, self._rows = None, []
        write_text(self.folder / _STATE_FILE, json.dumps({"shards": self._shards, "state": self.state}))

    @property
    def _temporary(self) -> Path:
        return self.folder / ".unfinished.tar"

    def _full(self, error: OSError) -> UserError:
        problem = f"{self.folder}: cannot be written ({error.strerror or error})"
        return UserError(f"{problem}; complete shards are safe: make room and run again with --resume")
