"""Strict loading of published weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from data_preprocess.landmarks_2d import load_landmark_network
from data_preprocess.published_weights import load_published
from data_preprocess.retinaface_network import load_retinaface
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.models.pretrained import registry


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def theirs(name: str) -> str:
    return f"net.{name}"


@pytest.fixture
def published() -> dict[str, Tensor]:
    """Weights as their authors would publish them, in half precision."""
    generator = torch.Generator().manual_seed(0)
    return {
        theirs(name): tensor if name.endswith("num_batches_tracked") else torch.rand(tensor.shape, generator=generator)
        for name, tensor in build().half().state_dict().items()
    }


def load(path: Path, **options: object) -> nn.Module:
    return load_published(build, "h3r", path, published_name=theirs, **options)


def test_tensors_arrive_under_our_names(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({name: tensor.half() for name, tensor in published.items()}, tmp_path / "w.pth")
    network = load(tmp_path / "w.pth")
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == build().state_dict()[name].dtype
        assert torch.equal(tensor.half(), published[theirs(name)].half())


@pytest.mark.parametrize("entry", ["state_dict", "net_recon"])
def test_wrapped_files(published: dict[str, Tensor], tmp_path: Path, entry: str) -> None:
    torch.save({entry: {f"module.{n}": t for n, t in published.items()}, "epoch": torch.tensor(3)}, tmp_path / "w.pth")
    network = load(tmp_path / "w.pth", entry=entry)
    assert torch.equal(network[0].weight, published["net.0.weight"])


def test_counters_may_be_missing_and_unused_tensors_there(published: dict[str, Tensor], tmp_path: Path) -> None:
    del published["net.1.num_batches_tracked"]
    save_file(published | {"net.fc.bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    network = load(tmp_path / "w.safetensors", unused=("net.fc.",))
    assert network[1].num_batches_tracked.item() == 0


def test_every_difference_is_named(published: dict[str, Tensor], tmp_path: Path) -> None:
    del published["net.0.bias"], published["net.1.running_var"]
    published |= {"net.0.weight": torch.zeros(3, 4), "net.fc.bias": torch.zeros(3)}
    torch.save(published, tmp_path / "w.pth")
    with pytest.raises(InputFileError) as caught:
        load(tmp_path / "w.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'w.pth'}: expected the H3R landmark network")
    assert "2 tensors missing (net.0.bias, net.1.running_var)" in message
    assert "1 tensors unexpected (net.fc.bias)" in message
    assert "1 tensors of another shape (net.0.weight (3, 4) instead of (3, 2))" in message


def test_another_network_is_refused_briefly(tmp_path: Path) -> None:
    save_file({f"{number}.weight": torch.zeros(2) for number in range(9)}, tmp_path / "w.safetensors")
    with pytest.raises(InputFileError, match=r"9 tensors unexpected \(0\.weight, 1\.weight, .*3\.weight, \.\.\.\)"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("load_network", "place", "command"),
    [
        (load_retinaface, "facedetect/retinaface/Resnet50_Final.pth", "retinaface --accept-licences"),
        (load_landmark_network, "hrnet_w18_wflw/h3r/model.pth", "h3r --url h3r=ADDRESS --accept-licences"),
    ],
)
def test_missing_weights_say_where_and_how(
    load_network: object, place: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setattr(registry, "PACKAGE_MODELS", tmp_path / "package")
    with pytest.raises(AssetMissingError) as caught:
        load_network()
    message = str(caught.value)
    assert str(tmp_path / "assets" / place) in message and str(tmp_path / "package" / place) in message
    assert message.endswith(f"or run python portrait4d/fetch_assets.py {command}")
