"""Copy records between an LMDB database and tar shards: `python -m portrait4d.data.convert_records`."""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from portrait4d.data.lmdb_store import LmdbWriter
from portrait4d.data.record_stores import detect_kind, open_records
from portrait4d.data.records import RecordStore, encode_record
from portrait4d.data.shards import SHARD_BYTES, ShardWriter
from portrait4d.files.atomic import write_text
from portrait4d.files.errors import UserError

ORIGIN_FILE = "conversion.json"
"""Beside the data: what it was copied from."""


def convert_records(store: RecordStore, target: Path, container: str, shard_bytes: int = SHARD_BYTES) -> int:
    """Copy all records of `store`; an unfinished copy of it is gone on with, one of something else is refused.

    Args:
        store: what to copy.
        target: folder to make.
        container: "lmdb" or "shards".
        shard_bytes: when a shard is closed.

    Returns:
        The number of records.

    Raises:
        UserError: `target` exists or cannot be written, or an unfinished copy of something else is in the way.
        ValueError: another container.
    """
    if container not in ("lmdb", "shards"):
        raise ValueError(f"container: expected lmdb or shards, got {container!r}")
    if target.exists():
        raise UserError(f"{target}: is there already; move it away")
    folder = target.with_name(f".unfinished-{target.name}")
    with closing(LmdbWriter(folder) if container == "lmdb" else ShardWriter(folder, store.kind, shard_bytes)) as writer:
        origin = {"origin": str(store.path.resolve()), "records": len(store)}
        if writer.is_complete or writer.state is not None:
            _require_origin(folder, origin)
        else:
            write_text(folder / ORIGIN_FILE, json.dumps(origin))
        first = len(store) if writer.is_complete else writer.entries
        for index in tqdm(range(first, len(store)), unit="record"):
            with store.fields(index) as fields:
                value = encode_record(store.kind, fields)
            writer.append([value], origin)
        writer.finish(target)
    return len(store)


def _require_origin(folder: Path, origin: dict) -> None:
    try:
        found = json.loads((folder / ORIGIN_FILE).read_text())
    except (OSError, ValueError):
        found = None
    if found != origin:
        raise UserError(f"{folder}: is an unfinished copy of something else; remove it")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, copy, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m portrait4d.data.convert_records", description=__doc__.split(":")[0] + "."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of an LMDB database or of tar shards")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--format", choices=["lmdb", "shards"], required=True, help="what to make")
    parser.add_argument("--shard-mb", type=int, default=SHARD_BYTES >> 20, help="size of a shard in MiB")
    options = parser.parse_args(arguments)
    try:
        store = open_records(options.data, detect_kind(options.data))
        count = convert_records(store, options.output, options.format, options.shard_mb << 20)
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    sys.stdout.write(f"{count} records in {options.output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
