"""LPIPS: features and distance against their definitions, names of the published files, the random stand-in."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.models.pretrained import registry
from portrait4d.models.pretrained.perceptual import (
    PerceptualDistance,
    VggTrunk,
    build_perceptual,
    build_random_perceptual,
    load_perceptual,
)
from tests.helpers.hash_fill import fill_plain, hash_tensor, shapes_of

CHANNELS = (64, 128, 256, 512, 512)
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Numbers of the convolutions in torchvision's vgg16.features; 13 of "VGG16" are these, 3 are the classifier's."""
POOLED_AFTER = (2, 7, 14, 21)


@pytest.fixture(scope="module")
def vgg() -> dict[str, Tensor]:
    """A state dict with torchvision's names; of the classifier only what a name check needs."""
    state = fill_plain(shapes_of(VggTrunk().state_dict()))
    return state | {"classifier.6.weight": torch.zeros(2, 2), "classifier.6.bias": torch.zeros(2)}


@pytest.fixture(scope="module")
def lpips_weights() -> dict[str, Tensor]:
    return {
        f"lin{i}.model.1.weight": hash_tensor(50 + i, [1, channels, 1, 1]).abs() for i, channels in enumerate(CHANNELS)
    }


@pytest.fixture(scope="module")
def files(
    vgg: dict[str, Tensor], lpips_weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(vgg, folder / "vgg16.pth")
    torch.save(lpips_weights, folder / "vgg.pth")
    return folder / "vgg16.pth", folder / "vgg.pth"


@pytest.fixture(scope="module")
def distance(files: tuple[Path, Path]) -> PerceptualDistance:
    return load_perceptual(*files)


@pytest.fixture(scope="module")
def random_vgg() -> PerceptualDistance:
    return build_random_perceptual()


def vgg_features(x: Tensor, vgg: dict[str, Tensor]) -> list[Tensor]:
    """relu1_2 to relu5_3 from the definition."""
    features = []
    for number in CONVOLUTIONS:
        x = functional.conv2d(x, vgg[f"features.{number}.weight"], vgg[f"features.{number}.bias"], padding=1).relu()
        if number in (*POOLED_AFTER, CONVOLUTIONS[-1]):
            features.append(x)
            x = functional.max_pool2d(x, 2, 2)
    return features


def test_published_names_and_size(vgg: dict[str, Tensor]) -> None:
    names = {f"features.{number}.{part}" for number in CONVOLUTIONS for part in ("weight", "bias")}
    assert set(VggTrunk().state_dict()) == names
    with torch.device("meta"):
        assert sum(p.numel() for p in VggTrunk().parameters()) == 14_714_688  # of torchvision's vgg16.features


def test_distance_is_the_definition(
    distance: PerceptualDistance, vgg: dict[str, Tensor], lpips_weights: dict[str, Tensor]
) -> None:
    """training-recon-v1.md §2."""
    pictures = hash_tensor(1, [2, 3, 33, 48]), hash_tensor(2, [2, 3, 33, 48])
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    unit = [
        [functional.normalize(feature, dim=1) for feature in vgg_features((picture - shift) / scale, vgg)]
        for picture in pictures
    ]
    expected = torch.zeros(2)
    for i, (ours, theirs) in enumerate(zip(*unit, strict=True)):
        expected += ((ours - theirs) ** 2 * lpips_weights[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
    torch.testing.assert_close(distance(*pictures), expected, rtol=1e-4, atol=1e-6)


def test_agrees_with_the_lpips_package(distance: PerceptualDistance, vgg: dict[str, Tensor]) -> None:
    lpips = pytest.importorskip("lpips", exc_type=(ImportError, RuntimeError), reason="the package lpips is the judge")
    judge = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    judge.net.load_state_dict({name: vgg[f"features.{name.split('.', 1)[1]}"] for name in judge.net.state_dict()})
    published = Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth"
    for ours, theirs in zip(distance.channel_weights, registry.load_tensors(published).values(), strict=True):
        assert ours.shape == theirs.shape
    with torch.no_grad():
        for ours, theirs in zip(judge.lins, distance.channel_weights, strict=True):
            ours.model[1].weight.copy_(theirs)
        pictures = hash_tensor(1, [2, 3, 40, 48]), hash_tensor(2, [2, 3, 40, 48])
        torch.testing.assert_close(distance(*pictures), judge(*pictures).flatten(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["distance", "random_vgg"])
def test_is_a_distance(name: str, request: pytest.FixtureRequest) -> None:
    network = request.getfixturevalue(name)
    first, second = hash_tensor(1, [3, 3, 32, 32]), hash_tensor(2, [3, 3, 32, 32])
    assert torch.equal(network(first, first), torch.zeros(3))
    assert (network(first, second) > 0).all()
    torch.testing.assert_close(network(first, second), network(second, first))
    alone = torch.cat([network(a[None], b[None]) for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(network(first, second), alone, rtol=1e-4, atol=1e-6)
    assert (network(first, first.lerp(second, 0.1)) < network(first, second)).all()


def test_frozen_but_pictures_get_gradients(random_vgg: PerceptualDistance) -> None:
    assert not any(parameter.requires_grad for parameter in random_vgg.parameters())
    first, second = hash_tensor(1, [2, 3, 16, 16]).requires_grad_(), torch.zeros(2, 3, 16, 16)
    random_vgg(first, second).sum().backward()
    assert first.grad.isfinite().all() and (first.grad.flatten(1).abs().sum(dim=1) > 0).all()
    black = torch.full((1, 3, 16, 16), -1.0, requires_grad=True)
    random_vgg(black, black.detach()).sum().backward()
    assert torch.equal(black.grad, torch.zeros_like(black))


def test_random_weights_are_he_initialised_and_always_the_same(random_vgg: PerceptualDistance) -> None:
    assert random_vgg.kind == "random_vgg"
    again, other = build_random_perceptual().state_dict(), build_random_perceptual(seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in random_vgg.state_dict().items())
    assert not torch.equal(random_vgg.trunk.features[0].weight, other["trunk.features.0.weight"])
    for number in CONVOLUTIONS[1:]:
        layer = random_vgg.trunk.features[number]
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * layer.in_channels)), rel=0.02)
        assert torch.equal(layer.bias, torch.zeros_like(layer.bias))
    assert all(torch.equal(weight, torch.full_like(weight, 0.2)) for weight in random_vgg.channel_weights)


def test_other_pictures_are_refused(random_vgg: PerceptualDistance) -> None:
    picture = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"first: expected shape \(B, 3, H >= 16, W >= 16\), got \(1, 3, 32, 15\)"):
        random_vgg(picture[..., :15], picture)
    with pytest.raises(ValueError, match=r"second: expected shape \(1, 3, 32, 32\) as first, got \(1, 3, 16, 16\)"):
        random_vgg(picture, picture[..., :16, :16])


def test_other_files_are_refused(
    files: tuple[Path, Path], vgg: dict[str, Tensor], lpips_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save({name: value for name, value in vgg.items() if name != "features.28.bias"}, path)
    with pytest.raises(InputFileError, match=r"1 of 26 tensors are missing: features\.28\.bias; use torchvision's"):
        load_perceptual(path, files[1])
    torch.save(vgg | {"features.1.running_mean": torch.zeros(64)}, path)  # vgg16_bn
    with pytest.raises(InputFileError, match=r"1 tensors have no use here: features\.1\.running_mean"):
        load_perceptual(path, files[1])
    torch.save(lpips_weights | {"lin0.model.1.weight": torch.zeros(1, 192, 1, 1)}, path)  # another trunk's
    with pytest.raises(InputFileError, match=r"lin0\.model\.1\.weight: expected shape \(1, 64, 1, 1\)"):
        load_perceptual(files[0], path)


def test_kinds_never_replace_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    monkeypatch.setattr(registry, "PACKAGE_MODELS", tmp_path / "none")
    with pytest.raises(AssetMissingError, match=r"fetch_assets\.py lpips_vgg --url lpips_vgg=ADDRESS"):
        build_perceptual("lpips")
    assert build_perceptual("random_vgg").kind == "random_vgg"
    with pytest.raises(ValueError, match="kind: expected lpips or random_vgg, got 'vgg'"):
        build_perceptual("vgg")
