"""Tar shards: any tar program reads them, records come back byte for byte, pipes and random access, damage."""

import io
import os
import pickle
import shutil
import tarfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.clip_dataset import ClipDataset
from portrait4d.data.convert_records import convert_records
from portrait4d.data.lmdb_store import LmdbReader, LmdbRecordStore
from portrait4d.data.portrait_dataset import PortraitDataset
from portrait4d.data.record_stores import detect_kind
from portrait4d.data.records import CLIP, STILL, encode_record
from portrait4d.data.shards import ShardRecordStore, ShardWriter, shards_of_rank, stream_shard
from portrait4d.files.errors import InputFileError, UserError
from tests.helpers.damaged_arrays import DAMAGED_ARRAYS
from tests.helpers.full_disk import file_size_limit


@pytest.fixture(scope="module")
def shards(still_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stills as shards of about 20 KB."""
    folder = tmp_path_factory.mktemp("shards") / "FFHQ"
    assert convert_records(LmdbRecordStore(still_database, STILL), folder, "shards", 30000) == 16
    return folder


def test_records_survive_the_round_trip(still_database: Path, shards: Path, tmp_path: Path) -> None:
    assert len(list(shards.glob("*.tar"))) > 2 and detect_kind(shards) == STILL
    convert_records(ShardRecordStore(shards, STILL), tmp_path / "db", "lmdb")
    assert list(LmdbReader(tmp_path / "db").items()) == list(LmdbReader(still_database).items())
    with pytest.raises(UserError, match="is there already"):
        convert_records(ShardRecordStore(shards), tmp_path / "db", "lmdb")


def test_members_are_plain_files(shards: Path) -> None:
    with tarfile.open(shards / "shard-00000.tar") as archive:
        names = archive.getnames()
    expected = ["00000000.json", "00000000.image.png", "00000000.seg.png", "00000000.labels", "00000000.mots"]
    assert names[:6] == [*expected, "00000001.json"] and names[6] == "00000001.image.jpg"


def test_the_dataset_s_interface_is_the_same(
    still_database: Path, clip_database: Path, shards: Path, tmp_path: Path
) -> None:
    ours, theirs = PortraitDataset(shards), PortraitDataset(still_database)
    assert len(ours) == 16
    for index in (0, 7, 15):
        assert all(torch.equal(a, b) for a, b in zip(ours[index], theirs[index], strict=True))
    convert_records(LmdbRecordStore(clip_database, CLIP), tmp_path / "clips", "shards")
    first = ClipDataset(tmp_path / "clips").load_frames(1, 2, 3)
    second = ClipDataset(clip_database).load_frames(1, 2, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_shard_streams_through_a_pipe(still_database: Path, shards: Path) -> None:
    wanted = [value for key, value in LmdbReader(still_database).items() if key.isdigit()]
    got = []
    for path in sorted(shards.glob("*.tar")):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(path.read_bytes())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            got += list(stream_shard(pipe, STILL))
        os.waitpid(child, 0)
    assert [key for key, _ in got] == [f"{k:08d}" for k in range(16)]
    assert [encode_record(STILL, fields) for _, fields in got] == wanted


def test_ranks_share_shards() -> None:
    names = [Path(str(k)) for k in range(5)]
    assert [shards_of_rank(names, rank, 2) for rank in range(2)] == [names[0::2], names[1::2]]
    with pytest.raises(ValueError, match="rank: expected 0 to 1, got 2"):
        shards_of_rank(names, 2, 2)


def test_stores_are_pickled_and_forked(shards: Path) -> None:
    store = ShardRecordStore(shards)
    with store.fields(3) as fields:
        wanted = bytes(fields["image"])
    with pickle.loads(pickle.dumps(store)).fields(3) as fields:
        assert bytes(fields["image"]) == wanted
    with pytest.raises(IndexError), store.fields(16):
        pass


def test_damage_is_named(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    os.truncate(copy / "shard-00001.tar", 6000)
    store = ShardRecordStore(copy)
    last = len(store) - 1
    with store.fields(0) as fields:
        assert fields["channels"] == 3
    broken = next(k for k in range(len(store)) if k >= len(store._rows[0]) + 1)
    with pytest.raises(InputFileError, match=r"shard-00001\.tar: is cut short in record"), store.fields(broken):
        pass
    (copy / "shard-00002.tar").unlink()
    with (
        pytest.raises(InputFileError, match=r"cannot be read"),
        store.fields(min(last, sum(map(len, store._rows[:2])))),
    ):
        pass
    with pytest.raises(InputFileError, match="expected records of Datum_vfhq, got Datum_genhead"):
        ShardRecordStore(copy, CLIP)
    (copy / "index.json").write_text("{}")
    with pytest.raises(InputFileError, match="not a readable index of shards"):
        ShardRecordStore(copy)
    with pytest.raises(ValueError, match="expected a complete tar file"):
        list(stream_shard(io.BytesIO((shards / "shard-00000.tar").read_bytes()[:5000]), STILL))
    with pytest.raises(ValueError, match="expected records of Datum_vfhq"):
        list(stream_shard(io.BytesIO((shards / "shard-00000.tar").read_bytes()), CLIP))


def test_damaged_tables_are_named(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    table = copy / "shard-00001.npy"
    rows = np.load(table)
    for other in (rows[:, :-1], rows[0], rows.astype(float), rows[1:]):
        np.save(table, other)
        with pytest.raises(InputFileError, match="its shards' index files do not fit index.json; copy it again"):
            ShardRecordStore(copy)
    for content in DAMAGED_ARRAYS:
        table.write_bytes(content)
        with pytest.raises(InputFileError, match="not a readable index of shards"):
            ShardRecordStore(copy)


def test_a_full_disk_is_said_and_complete_shards_are_gone_on_with(still_database: Path, tmp_path: Path) -> None:
    values = [value for key, value in LmdbReader(still_database).items() if key.isdigit()]
    folder = tmp_path / "unfinished"
    with (
        file_size_limit(50000),
        pytest.raises(UserError, match="cannot be written .* make room and run again with --resume"),
        closing(ShardWriter(folder, STILL, 20000)) as writer,
    ):
        writer.append(values[:4], {"next": 4})
        assert (folder / "shard-00000.tar").exists()
        writer.append(values[4:], {"next": 16})
    with closing(ShardWriter(folder, STILL, 20000)) as writer:
        assert (writer.entries, writer.state) == (4, {"next": 4})
        writer.append(values[4:], {"next": 16})
        writer.finish(tmp_path / "made")
    assert len(ShardRecordStore(tmp_path / "made")) == 16


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"shards": 1, "state": null}'])
def test_damaged_notes_of_an_unfinished_folder_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "packing_state.json").write_text(content)
    for _ in range(2):  # the folder is not kept locked
        with pytest.raises(UserError, match=f"packing_state.json: is damaged .*; remove {tmp_path} and begin again"):
            ShardWriter(tmp_path, STILL)
