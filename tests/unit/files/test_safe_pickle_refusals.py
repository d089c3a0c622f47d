"""The safe pickle reader refuses every other name, opcode and object by name, and sizes before they are allocated."""

import builtins
import copyreg
import functools
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from portrait4d.files.pickle_arrays import PickleRefusedError, ReadBudget
from portrait4d.files.pickle_machine import ByteSource, PickleMachine
from portrait4d.files.safe_pickle import NUMPY_RULES
from tests.helpers.pickle_cases import INERT, Call, read, refused

PROTOCOLS = range(6)

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
    doubled = b")" + b"2\x86" * 200  # a tuple of 2^200 leaves, in 400 bytes
    assert type(read(b"\x80\x04" + doubled + b".")) is tuple
    refused(b"\x80\x04}" + doubled + b"K\x01s.", "key")
    refused(b"\x80\x04\x8f(" + doubled + b"\x90.", "key")
    with pytest.raises(PickleRefusedError, match="steps"):
        PickleMachine(ByteSource(b"N0" * 1000 + b"N."), NUMPY_RULES, ReadBudget(0, max_steps=1000)).load()


@pytest.mark.parametrize(
    "opcodes",
    [b"B\xff\xff\xff\xff", b"X\xff\xff\xff\xff", b"T\xff\xff\xff\x7f", b"T\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8]
    + [code + struct.pack("<Q", 2**60) for code in (b"\x8e", b"\x96", b"\x8d", b"\x95")],
)
def test_declared_lengths_allocate_nothing(opcodes: bytes) -> None:
    refused(b"\x80\x05" + opcodes + b"a.", "ends too early|damaged")


def test_the_machine_has_no_opcode_of_the_interpreter_that_was_not_weighed() -> None:
    from portrait4d.files import pickle_machine

    weighed = set(pickle_machine._HANDLERS) | set(pickle_machine._REFUSED)
    assert weighed == set(pickle._Unpickler.dispatch)
    assert not {builtins.ord(code) for code in ("i", "o", "P")} & set(pickle_machine._HANDLERS)
