"""The safe pickle reader: it reads what it should, refuses everything else by name, and survives damage."""

import builtins
import collections
import copyreg
import functools
import io
import os
import pickle
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from portrait4d.files.errors import InputFileError
from portrait4d.files.pickle_arrays import PickleRefusedError, ReadBudget
from portrait4d.files.pickle_machine import ByteSource, PickleMachine
from portrait4d.files.safe_pickle import (
    NUMPY_RULES,
    NamedObject,
    Record,
    read_object_npy,
    read_pickle,
    read_pickle_bytes,
)
from tests.helpers.pickle_cases import Call, damaged_copies, stand_in_modules

PROTOCOLS = range(6)
INERT = NUMPY_RULES.extended({}, prefixes=("fake_package.",))


def read(data: bytes, **options: object) -> object:
    return read_pickle_bytes(data, "some.pkl", options.pop("rules", NUMPY_RULES), **options)


def refused(data: bytes, match: str, **options: object) -> None:
    with pytest.raises(InputFileError, match=match) as caught:
        read(data, **options)
    assert str(caught.value).startswith("some.pkl: ")
    assert "\n" not in str(caught.value)


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


class Plain:
    def __init__(self) -> None:
        self.value = 1


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


FORBIDDEN = [
    os.system,
    eval,
    exec,
    compile,
    open,
    getattr,
    setattr,
    __import__,
    map,
    type,
    functools.partial,
    np.load,
    np.save,
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("function", FORBIDDEN, ids=lambda function: function.__name__)
def test_other_names_are_refused_by_name(tmp_path: Path, protocol: int, function: object) -> None:
    marker = tmp_path / "ran"
    data = pickle.dumps({"a": [1, Call(function, (f"touch {marker}",))]}, protocol)
    refused(data, function.__name__)
    refused(pickle.dumps(function, protocol), function.__name__)
    assert not marker.exists()


@pytest.mark.parametrize("path", ["os system", "posix system", "nt system", "subprocess Popen", "builtins breakpoint"])
def test_names_as_text(path: str) -> None:
    module, name = path.split()
    refused(f"c{module}\n{name}\n(S'echo'\ntR.".encode(), f"{module}.{name}")
    refused(b"\x80\x04\x8c%c%s\x8c%c%s\x93." % (len(module), module.encode(), len(name), name.encode()), name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("collections", "OrderedDict.__init__"),
        ("numpy", "ndarray.tofile"),
        ("builtins", "set.__class__"),
    ],
)
def test_attributes_of_allowed_names_are_refused(module: str, name: str) -> None:
    refused(b"\x80\x04\x8c%c%s\x8c%c%s\x93." % (len(module), module.encode(), len(name), name.encode()), name)


def test_inert_names_are_identifiers() -> None:
    refused(b"\x80\x02cfake_package.a b\nc d\n.", "fake_package", rules=INERT)
    refused(b"\x80\x04\x8c\x0efake_package.x\x8c\x03a\nb\x93.", "fake_package", rules=INERT)


@pytest.mark.parametrize(
    ("opcodes", "name"),
    [
        (b"(icollections\nOrderedDict\n.", "INST"),
        (b"(ccollections\nOrderedDict\no.", "OBJ"),
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\x00.", "EXT2"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (b"Pkey\n.", "PERSID"),
        (b"K\x01Q.", "persistent id"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"C\x00\x98.", "READONLY_BUFFER"),
        (b"\x8b\x01\x00\x00\x00\x01.", "LONG4"),
    ],
)
def test_opcodes_that_are_refused(opcodes: bytes, name: str) -> None:
    refused(b"\x80\x02" + opcodes, name)


def test_registered_extensions_are_refused() -> None:
    copyreg.add_extension(os.system.__module__, "system", 200)
    try:
        data = pickle.dumps(os.system, 2)
        assert b"\x82\xc8" in data
        refused(data, "EXT1")
        pickle.loads(data)  # puts the function itself into the interpreter's cache of extensions
        refused(data, "EXT1")
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 200)


ARRAY = pickle.dumps(np.zeros(3), 2)[:-1]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x80\x02ccollections\nOrderedDict\n}U\x01aK\x01sb.", "attributes"),
        (b"\x80\x02cnumpy\nndarray\nN}U\x01aK\x01s\x86b.", "attributes"),
        (b"\x80\x02cnumpy\nndarray\nU\x01aK\x01s.", "stores items"),
        (ARRAY + b"K\x00K\x01s.", "stores items"),
        (ARRAY + b"K\x00a.", "appends"),
        (ARRAY + b"(K\x00\x90.", "adds members"),
        (ARRAY + b"}U\x01aK\x01sb.", "attributes"),
        (ARRAY + b")R.", "calls a ndarray"),
        (b"\x80\x02U\x01a)R.", "calls a str"),
        (b"\x80\x02(K\x01lK\x01\x85R.", "calls a list"),
        (b"\x80\x02ccollections\nOrderedDict\n)R)R.", "calls a dict"),
        (b"\x80\x02ccollections\nOrderedDict\n}R.", "malformed arguments"),
        (b"\x80\x02ccollections\nOrderedDict\n)}U\x01aK\x01s\x92.", "calls a _Replacement"),
        (b"\x80\x02}()K\x01u.", "key"),
        (b"\x80\x02(]K\x01d.", "key"),
        (b"\x80\x04\x8f()\x90.", "key"),
        (b"\x80\x04()\x91.", "key"),
        (b"\x80\x02c__builtin__\nset\n()l\x85R.", "key"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R.", "latin-1"),
        (b"\x80\x02c__builtin__\nslice\n(U\x01aK\x01tR.", "slice"),
        (b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.", "bytes"),
        (b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "bytes"),
    ],
)
def test_objects_on_the_stack_have_no_methods(data: bytes, match: str) -> None:
    refused(data, match)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, 1], dtype=object),
        np.array({"a": 1}, dtype=object),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.zeros(2, [("a", "f4"), ("b", "O")]),
        np.array(["2020-01-01"], "M8[D]"),
        np.zeros(2, np.longdouble),
    ],
    ids=["objects", "object scalar", "text", "bytes", "structured", "dates", "long double"],
)
def test_arrays_that_are_not_numeric_are_refused(protocol: int, array: np.ndarray) -> None:
    refused(pickle.dumps({"a": array}, protocol), "numeric|Python objects|structured")


def array_stream(shape: str, dtype: str = "f8", payload: bytes = b"\x00" * 24) -> bytes:
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"
        + shape.encode()
        + b"cnumpy\ndtype\n(S'"
        + dtype.encode()
        + b"'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
        + repr(payload)[1:].encode()
        + b"\ntb."
    )


def test_sizes_are_checked_before_an_array_is_made() -> None:
    assert read(array_stream("(I3\nt")).tolist() == [0.0, 0.0, 0.0]
    huge = f"(I{2**62}\nt"
    refused(array_stream(huge), "more than 8589934592 bytes")
    refused(array_stream(f"(I{2**40}\nI{2**40}\nI0\nI{2**62}\nt"), "do not match")
    refused(array_stream("(I-3\nt"), "not a tuple of sizes")
    refused(array_stream("(I01\nt"), "not a tuple of sizes")
    refused(array_stream("(" + "I1\n" * 40 + "t"), "not a tuple of sizes")
    refused(array_stream("I3\n"), "not a tuple of sizes")
    refused(array_stream("(I4\nt"), "do not match")
    refused(array_stream("(I2\nt"), "do not match")
    refused(pickle.dumps([np.zeros(1000)] * 2 + [np.zeros(1000)], 4), "more than 15000 bytes", max_bytes=15_000)
    assert len(read(pickle.dumps([np.zeros(1000)] * 20, 4), max_bytes=8000)) == 20


def test_copies_of_one_value_count_against_the_limit() -> None:
    text = (
        b"\x80\x02c_codecs\nencode\nq\x00(X"
        + struct.pack("<I", 60_000)
        + b"a" * 60_000
        + b"X\x06\x00\x00\x00latin1tq\x01R0"
    )
    refused(text + b"(" + b"h\x00h\x01R" * 30 + b"t.", "more than 1000000 bytes", max_bytes=1_000_000)


def test_shared_nesting_and_long_streams_do_not_hang() -> None:
    start = time.monotonic()
    doubled = b")" + b"2\x86" * 200  # a tuple of 2^200 leaves, in 400 bytes
    assert type(read(b"\x80\x04" + doubled + b".")) is tuple
    refused(b"\x80\x04}" + doubled + b"K\x01s.", "key")
    refused(b"\x80\x04\x8f(" + doubled + b"\x90.", "key")
    with pytest.raises(PickleRefusedError, match="steps"):
        PickleMachine(ByteSource(b"N0" * 1000 + b"N."), NUMPY_RULES, ReadBudget(0, max_steps=1000)).load()
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "opcodes",
    [b"B\xff\xff\xff\xff", b"X\xff\xff\xff\xff", b"T\xff\xff\xff\x7f", b"T\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8]
    + [code + struct.pack("<Q", 2**60) for code in (b"\x8e", b"\x96", b"\x8d", b"\x95")],
)
def test_declared_lengths_allocate_nothing(opcodes: bytes) -> None:
    refused(b"\x80\x05" + opcodes + b"a.", "ends too early|damaged")


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


def test_the_machine_has_no_opcode_of_the_interpreter_that_was_not_weighed() -> None:
    from portrait4d.files import pickle_machine

    weighed = set(pickle_machine._HANDLERS) | set(pickle_machine._REFUSED)
    assert weighed == set(pickle._Unpickler.dispatch)
    assert not {builtins.ord(code) for code in ("i", "o", "P")} & set(pickle_machine._HANDLERS)
