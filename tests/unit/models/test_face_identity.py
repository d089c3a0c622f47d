"""ArcFace network: conformance values, size, and bad weight files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.losses.reconstruction import identity_loss
from portrait4d.models.pretrained import registry
from portrait4d.models.pretrained.face_identity import FaceIdentity, load_face_identity
from tests.helpers.hash_fill import fill_plain, hash_tensor, shapes_of


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """A state dict like the published one, with its counters."""
    state = FaceIdentity().state_dict()
    return state | fill_plain(shapes_of(state))


@pytest.fixture(scope="module")
def network(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> FaceIdentity:
    path = tmp_path_factory.mktemp("weights") / "backbone.pth"
    torch.save(weights, path)
    return load_face_identity(path)


def test_conformance_values(network: FaceIdentity) -> None:
    """networks-auxiliary.md §3."""
    values = network(hash_tensor(1000, [1, 3, 112, 112])).flatten()
    tolerance = 1e-5 * values.abs().max().item()
    assert values.mean().item() == pytest.approx(56.9009, abs=tolerance)
    assert values.std().item() == pytest.approx(2730.5, abs=0.05)
    elements = values[[0, 512 // 3, 512 // 2, 511]]
    np.testing.assert_allclose(elements, [2675.18, -5707.65, -332.483, 1691.64], rtol=0, atol=tolerance)


def test_size_is_the_published_one(network: FaceIdentity) -> None:
    """networks-auxiliary.md §3: parameters and entries."""
    assert sum(p.numel() for p in network.parameters()) == 24_025_600
    state = network.state_dict()
    assert len(state) == 187
    assert state["fc.weight"].shape == (512, 25088)
    assert state["layer1.0.downsample.0.weight"].shape == (64, 64, 1, 1)
    assert state["layer4.1.prelu.weight"].shape == (512,)


def test_frozen_but_pictures_get_gradients(network: FaceIdentity) -> None:
    network.train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    crops = hash_tensor(3, [2, 3, 112, 112]).requires_grad_()
    network(crops).sum().backward()
    assert (crops.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_identity_loss_takes_it(network: FaceIdentity) -> None:
    image = hash_tensor(4, [1, 3, 64, 64])
    landmarks = 32 + 20 * hash_tensor(5, [1, 70, 2])
    assert identity_loss(image, image, landmarks, network).item() == pytest.approx(0, abs=1e-6)
    assert identity_loss(image, -image, landmarks, network).shape == (1,)


def test_other_crops_are_refused(network: FaceIdentity) -> None:
    with pytest.raises(ValueError, match=r"crops: expected shape \(B, 3, 112, 112\), got \(1, 3, 224, 224\)"):
        network(torch.zeros(1, 3, 224, 224))


def test_other_files_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    counters = [name for name in weights if name.endswith("num_batches_tracked")]
    torch.save({name: value for name, value in weights.items() if name not in ("fc.bias", *counters)}, path)
    with pytest.raises(InputFileError, match=r"w\.pth: 1 of 156 tensors are missing: fc\.bias; use .*InsightFace"):
        load_face_identity(path)
    torch.save(weights | {"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}, path)
    with pytest.raises(InputFileError, match=r"1 tensors have no use here: layer1\.2\.conv1\.weight"):
        load_face_identity(path)
    torch.save(weights | {"prelu.weight": torch.zeros(1)}, path)
    with pytest.raises(InputFileError, match=r"prelu\.weight: expected shape \(64,\), got \(1,\)"):
        load_face_identity(path)


def test_missing_file_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    monkeypatch.setattr(registry, "PACKAGE_MODELS", tmp_path / "none")
    with pytest.raises(AssetMissingError) as caught:
        load_face_identity()
    assert str(tmp_path / "arcface/ms1mv3_arcface_r18_fp16/backbone.pth") in str(caught.value)
    assert "python portrait4d/fetch_assets.py face_identity --repo OWNER/NAME" in str(caught.value)
