"""LMDB environments of numbered records: the one place that knows lmdb.

Layout (datasets.md §3): one environment per directory (data.mdb), keys `00000000`, `00000001`, ... in ASCII, and
`num_samples` with the count. A database being written also holds `packing_state`, in the same transactions as the
records, so that a killed writer goes on exactly after its last commit; finishing removes it.
"""

import json
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb

from portrait4d.data.records import Fields, RecordKind, decode_record
from portrait4d.data.unfinished_folder import finish_folder, lock_folder
from portrait4d.files.errors import InputFileError, UserError

COUNT_KEY = b"num_samples"
STATE_KEY = b"packing_state"
DATA_FILE = "data.mdb"
FIRST_MAP_BYTES = 2**30
"""Address space a new writer asks for; doubled whenever it is full. The file itself only grows with its content."""
COMMIT_ENTRIES = 200
COMMIT_BYTES = 2**28
"""A batch is committed when it holds this many entries, or bytes: a clip of 512-pixel frames takes 53 MB."""

_LOCK = threading.Lock()
_OPEN: "weakref.WeakValueDictionary[tuple[int, int], _Environment]" = weakref.WeakValueDictionary()


def _forget_parent() -> None:
    """Close, in a forked child, what it inherited: lmdb must not use an environment across a fork."""
    global _LOCK
    _LOCK = threading.Lock()
    for environment in list(_OPEN.values()):
        environment.env.close()
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def record_key(index: int) -> bytes:
    """Return the key of record `index`: at least eight decimal digits."""
    return f"{index:08d}".encode()


class _Environment:
    """An environment of this process, shared by all readers of the file: lmdb refuses to open one twice."""

    def __init__(self, path: Path) -> None:
        data = path / DATA_FILE
        try:
            size = data.stat().st_size
            self.env = lmdb.open(
                str(path), map_size=max(size, 4096), readonly=True, lock=False, readahead=False, meminit=False
            )
        except (lmdb.Error, OSError) as error:
            raise InputFileError(data, f"not a readable LMDB database ({error})", "pack or copy it again") from error
        needed = (self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"]
        if size < needed:  # reading past the end of the mapped file would kill the process
            self.env.close()
            raise InputFileError(data, f"is cut short: {size} of {needed} bytes", "copy it again")

    def __del__(self) -> None:
        if hasattr(self, "env"):
            self.env.close()


class LmdbReader:
    """Read records of one environment; safe to share between threads, to fork and to pickle.

    The environment is opened on first use in each process: read-only, without lock file, without read-ahead.

    Args:
        path: directory that holds data.mdb.

    Raises:
        InputFileError: no such database, not one, cut short, or without a count.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / DATA_FILE).is_file():
            raise InputFileError(self.path, f"no LMDB database ({DATA_FILE}) in this folder", "pack one: generate_lmdb")
        self._environment: _Environment | None = None
        self._process = -1
        count = self.get(COUNT_KEY)
        if count is None or not count.isdigit():
            raise InputFileError(self.path, f"has no valid {COUNT_KEY.decode()}", "pack it again (unfinished?)")
        self.count = int(count)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_environment": None, "_process": -1}

    def __len__(self) -> int:
        return self.count

    @contextmanager
    def record(self, index: int) -> Iterator[memoryview]:
        """Give the bytes of record `index`, a view that is valid inside the block only.

        Raises:
            IndexError: unless 0 <= index < len.
            InputFileError: the record is missing or the database damaged.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"index: expected 0 to {self.count - 1}, got {index}")
        with self._transaction() as transaction:
            value = transaction.get(record_key(index))
            if value is None:
                raise InputFileError(self.path, f"has no record {index} of {self.count}", "pack it again")
            yield memoryview(value)

    def get(self, key: bytes) -> bytes | None:
        """Return a copy of the value of `key`, or None.

        Raises:
            InputFileError: the database is damaged.
        """
        with self._transaction() as transaction:
            value = transaction.get(key)
            return None if value is None else bytes(value)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield copies of all keys and values in key order."""
        with self._transaction() as transaction:
            for key, value in transaction.cursor():
                yield bytes(key), bytes(value)

    @contextmanager
    def _transaction(self) -> Iterator[lmdb.Transaction]:
        if self._process != os.getpid():
            self._environment, self._process = self._open(), os.getpid()
        try:
            with self._environment.env.begin(buffers=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise InputFileError(self.path / DATA_FILE, f"is damaged ({error})", "copy or pack it again") from error

    def _open(self) -> _Environment:
        status = (self.path / DATA_FILE).stat()
        key = (status.st_dev, status.st_ino)
        with _LOCK:
            environment = _OPEN.get(key)
            if environment is None:
                environment = _OPEN[key] = _Environment(self.path)
            return environment


class LmdbRecordStore:
    """The records of an LMDB database as fields; see `records.RecordStore`."""

    def __init__(self, path: str | Path, kind: RecordKind) -> None:
        self.reader = LmdbReader(path)
        self.path = self.reader.path
        self.kind = kind

    def __len__(self) -> int:
        return len(self.reader)

    @contextmanager
    def fields(self, index: int) -> Iterator[Fields]:
        """Give the fields of record `index`, valid inside the block only.

        Raises:
            IndexError: unless 0 <= index < len.
            InputFileError: the record is missing or malformed.
        """
        with self.reader.record(index) as data:
            try:
                fields = decode_record(self.kind, data)
            except ValueError as error:
                raise InputFileError(self.path, f"record {index} is damaged: {error}", "pack it again") from error
            yield fields


class LmdbWriter:
    """Write records in batches of transactions; a killed writer is resumed after its last commit.

    Args:
        folder: directory of the unfinished database; made if it does not exist.
        map_bytes: address space to begin with.
        commit_entries, commit_bytes: when a batch is committed.

    Attributes:
        entries: records appended so far, those of earlier runs included.
        state: the caller's notes at the last commit, None for a new database.

    Raises:
        UserError: the place cannot be written, or another process is writing there.
    """

    def __init__(
        self,
        folder: Path,
        map_bytes: int = FIRST_MAP_BYTES,
        commit_entries: int = COMMIT_ENTRIES,
        commit_bytes: int = COMMIT_BYTES,
    ) -> None:
        self.folder = folder
        self._limits = (commit_entries, commit_bytes)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._guard = lock_folder(folder)
        try:
            size = (folder / DATA_FILE).stat().st_size if (folder / DATA_FILE).exists() else 0
            self._env = lmdb.open(str(folder), map_size=max(map_bytes, 2 * size), readahead=False)
        except (lmdb.Error, OSError) as error:
            raise UserError(f"{folder}: cannot be written ({error}); choose another output folder") from error
        with self._env.begin() as transaction:
            stored = transaction.get(STATE_KEY)
            self.is_complete = stored is None and transaction.get(COUNT_KEY) is not None
        notes = json.loads(stored) if stored else {"entries": 0, "state": None}
        self.entries: int = notes["entries"]
        self.state: dict | None = notes["state"]

    def append(self, values: Sequence[bytes], state: dict) -> None:
        """Append records that belong together, none or any number; `state` is what to note once they are stored.

        Raises:
            UserError: a batch is due and cannot be written: disk full.
        """
        self._pending += values
        self._pending_bytes += sum(map(len, values))
        self.entries += len(values)
        self.state = state
        if len(self._pending) >= self._limits[0] or self._pending_bytes >= self._limits[1]:
            self.commit()

    def commit(self) -> None:
        """Store what is pending in one transaction.

        Raises:
            UserError: disk full; earlier commits stay.
        """
        first = self.entries - len(self._pending)
        pairs = [(record_key(first + k), value) for k, value in enumerate(self._pending)]
        notes = json.dumps({"entries": self.entries, "state": self.state}).encode()
        self._write([*pairs, (STATE_KEY, notes)])
        self._pending, self._pending_bytes = [], 0

    def finish(self, target: Path) -> None:
        """Store the rest and the count, close, and give the database its final name in one step.

        Raises:
            UserError: disk full, or `target` exists.
        """
        if not self.is_complete:
            self.commit()
            self._write([(COUNT_KEY, str(self.entries).encode()), (STATE_KEY, None)])
        self.close()
        finish_folder(self.folder, target)

    def close(self) -> None:
        """Close without finishing; what is committed can be resumed."""
        self._env.close()
        self._guard.close()

    def _write(self, pairs: list[tuple[bytes, bytes | None]]) -> None:
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, value in pairs:
                        _ = transaction.delete(key) if value is None else transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()["map_size"])
            except (lmdb.Error, OSError) as error:
                raise UserError(
                    f"{self.folder}: cannot be written ({error}); all but the last batch is safe: make room and run "
                    "again with --resume"
                ) from error
