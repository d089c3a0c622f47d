"""Published network pickles: every tensor comes back, nothing in the file runs, damage gives one kind of error."""

import io
import json
import os
import pickle
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from portrait4d.files.errors import InputFileError
from portrait4d.models.upstream_pickles import NetworkRecord, read_network_pickle
from tests.helpers.pickle_cases import Call, damaged_copies, stand_in_modules

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


@pytest.fixture(scope="module")
def genhead() -> dict[str, NetworkRecord]:
    return read_network_pickle(GOLDEN / "network-genhead.pkl", ["G_ema", "D"])


def test_every_name_shape_and_type_of_a_published_file(genhead: dict[str, NetworkRecord]) -> None:
    wanted = json.loads((GOLDEN / "network-genhead.json").read_text())
    assert {key: len(value) for key, value in wanted.items()} == {"G_ema": 328, "D": 92}
    for key, tensors in wanted.items():
        got = {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in genhead[key].tensors.items()}
        assert got == tensors
        assert all(
            type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in genhead[key].tensors.values()
        )


def test_the_values_of_a_published_file(genhead: dict[str, NetworkRecord]) -> None:
    for record in genhead.values():
        for name, tensor in record.tensors.items():
            code = zlib.crc32(name.encode())
            value = np.float32((code % 2001 - 1000) / 1000) if tensor.is_floating_point() else code % 97
            some = tensor.reshape(-1)[:: max(1, tensor.numel() // 1000)]
            assert len(some) and (some == torch.tensor(value).to(tensor.dtype)).all(), name


def test_what_a_published_file_says_about_its_networks(genhead: dict[str, NetworkRecord]) -> None:
    generator, discriminator = genhead["G_ema"], genhead["D"]
    assert (
        generator.class_name == "PartTriPlaneGeneratorDeform" and discriminator.class_name == "DualDiscriminatorDeform"
    )
    assert generator.init_kwargs["z_dim"] == 512 and generator.init_kwargs["c_dim"] == 325
    assert generator.init_kwargs["rendering_kwargs"] == generator.rendering_kwargs
    assert generator.rendering_kwargs["avg_camera_pivot"] == [0, 0, 0.2]
    assert generator.neural_rendering_resolution == 64
    assert generator.init_args == ()
    assert discriminator.rendering_kwargs is None and discriminator.neural_rendering_resolution is None
    json.dumps([generator.init_kwargs, discriminator.init_kwargs])  # plain values throughout
    prefix = "deformer.flame_deform."
    masks = {"face_mask", "eye_mask", "lips_mask", "face_wo_eye_mask", "noinmouth_mask"}
    assert set(generator.attributes) == {prefix + name for name in masks}
    assert generator.attributes[prefix + "face_mask"].tolist() == [551, 554]
    assert discriminator.attributes == {}


def test_the_embedded_source_would_have_raised_and_no_module_is_loaded(genhead: dict[str, NetworkRecord]) -> None:
    assert b"raise RuntimeError(" in (GOLDEN / "network-genhead.pkl").read_bytes()
    foreign = {"torch_utils", "dnnlib", "models", "training", "pytorch3d"}
    assert not {name for name in sys.modules if name.partition(".")[0] in foreign}


def test_entries_of_a_published_file() -> None:
    assert read_network_pickle(GOLDEN / "network-genhead.pkl", ["augment_pipe"]) == {"augment_pipe": None}
    for name in ("D_patch", "training_set_kwargs"):
        with pytest.raises(InputFileError, match=rf"has no network {name}; it holds G, D, G_ema, augment_pipe"):
            read_network_pickle(GOLDEN / "network-genhead.pkl", [name])


def test_the_logical_size_is_bounded() -> None:
    with pytest.raises(InputFileError, match="more than 100000000 bytes"):
        read_network_pickle(GOLDEN / "network-genhead.pkl", ["D"], max_bytes=100_000_000)


# ---- files written here by torch's own pickling, with stand-ins for the reference's packages


class Options(dict):
    """Stands for dnnlib.util.EasyDict."""


def _rebuild(meta: dict) -> None:
    raise AssertionError("a safe reader never calls this")


class Persistent(nn.Module):
    """A module that pickles as the reference's persistent classes do."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self._init_args = (3, "text")
        self._init_kwargs = Options(options)

    def __reduce__(self) -> tuple:
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": type(self).__name__}
        return _rebuild, (meta | {"state": self.__dict__},)


class Generator(Persistent):
    def __init__(self) -> None:
        super().__init__(z_dim=4, nested=Options(shape=torch.Size([2, 3]), dtype=torch.float16, norm=nn.Identity))
        self.rendering_kwargs = Options(box_warp=1.3, pivot=[0, 0, 0.2])
        self.neural_rendering_resolution = 128
        self.eye_mask = np.array([5, 1, 3])
        self.ratios = np.arange(6, dtype=">f4").reshape(2, 3).T
        self.plane_axes = torch.eye(3)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.register_parameter("absent", None)
        self.register_buffer("counter", torch.tensor(7))
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ModuleList([nn.LayerNorm(3), nn.GELU()]))
        self.again = self.layers
        self.holder = Holder()


class Holder(Persistent):
    def __init__(self) -> None:
        super().__init__()
        base = torch.arange(24.0)
        for name in ("float16", "bfloat16", "float64"):
            self.register_buffer(f"as_{name}", base.to(getattr(torch, name)) / 8)
        for name in ("int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "complex128"):
            self.register_buffer(f"as_{name}", base.to(getattr(torch, name)))
        self.register_buffer("transposed", base.view(4, 6).T)
        self.register_buffer("slice", base.view(4, 6)[1:3, ::2])
        self.register_buffer("expanded", base[5:6].expand(4, 3))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("large", torch.randn(200, 150, generator=torch.Generator().manual_seed(0)))


@contextmanager
def reference_packages() -> Iterator[None]:
    members = {
        "torch_utils__persistence": {"_reconstruct_persistent_obj": _rebuild},
        "dnnlib__util": {"EasyDict": Options},
    }
    with stand_in_modules(**members):
        yield


def dump(value: object, protocol: int = 4) -> bytes:
    with reference_packages():
        return pickle.dumps(value, protocol)


def read(folder: Path, data: bytes, **options: object) -> dict[str, NetworkRecord | None]:
    path = folder / "network.pkl"
    path.write_bytes(data)
    return read_network_pickle(path, **options)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_networks_written_by_torch(tmp_path: Path, protocol: int) -> None:
    network = Generator().eval().requires_grad_(False)
    content = {"training_set_kwargs": None, "G": None, "D": nn.Linear(2, 3), "G_ema": network, "D_patch": None}
    records = read(tmp_path, dump(content, protocol))
    assert list(records) == ["G", "D", "G_ema", "D_patch"] and records["G"] is None and records["D_patch"] is None
    assert records["D"].class_name == "Linear" and records["D"].init_kwargs == {}
    record = records["G_ema"]
    assert record.class_name == "Generator" and record.init_args == (3, "text")
    nested = {"shape": (2, 3), "dtype": "torch.float16", "norm": "torch.nn.modules.linear.Identity"}
    assert record.init_kwargs == {"z_dim": 4, "nested": nested}
    assert record.rendering_kwargs == {"box_warp": 1.3, "pivot": [0, 0, 0.2]}
    assert type(record.rendering_kwargs) is dict
    assert record.neural_rendering_resolution == 128
    wanted = dict(network.named_parameters(remove_duplicate=False)) | dict(
        network.named_buffers(remove_duplicate=False)
    )
    assert set(record.tensors) == set(wanted)
    for name, tensor in wanted.items():
        got = record.tensors[name]
        assert got.dtype == tensor.dtype and got.shape == tensor.shape and torch.equal(got, tensor), name
    assert list(record.tensors)[:5] == ["scale", "counter", "hidden", "layers.0.weight", "layers.0.bias"]
    assert record.tensors["again.0.weight"] is record.tensors["layers.0.weight"]
    assert record.tensors["holder.transposed"].stride() == (1, 6)
    record.tensors["holder.expanded"][0, 0] = 1
    assert record.tensors["holder.expanded"].sum() == 1 + 11 * 5
    assert set(record.attributes) == {"eye_mask", "ratios"}
    assert record.attributes["ratios"].dtype == np.dtype("f4") and record.attributes["ratios"].tolist()[2] == [2.0, 5.0]
    record.attributes["eye_mask"][0] = 9


def test_only_networks_asked_for_are_copied(tmp_path: Path) -> None:
    content = {"G": nn.Linear(2, 2), "D": nn.Linear(3, 3), "G_ema": nn.Linear(2, 2)}
    assert list(read(tmp_path, dump(content), names=["G_ema", "D"])) == ["G_ema", "D"]
    assert list(read(tmp_path, dump(content), names=["G"])) == ["G"]
    assert read(tmp_path, dump(content), names=[]) == {}
    with pytest.raises(InputFileError, match="has no network X, Y; it holds G, D, G_ema"):
        read(tmp_path, dump(content), names=["X", "G", "Y"])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (({}, {}, {}), "legacy TensorFlow"),
        ([1], "not of networks"),
        ({1: None}, "not of networks"),
        ({"a b\n": None}, "not of networks"),
        ("text", "not of networks"),
        (torch.zeros(3), "not of networks"),
    ],
)
def test_other_pickles(tmp_path: Path, content: object, match: str) -> None:
    with pytest.raises(InputFileError, match=match):
        read(tmp_path, dump(content))


def test_a_legacy_tensorflow_file(tmp_path: Path) -> None:
    class Network:
        def __init__(self) -> None:
            self.state = {"variables": [("w", np.zeros(3, np.float32))], "build_module_src": "raise SystemExit"}

    with stand_in_modules(dnnlib__tflib__network={"Network": Network}):
        data = pickle.dumps((Network(), Network(), Network()), 3)
    with pytest.raises(InputFileError, match="legacy TensorFlow network pickle"):
        read(tmp_path, data)


def test_a_torch_save_archive_and_an_empty_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"G": 1}, buffer)
    with pytest.raises(InputFileError, match="zip archive"):
        read(tmp_path, buffer.getvalue())
    with pytest.raises(InputFileError, match="is empty"):
        read(tmp_path, b"")
    with pytest.raises(InputFileError, match="cannot be read"):
        read_network_pickle(tmp_path / "none.pkl")


# ---- files made by hand to do harm


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


def module(**state: object) -> Call:
    """Return a persistent module with these entries of its state."""
    state = {"_parameters": {}, "_buffers": {}, "_modules": {}} | state
    return Call(_rebuild, ({"type": "class", "version": 6, "module_src": "", "class_name": "Net", "state": state},))


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
        (Call(_rebuild, ({"type": "class", "class_name": "a b", "state": {}},)), "no class name"),
        (Call(_rebuild, ({"type": "class", "class_name": "Net", "state": []},)), "malformed"),
        (Call(_rebuild, ({"type": "function"},)), "malformed"),
        (Call(_rebuild, ()), "malformed"),
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
