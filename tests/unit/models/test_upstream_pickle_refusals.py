"""Network pickles made to do harm: nothing in the file runs, damage gives one kind of error."""

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from portrait4d.files.errors import InputFileError
from tests.helpers.network_cases import Generator, dump, module, read, rebuild
from tests.helpers.pickle_cases import Call, damaged_copies, stand_in_modules

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def storage_bytes(
    count: int = 4,
    kind: type = torch.FloatStorage,
    payload: bytes | None = None,
    written: int | None = None,
    replaced: dict[int, object] | None = None,
) -> bytes:
    """Return a storage in the old torch.save format, with parts replaced (0 to 4) or sizes changed."""
    identifier = Call(os.getpid)
    parts = {
        0: 0x1950A86A20F9469CFC6C,
        1: 1001,
        2: {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}},
        3: ("storage", kind, "0", "cuda:0", count, None),
        4: ["0"],
    } | (replaced or {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return parts[3] if value is identifier else None

    buffer = io.BytesIO()
    for number in range(5):
        Pickler(buffer, 2).dump(identifier if number == 3 else parts[number])
    data = struct.pack(f"<{count}f", *range(count)) if payload is None else payload
    return buffer.getvalue() + struct.pack("<q", count if written is None else written) + data


def tensor(data: bytes, *geometry: object) -> Call:
    """Return a tensor over a storage: geometry is offset, sizes, strides."""
    storage = Call(torch.storage._load_from_bytes, (data,))
    offset, sizes, strides = geometry or (0, (4,), (1,))
    return Call(torch._utils._rebuild_tensor_v2, (storage, offset, sizes, strides, False, {}))


def refuse(folder: Path, value: object, match: str) -> None:
    with pytest.raises(InputFileError, match=match) as caught:
        read(folder, dump({"G": value}))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_storage_made_by_hand_reads(tmp_path: Path) -> None:
    cases = {
        "a": tensor(storage_bytes()),
        "b": tensor(storage_bytes(), 1, (2,), (2,)),
        "c": tensor(storage_bytes(), 3, (1000, 1), (0, 50)),
        "d": tensor(storage_bytes(0), 0, (0,), (1,)),
        "e": tensor(storage_bytes(), 2, (), ()),
    }
    tensors = read(tmp_path, dump({"G": module(_buffers=cases)}))["G"].tensors
    assert tensors["a"].tolist() == [0, 1, 2, 3] and tensors["b"].tolist() == [1, 3]
    assert tensors["c"].shape == (1000, 1) and (tensors["c"] == 3).all()
    assert tensors["d"].shape == (0,) and tensors["e"].item() == 2


@pytest.mark.parametrize(
    ("geometry", "match"),
    [
        ((-1, (2,), (1,)), "negative offset"),
        ((1 << 70, (2,), (1,)), "past the end"),
        ((3, (2,), (1,)), "past the end"),
        ((0, (5,), (1,)), "past the end"),
        ((0, (2, 2), (4, 1)), "past the end"),
        ((4, (), ()), "past the end"),
        ((3, (2,), (-1,)), "negative stride"),
        ((0, (2, 2), (1,)), "do not match"),
        ((0, (2,), [1]), "do not match"),
        ((0, (-1,), (1,)), "not a tuple of sizes"),
        ((0, (True,), (1,)), "not a tuple of sizes"),
        ((0, (2.0,), (1,)), "not a tuple of sizes"),
        ((0, (1 << 62,), (0,)), "more than 8589934592 bytes"),
        ((0, (1 << 40, 1 << 40), (0, 0)), "more than 8589934592 bytes"),
        ((0, (1,) * 40, (0,) * 40), "not a tuple of sizes"),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path: Path, geometry: tuple, match: str) -> None:
    refuse(tmp_path, module(_buffers={"a": tensor(storage_bytes(), *geometry)}), match)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"replaced": {0: 5}}, "old torch.save format"),
        ({"replaced": {1: 1000}}, "old torch.save format"),
        ({"replaced": {2: {"little_endian": False}}}, "big-endian"),
        ({"replaced": {3: ("storage", torch.FloatStorage, "0", "cpu", 4, ("0", 0, 4))}}, "unknown way"),
        ({"replaced": {3: ("module", torch.FloatStorage, "0", "cpu", 4, None)}}, "unknown way"),
        ({"replaced": {3: ("storage", "torch.FloatStorage", "0", "cpu", 4, None)}}, "unknown way"),
        ({"replaced": {3: ("storage", os.system, "0", "cpu", 4, None)}}, "system"),
        ({"replaced": {3: ("storage", torch.UntypedStorage, "0", "cpu", 4, None)}}, "UntypedStorage"),
        ({"replaced": {3: ("storage", torch.FloatStorage, "0", "cpu", 1 << 62, None)}}, "size it declares"),
        ({"replaced": {3: ("storage", torch.FloatStorage, "0", "cpu", -4, None)}}, "size it declares"),
        ({"replaced": {4: ["1"]}}, "unknown way"),
        ({"replaced": {4: Call(os.system, ("touch ran",))}}, "system"),
        ({"replaced": {2: Call(eval, ("1",))}}, "eval"),
        ({"replaced": {2: Call(getattr, ({}, "keys"))}}, "getattr"),
        ({"written": 5}, "size it declares"),
        ({"written": -4}, "size it declares"),
        ({"payload": b"\x00" * 15}, "size it declares"),
        ({"payload": b"\x00" * 17}, "size it declares"),
        ({"payload": b""}, "size it declares"),
        ({"kind": torch.DoubleStorage}, "size it declares"),
    ],
)
def test_damaged_and_hostile_storages_are_refused(tmp_path: Path, options: dict, match: str) -> None:
    refuse(tmp_path, module(_buffers={"a": tensor(storage_bytes(**options))}), match)
    assert not Path("ran").exists()


def test_a_storage_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = storage_bytes()
    for length in range(len(data)):
        refuse(tmp_path, module(_buffers={"a": tensor(data[:length])}), "storage|damaged|refused")


@pytest.mark.parametrize(
    "function", [os.system, eval, getattr, __import__, exec, torch.load, torch.hub.load, pickle.loads]
)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_calls_outside_the_table_are_refused(tmp_path: Path, function: object, protocol: int) -> None:
    marker = tmp_path / "ran"
    for value in (Call(function, (f"touch {marker}",)), module(_buffers={"a": Call(function, ("1",))})):
        with pytest.raises(InputFileError, match=function.__name__):
            read(tmp_path, dump({"G": value}, protocol))
    assert not marker.exists()


def test_special_tensors_are_refused_by_name(tmp_path: Path) -> None:
    for function in (torch._utils._rebuild_parameter_with_state, torch._tensor._rebuild_from_type_v2):
        refuse(tmp_path, Call(function, (1, 2, 3)), function.__name__)


class Inert(nn.Module):
    """Stands for any class of a listed package."""


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (module(_parameters={"a": 1}), "no tensor"),
        (module(_buffers={"a": np.zeros(3)}), "no tensor"),
        (module(_modules={"a": 1}), "no module"),
        (module(_modules={"a": {"_parameters": {}}}), "no module"),
        (module(_modules={"a": module(_buffers=[])}), "no module"),
        (module(_modules={"a.b": module()}), "unusable name"),
        (module(_modules={1: module()}), "unusable name"),
        (module(_buffers={"": tensor(storage_bytes())}), "unusable name"),
        (module(_buffers={"x" * 300: tensor(storage_bytes())}), "unusable name"),
        (module(_buffers={"a": tensor(storage_bytes())}, _parameters={"a": tensor(storage_bytes())}), "one name"),
        (Call(rebuild, ({"type": "class", "class_name": "a b", "state": {}},)), "no class name"),
        (Call(rebuild, ({"type": "class", "class_name": "Net", "state": []},)), "malformed"),
        (Call(rebuild, ({"type": "function"},)), "malformed"),
        (Call(rebuild, ()), "malformed"),
        (module(_init_kwargs={"a": Call(torch.storage._load_from_bytes, (storage_bytes(),))}), "StoredStorage"),
        (Call(torch.storage._load_from_bytes, (5,)), "no byte string"),
        (Call(torch._utils._rebuild_parameter, (5, True, {})), "no tensor"),
        (Call(torch.Size, (5,)), "torch.Size"),
    ],
)
def test_malformed_networks_are_refused(tmp_path: Path, value: object, match: str) -> None:
    refuse(tmp_path, value, match)


def test_endless_and_exploding_trees_are_refused(tmp_path: Path) -> None:
    state: dict = {"training": False, "_parameters": {}, "_buffers": {}, "_modules": {}}
    looped = Inert()
    looped.__dict__.clear()
    looped.__dict__.update(state)
    state["_modules"]["self"] = looped
    wide = module()
    for _ in range(30):
        wide = module(_modules={"left": wide, "right": wide})
    nested: list = []
    nested.append(nested)
    deep: object = 1
    for _ in range(100):
        deep = [deep]
    with stand_in_modules(models__inert={"Inert": Inert}):
        refuse(tmp_path, looped, "nested without end")
    refuse(tmp_path, wide, "nested without end")
    refuse(tmp_path, module(_init_kwargs={"a": nested}), "nested without end")
    refuse(tmp_path, module(_init_kwargs={"a": deep}), "nested without end")
    shared: object = 1
    for _ in range(40):
        shared = [shared, shared]
    assert read(tmp_path, dump({"G": module(_init_kwargs={"a": shared})}))["G"].init_kwargs["a"] is not None


def outcome(folder: Path, data: bytes, names: list[str] | None = None) -> bool:
    """Return whether the file reads; any exception but InputFileError fails the test."""
    try:
        read(folder, data, names=names)
    except InputFileError:
        return False
    return True


@pytest.mark.parametrize("protocol", [2, 4])
def test_damaged_networks_never_fail_in_another_way(tmp_path: Path, protocol: int) -> None:
    data = dump({"G": Generator(), "D": None, "G_ema": nn.Linear(2, 2)}, protocol)
    results = [outcome(tmp_path, copy) for copy in damaged_copies(data, truncations=60, flips=0)]
    assert not any(results)
    head = [outcome(tmp_path, copy + data[6000:]) for copy in damaged_copies(data[:6000], truncations=0, flips=150)]
    assert not all(head)


def test_a_damaged_published_file_never_fails_in_another_way(tmp_path: Path) -> None:
    data = (GOLDEN / "network-genhead.pkl").read_bytes()
    cut = [outcome(tmp_path, copy, []) for copy in damaged_copies(data, truncations=10, flips=0)]
    assert not any(cut)
    for copy in damaged_copies(data, truncations=0, flips=12):
        outcome(tmp_path, copy, [])
