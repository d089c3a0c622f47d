"""LMDB reader and writer: forks, threads, growth, kills between commits, damage."""

import os
import pickle
import shutil
import threading
from pathlib import Path

import pytest

from portrait4d.data.lmdb_store import COUNT_KEY, DATA_FILE, LmdbReader, LmdbRecordStore, LmdbWriter, record_key
from portrait4d.data.records import STILL, encode_record
from portrait4d.files.errors import InputFileError, UserError


def write(folder: Path, values: list[bytes], **limits: int) -> Path:
    writer = LmdbWriter(folder.with_name("unfinished-" + folder.name), **limits)
    for value in values:
        writer.append([value], {})
    writer.finish(folder)
    return folder


def values(count: int, size: int = 100) -> list[bytes]:
    return [f"{number:04d}".encode() * (size // 4) for number in range(count)]


def test_keys_and_count_are_the_reference_s(tmp_path: Path) -> None:
    reader = LmdbReader(write(tmp_path / "db", values(3)))
    pairs = list(reader.items())
    assert [key for key, _ in pairs] == [b"00000000", b"00000001", b"00000002", b"num_samples"]
    assert pairs[-1][1] == b"3" and len(reader) == 3
    with reader.record(1) as data:
        assert bytes(data) == values(3)[1]
    with pytest.raises(IndexError), reader.record(3):
        pass
    assert record_key(123456789) == b"123456789"


def test_the_map_grows_with_the_data(tmp_path: Path) -> None:
    wanted = values(60, 20000)
    folder = write(tmp_path / "db", wanted, map_bytes=65536, commit_entries=7)
    assert [value for key, value in LmdbReader(folder).items() if key != COUNT_KEY] == wanted


def test_many_readers_of_one_place_share_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", values(5))
    readers = [LmdbReader(folder), LmdbReader(str(folder) + "/"), pickle.loads(pickle.dumps(LmdbReader(folder)))]
    assert [reader.get(record_key(2)) for reader in readers] == [values(5)[2]] * 3
    del readers
    shutil.rmtree(folder)
    assert len(LmdbReader(write(tmp_path / "db", values(2)))) == 2


def test_forked_children_read_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", values(50))
    reader = LmdbReader(folder)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            fine = reader.get(record_key(7)) == values(50)[7] and len(LmdbReader(folder)) == 50
            os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert reader.get(record_key(8)) == values(50)[8]


def test_threads_read_at_once(tmp_path: Path) -> None:
    reader = LmdbReader(write(tmp_path / "db", values(100, 4000)))
    reader._process = -1  # opened by the threads themselves
    wrong = []

    def read(first: int) -> None:
        for step in range(300):
            number = (first + 7 * step) % 100
            with reader.record(number) as data:
                if bytes(data[:4]) != f"{number:04d}".encode():
                    wrong.append(number)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_writer_goes_on_after_its_last_commit(tmp_path: Path) -> None:
    wanted = values(11)
    writer = LmdbWriter(tmp_path / "part", commit_entries=4)
    for number, value in enumerate(wanted[:6]):
        writer.append([value], {"next": number + 1})
    writer.close()  # two records were not committed
    writer = LmdbWriter(tmp_path / "part", commit_entries=4)
    assert writer.entries == 4 and writer.state == {"next": 4} and not writer.is_complete
    for number in range(4, 11):
        writer.append([wanted[number]], {"next": number + 1})
    writer.finish(tmp_path / "db")
    assert dict(LmdbReader(tmp_path / "db").items()) == dict(LmdbReader(write(tmp_path / "twin", wanted)).items())
    assert not (tmp_path / "part").exists()


def test_a_complete_database_only_lacks_its_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", values(3))
    folder.rename(tmp_path / "part")
    writer = LmdbWriter(tmp_path / "part")
    assert writer.is_complete
    writer.finish(folder)
    assert len(LmdbReader(folder)) == 3


def test_two_writers_or_an_existing_target_are_refused(tmp_path: Path) -> None:
    writer = LmdbWriter(tmp_path / "part")
    with pytest.raises(UserError, match="another process is writing there"):
        LmdbWriter(tmp_path / "part")
    (tmp_path / "db").mkdir()
    with pytest.raises(UserError, match="is there already"):
        writer.finish(tmp_path / "db")


def test_a_truncated_database_is_refused_and_not_mapped(tmp_path: Path) -> None:
    folder = write(tmp_path / "db", values(50, 4000))
    data = folder / DATA_FILE
    size = data.stat().st_size
    for kept in (size - 4096, size // 2, 8192, 100, 0):
        os.truncate(data, kept)
        with pytest.raises(InputFileError, match=r"data\.mdb: (is cut short|not a readable LMDB database)"):
            LmdbReader(folder)


def test_other_files_and_unfinished_databases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no LMDB database"):
        LmdbReader(tmp_path)
    (tmp_path / DATA_FILE).write_bytes(b"something else" * 1000)
    with pytest.raises(InputFileError, match="not a readable LMDB database"):
        LmdbReader(tmp_path)
    writer = LmdbWriter(tmp_path / "part")
    writer.append([b"x"], {})
    writer.commit()
    writer.close()
    with pytest.raises(InputFileError, match="no valid num_samples"):
        LmdbReader(tmp_path / "part")


def test_damaged_and_missing_records_are_named(tmp_path: Path) -> None:
    good = encode_record(STILL, {"channels": 3, "image": b"abc"})
    store = LmdbRecordStore(write(tmp_path / "db", [good, good[:-1]]), STILL)
    with store.fields(0) as fields:
        assert fields["channels"] == 3
    with (
        pytest.raises(InputFileError, match="record 1 is damaged: record: expected a complete message"),
        store.fields(1),
    ):
        pass
    store.reader.count = 5
    with pytest.raises(InputFileError, match="has no record 4 of 5"), store.fields(4):
        pass
