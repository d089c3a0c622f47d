"""The safe pickle reader reads what it should: plain values, numeric arrays, listed classes as inert records."""

import collections
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from portrait4d.files.safe_pickle import NUMPY_RULES, NamedObject, Record, read_pickle
from tests.helpers.pickle_cases import INERT, Plain, read, refused, stand_in_modules

PROTOCOLS = range(6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values(protocol: int) -> None:
    shared = [1, 2]
    value = {
        "numbers": [
            0,
            1,
            -1,
            255,
            65536,
            -(2**31),
            2**40,
            -(2**70),
            0x1950A86A20F9469CFC6C,
            1.5,
            -1e300,
            True,
            False,
            None,
        ],
        "text": ["", "é", "a\nb", "\U0001f600" * 100, "x" * 70_000],
        b"bytes": [b"", b"\x00\xff", bytes(range(256)) * 2],
        3: ({"a": ()}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), shared, shared),
        "sets": [set(), {1, 2}, frozenset({"a"})],
        "slice": slice(1, None, 2),
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "many": list(range(3000)),
    }
    result = read(pickle.dumps(value, protocol))
    assert result == value
    assert list(result["ordered"]) == ["b", "a"]
    assert result[3][5] is result[3][6]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", ["?", "i1", "u1", "<i2", ">i4", "u4", "i8", "u8", "f2", "f4", ">f8", "c8", "c16"])
def test_numeric_arrays(protocol: int, code: str) -> None:
    dtype = np.dtype(code)
    base = (
        (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)
        if code == "?"
        else np.arange(24).reshape(2, 3, 4).astype(dtype)
    )
    value = [
        base,
        np.asfortranarray(base),
        base.transpose(1, 0, 2),
        base[:, :0],
        base[0, 0, 1:2].reshape(()),
        base[0, 1, 2],
    ]
    *arrays, scalar = read(pickle.dumps(value, protocol))
    for got, wanted in zip(arrays, value, strict=False):
        assert got.dtype == dtype and got.shape == wanted.shape
        assert (got == wanted).all()
    assert scalar == value[-1].item() and type(scalar) is type(value[-1].item())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shared_array_stays_one_array(protocol: int) -> None:
    array = np.arange(5.0)
    first, second = read(pickle.dumps([array, {"again": array}], protocol))
    assert first is second["again"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_large_arrays_come_from_the_mapped_file(tmp_path: Path, protocol: int) -> None:
    value = {"large": np.random.default_rng(0).standard_normal((300, 400)), "after": 7, "raw": b"z" * 100_000}
    (tmp_path / "large.pkl").write_bytes(pickle.dumps(value, protocol))
    result = read_pickle(tmp_path / "large.pkl", NUMPY_RULES)
    assert (result["large"] == value["large"]).all()
    assert not result["large"].flags.writeable
    assert result["after"] == 7 and bytes(result["raw"]) == value["raw"]


def test_python_2_strings_are_latin_1_text_and_array_bytes() -> None:
    payload = struct.pack("<3d", 1.0, -2.5, 1e-300)
    stream = (
        b"\x80\x02}(U\x01\xe9cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(payload)) + payload + b"tbu."
    )
    assert read(stream)["é"].tolist() == [1.0, -2.5, 1e-300]


class Slotted:
    __slots__ = ("a",)


class Mapping(dict):
    pass


class Sequence(list):
    pass


class WithKeywords:
    def __getnewargs_ex__(self) -> tuple:
        return (1,), {"b": 2}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_listed_classes_become_inert_records(protocol: int) -> None:
    slotted, mapping, sequence = Slotted(), Mapping(x=1), Sequence([4, 5])
    keyworded = WithKeywords() if protocol >= 4 else Plain()  # older protocols need functools.partial
    slotted.a, mapping.extra = 3, "attribute"
    members = {kind.__name__: kind for kind in (Plain, Slotted, Mapping, Sequence, WithKeywords)}
    with stand_in_modules(fake_package__inner=members):
        data = pickle.dumps([Plain(), slotted, mapping, sequence, keyworded, Plain], protocol)
    plain, slots, items, values, keywords, named = read(data, rules=INERT)
    assert plain.path == "fake_package.inner.Plain" and plain.state == {"value": 1} and plain.args == ()
    assert slots.state == (None, {"a": 3})
    assert items.items == [("x", 1)] and items.state == {"extra": "attribute"}
    assert values.values == [4, 5]
    if protocol >= 4:
        assert keywords.args == (1,) and keywords.kwargs == {"b": 2}
    assert named == NamedObject("fake_package.inner.Plain")
    assert "fake_package" not in sys.modules


@pytest.mark.parametrize("protocol", [0, 1])
def test_objects_of_the_first_protocols_become_records(protocol: int) -> None:
    with stand_in_modules(fake_package__inner={"Plain": Plain}):
        data = pickle.dumps(Plain(), protocol)
    record = read(data, rules=INERT)
    assert type(record) is Record and record.path == "fake_package.inner.Plain" and record.state == {"value": 1}


def test_copyreg_names_of_both_pythons() -> None:
    stream = b"\x80\x02c%s\n__newobj__\ncfake_package\nThing\nK\x05\x86R}U\x01aK\x01sb."
    for module in (b"copyreg", b"copy_reg"):
        record = read(stream % module, rules=INERT)
        assert record.path == "fake_package.Thing" and record.args == (5,) and record.state == {"a": 1}
    refused(
        b"\x80\x02ccopyreg\n_reconstructor\ncfake_package\nThing\ncbuiltins\nobject\nK\x01\x87R.",
        "built-in",
        rules=INERT,
    )


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "fake_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert type(read(b"\x80\x02cfake_package.sub\nThing\n)\x81.", rules=INERT)) is Record
    refused(b"\x80\x02cfake_package.sub\nThing\n)\x81.", "fake_package.sub.Thing")
    assert "fake_package" not in sys.modules
