"""Published network pickles and networks pickled by torch: every tensor comes back, and other files are told apart."""

import io
import json
import pickle
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from portrait4d.files.errors import InputFileError
from portrait4d.models.upstream_pickles import NetworkRecord, read_network_pickle
from tests.helpers.network_cases import Generator, dump, read
from tests.helpers.pickle_cases import stand_in_modules

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
