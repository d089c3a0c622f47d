"""Files given to the safe pickle reader: other formats, missing files, .npy wrappers, and damage of every kind."""

import collections
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from portrait4d.files.errors import InputFileError
from portrait4d.files.safe_pickle import NUMPY_RULES, read_object_npy, read_pickle
from tests.helpers.pickle_cases import INERT, Call, Plain, damaged_copies, read, stand_in_modules


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04" + b"\x00" * 100, "zip archive"),
        (b"hello, this is a text file\n" * 20, "no pickle"),
        (b"<!DOCTYPE html>\n<html>not found</html>", "no pickle"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "refused"),
        (b"\x80\x09N.", "no pickle"),
        (b"\x80\x02.", "no pickle"),
        (b"\x80\x02N", "too early"),
        (b"\x80\x02h\x05.", "no pickle"),
        (b"I" + b"9" * 5000 + b"\n.", "too many digits"),
    ],
)
def test_files_that_are_no_pickles(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=match) as caught:
        read_pickle(path, NUMPY_RULES)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pkl"):
        with pytest.raises(InputFileError, match="cannot be read"):
            read_pickle(path, NUMPY_RULES)
        with pytest.raises(InputFileError, match="cannot be read"):
            read_object_npy(path, NUMPY_RULES)


def test_object_npy_files(tmp_path: Path) -> None:
    path = tmp_path / "dict.npy"
    value = {"a": np.arange(6).reshape(2, 3), "b": "text"}
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    result = read_object_npy(path, NUMPY_RULES)
    assert result["b"] == "text" and (result["a"] == value["a"]).all()
    data = path.read_bytes()
    wide = data[:6] + b"\x02\x00" + struct.pack("<I", struct.unpack("<H", data[8:10])[0]) + data[10:]
    path.write_bytes(wide)
    assert read_object_npy(path, NUMPY_RULES)["b"] == "text"
    np.save(path, np.array({"a": Call(os.system, ("false",))}, dtype=object), allow_pickle=True)
    with pytest.raises(InputFileError, match="system"):
        read_object_npy(path, NUMPY_RULES)
    np.save(path, np.array({"a": np.array([{}], object)}, dtype=object), allow_pickle=True)
    with pytest.raises(InputFileError, match="Python objects"):
        read_object_npy(path, NUMPY_RULES)


@pytest.mark.parametrize("array", [np.zeros(3), np.array([{}, {}], object), np.array(3.0)], ids=["1d", "objects", "0d"])
def test_other_npy_files_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputFileError, match="one Python object"):
        read_object_npy(tmp_path / "a.npy", NUMPY_RULES)


def test_npy_whose_data_are_not_what_the_header_says(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": ()})
    path = tmp_path / "a.npy"
    path.write_bytes(buffer.getvalue() + pickle.dumps({"a": 1}))
    with pytest.raises(InputFileError, match="something else"):
        read_object_npy(path, NUMPY_RULES)
    for cut in (3, 6, 7, 9, 10, 40, len(buffer.getvalue())):
        path.write_bytes(buffer.getvalue()[:cut])
        with pytest.raises(InputFileError):
            read_object_npy(path, NUMPY_RULES)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_damaged_pickles_never_fail_in_another_way(protocol: int) -> None:
    value = {
        "a": [np.arange(7.0), np.float32(2), {1, 2}, (1, "x", b"y")],
        "b": collections.OrderedDict(c=slice(3)),
        "t": 1.5,
    }
    with stand_in_modules(fake_package__inner={"Plain": Plain}):
        data = pickle.dumps([value, Plain(), 2**40, "é", frozenset("ab"), np.zeros((3, 2), order="F")], protocol)
    read(data, rules=INERT)
    failures = 0
    for copy in damaged_copies(data, truncations=len(data), flips=800):
        try:
            read(copy, rules=INERT)
        except InputFileError:
            failures += 1
    assert failures >= len(data)
