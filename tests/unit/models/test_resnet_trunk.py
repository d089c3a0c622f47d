"""First weights of the global encoder: exactly the convolutions of an ImageNet ResNet-34, or nothing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from portrait4d.config.networks import GlobalEncoderConfig, ReconstructorConfig
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.models.pretrained import registry
from portrait4d.models.pretrained.resnet_trunk import initialise_encoder
from portrait4d.models.reconstructor_encoders import GlobalEncoder
from tests.helpers.hash_fill import hash_tensor

TINY = GlobalEncoderConfig((4, 4, 6, 6), (1, 2, 1, 1), 4, (1, 2, 3))


def state_dict(encoder: GlobalEncoder) -> dict[str, Tensor]:
    """A file like torchvision's for the encoder's sizes."""
    weights = {name: hash_tensor(i, shape) for i, (name, shape) in enumerate(encoder.resnet_shapes().items())}
    norms = ["bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.downsample.1"]
    parts = ["weight", "bias", "running_mean", "running_var"]
    weights |= {f"{norm}.{part}": torch.ones(4) for norm in norms for part in parts}
    weights |= {f"{norm}.num_batches_tracked": torch.tensor(0) for norm in norms}
    return weights | {"fc.weight": torch.zeros(1000, 6), "fc.bias": torch.zeros(1000)}


def test_a_resnet34_has_36_convolutions() -> None:
    """3 + 4 + 6 + 3 blocks of two, the stem, and three shortcuts; 21.3 million weights, of 21.8 with the rest."""
    with torch.device("meta"):
        shapes = GlobalEncoder(ReconstructorConfig().global_encoder).resnet_shapes()
    assert len(shapes) == 2 * (3 + 4 + 6 + 3) + 1 + 3
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer4.0.downsample.0.weight"] == (512, 256, 1, 1)
    norm_channels = 64 + 6 * 64 + 9 * 128 + 13 * 256 + 7 * 512
    published = 21_797_672  # parameters of torchvision's resnet34
    convolutions = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert convolutions + 2 * norm_channels + 512 * 1000 + 1000 == published


def test_imagenet_copies_the_trunk_and_nothing_else(tmp_path: Path) -> None:
    encoder = GlobalEncoder(TINY)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    weights = state_dict(encoder)
    torch.save(weights, tmp_path / "resnet34.pth")
    copied = initialise_encoder(encoder, "imagenet", tmp_path / "resnet34.pth")
    assert set(copied) == set(encoder.resnet_shapes()) and len(copied) == 13
    after = encoder.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith("st")}  # stem and stages
    expected = torch.stack([0.6 * weights["conv1.weight"][:, i % 3] for i in range(5)], dim=1)
    torch.testing.assert_close(after["stem.weight"], expected)
    assert torch.equal(after["stage2.1.conv1.weight"], weights["layer2.1.conv1.weight"])


def test_random_changes_nothing_and_reads_nothing() -> None:
    encoder = GlobalEncoder(TINY)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert initialise_encoder(encoder, "random", Path("nowhere.pth")) == []
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_other_files_are_refused_and_leave_the_encoder_alone(tmp_path: Path) -> None:
    encoder, path = GlobalEncoder(TINY), tmp_path / "w.pth"
    before = encoder.stem.weight.clone()
    weights = state_dict(encoder)
    torch.save({name: value for name, value in weights.items() if name != "layer3.0.conv2.weight"}, path)
    with pytest.raises(InputFileError, match=r"1 of 13 tensors are missing: layer3\.0\.conv2\.weight"):
        initialise_encoder(encoder, "imagenet", path)
    torch.save(weights | {"layer1.0.conv3.weight": torch.zeros(1)}, path)  # a ResNet-50
    with pytest.raises(InputFileError, match=r"1 tensors have no use here: layer1\.0\.conv3\.weight"):
        initialise_encoder(encoder, "imagenet", path)
    torch.save(weights | {"layer1.0.conv1.weight": torch.zeros(1)}, path)  # would be broadcast
    with pytest.raises(InputFileError, match=r"layer1\.0\.conv1\.weight: expected shape \(4, 4, 3, 3\), got \(1,\)"):
        initialise_encoder(encoder, "imagenet", path)
    assert torch.equal(encoder.stem.weight, before)


def test_missing_file_and_unknown_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    monkeypatch.setattr(registry, "PACKAGE_MODELS", tmp_path / "none")
    with pytest.raises(AssetMissingError, match=r"fetch_assets\.py resnet34 --url resnet34=ADDRESS"):
        initialise_encoder(GlobalEncoder(TINY), "imagenet")
    with pytest.raises(ValueError, match="init: expected imagenet or random, got 'places'"):
        initialise_encoder(GlobalEncoder(TINY), "places")
