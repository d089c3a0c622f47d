"""Inception for FID: names, sizes, the legacy resize; and detectors, their files and what is refused."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from portrait4d.files.errors import AssetMissingError, InputFileError, UserError
from portrait4d.models.pretrained import registry
from portrait4d.models.pretrained.detectors import detect_classes, is_torchscript, load_detector, require_fitting
from portrait4d.models.pretrained.inception import Inception, load_inception, prepare

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

PARAMETERS_WITH_1000_CLASSES = 23_834_568
"""Of Inception-V3 without its auxiliary classifier, as the libraries that publish it state."""
NORMALISED_CHANNELS = 17_216
"""Half of Keras' 34,432 numbers of InceptionV3 that are not trained."""
FEATURE_SIZES = {
    "Conv2d_2b_3x3": (64, 147), "Conv2d_4a_3x3": (192, 71), "Mixed_5b": (256, 35), "Mixed_5d": (288, 35),
    "Mixed_6a": (768, 17), "Mixed_6e": (768, 17), "Mixed_7a": (1280, 8), "Mixed_7c": (2048, 8),
}  # fmt: skip
"""Channels and sides that the paper's table 1 gives for 299 pixels."""


class Toy(nn.Module):
    """A scripted network with the calls of the published one."""

    def forward(self, images: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        means = images.float().mean(dim=[2, 3])
        return means if return_features else torch.softmax(means + (0 if no_output_bias else 1), dim=1)


@pytest.fixture(scope="module")
def network() -> Inception:
    torch.manual_seed(0)
    return Inception()


@pytest.fixture(scope="module")
def weights(network: Inception, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the public one: its names, and an auxiliary head without use here."""
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state | {"AuxLogits.fc.weight": torch.zeros(3)}, path)
    return path


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    path = tmp_path / "toy.pt"
    torch.jit.script(Toy()).save(str(path))
    return path


def pictures(count: int = 2, side: int = 40) -> Tensor:
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_size_is_the_published_one(network: Inception) -> None:
    more_classes = (1008 - 1000) * (2048 + 1)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS_WITH_1000_CLASSES + more_classes
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == 94
    assert sum(norm.num_features for norm in norms) == NORMALISED_CHANNELS


def test_names_are_those_of_the_public_state_dict(network: Inception) -> None:
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_5b.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert shapes["Mixed_6c.branch7x7dbl_5.conv.weight"] == (192, 160, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,)
    assert shapes["fc.weight"] == (1008, 2048) and shapes["fc.bias"] == (1008,)


def test_feature_sizes_are_those_of_the_paper(network: Inception) -> None:
    found = {}
    handles = [
        getattr(network, name).register_forward_hook(
            lambda module, args, out, name=name: found.update({name: (out.shape[1], out.shape[2])})
        )
        for name in FEATURE_SIZES
    ]
    features = network(pictures(1))
    for handle in handles:
        handle.remove()
    assert found == FEATURE_SIZES
    assert features.shape == (1, 2048) and features.isfinite().all()
    assert torch.equal(features, network(pictures(1)))  # deterministic


def test_average_pools_leave_out_their_padding_and_the_last_pool_is_a_maximum(network: Inception) -> None:
    seen = {}
    for name in ("Mixed_5b", "Mixed_7b", "Mixed_7c"):
        getattr(network, name).branch_pool.register_forward_pre_hook(
            lambda module, args, name=name: seen.update({name: args[0]})
        )
    network.Mixed_5b(torch.ones(1, 192, 5, 5))
    assert torch.equal(seen["Mixed_5b"], torch.ones(1, 192, 5, 5))  # padding counted, corners would be 4/9
    x = torch.rand(1, 2048, 4, 4)
    network.Mixed_7c(x)
    assert torch.equal(seen["Mixed_7c"][..., 1, 1], x[..., :3, :3].amax(dim=(2, 3)))
    network.Mixed_7b(x[:, :1280])
    torch.testing.assert_close(seen["Mixed_7b"][..., 0, 0], x[:, :1280, :2, :2].mean(dim=(2, 3)))


def test_pictures_of_299_pixels_are_only_scaled() -> None:
    images = pictures(1, 299)
    assert torch.equal(prepare(images), (images.float() - 128) / 128)


@pytest.mark.parametrize("side", [23, 64, 512])
def test_resize_joins_pixel_corners(side: int) -> None:
    """A ramp x is sampled at i W / 299, and repeats its last pixel beyond W - 1."""
    scale = 255 // (side - 1) or 1
    ramp = (torch.arange(side).clamp(max=255 // scale) * scale).to(torch.uint8)
    rows = prepare(ramp.expand(1, 3, side, side))[0, 0] * 128 + 128
    places = torch.arange(299) * side / 299
    expected = (places.clamp(max=min(side - 1, 255 // scale))) * scale
    inner = (places % 1 == 0) | (places < min(side - 1, 255 // scale) - 1) | (places > min(side - 1, 255 // scale))
    torch.testing.assert_close(rows[150][inner], expected[inner], atol=1e-3, rtol=0)
    torch.testing.assert_close(rows, rows[:1].expand(299, 299))
    columns = prepare(ramp[:, None].expand(1, 3, side, side))[0, 1] * 128 + 128
    torch.testing.assert_close(columns, rows.T)


def test_training_mode_changes_nothing(network: Inception) -> None:
    assert not network.train().training and not network.Mixed_5b.branch1x1.bn.training


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_other_pictures_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images: expected \(B, 3, H, W\) uint8"):
        prepare(images)


def test_public_files_load(weights: Path, network: Inception) -> None:
    loaded = load_inception(weights)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))


def test_other_files_are_refused(tmp_path: Path, network: Inception) -> None:
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("Mixed_7")}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputFileError, match=r"w\.pth: \d+ of 472 tensors are missing: Mixed_7a"):
        load_inception(tmp_path / "w.pth")
    torch.save(network.state_dict() | {"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "w.pth")
    with pytest.raises(InputFileError, match=r"fc.weight: expected shape \(1008, 2048\), got \(1000, 2048\)"):
        load_inception(tmp_path / "w.pth")


def test_unknown_files_need_consent(weights: Path, scripted: Path, tmp_path: Path) -> None:
    for path in (weights, scripted):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(InputFileError, match=f"unknown sha256 {digest}.*--accept-unverified"):
            load_detector(path)
    pickle = tmp_path / "inception-2015-12-05.pkl"
    pickle.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(InputFileError, match="not a readable file of weights"):
        load_detector(pickle, accept_unverified=True)
    with pytest.raises(InputFileError, match="no such detector; expected inception, pixels16 or the path"):
        load_detector("pixels17")


def test_known_files_are_verified(
    weights: Path, scripted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.EXTERNAL_WEIGHTS["inception"]
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    monkeypatch.setattr(registry, "PACKAGE_MODELS", tmp_path / "none")
    with pytest.raises(AssetMissingError, match="Inception-V3 for FID"):
        load_detector("inception")
    for path, name in ((weights, "inception"), (scripted, "script")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(registry.EXTERNAL_WEIGHTS, "inception", replace(entry, sha256=digest))
        place = tmp_path / entry.path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
        identity = load_detector("inception").identity
        assert (identity.name, identity.sha256, identity.verified, identity.comparable) == (name, digest, True, True)


def test_scripted_networks_are_called_as_the_published_one(scripted: Path, weights: Path, tmp_path: Path) -> None:
    assert is_torchscript(scripted) and not is_torchscript(weights)
    detector = load_detector(scripted, accept_unverified=True)
    assert not detector.identity.verified and not detector.identity.comparable
    images = pictures(3)
    torch.testing.assert_close(detector.network.features(images), images.float().mean(dim=(2, 3)))
    torch.testing.assert_close(detect_classes(detector, images).sum(dim=1), torch.ones(3))
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(scripted.read_bytes()[:-40])
    with pytest.raises(InputFileError, match="damaged.pt"):
        load_detector(damaged, accept_unverified=True)


def test_detectors_are_tried_with_a_picture(scripted: Path, tmp_path: Path) -> None:
    toy, pixels = load_detector(scripted, accept_unverified=True), load_detector("pixels16")
    for detector in (toy, pixels):
        require_fitting(detector, pictures(1)[0], tmp_path, with_classes=True)
    with pytest.raises(InputFileError, match=r"the detector \(pixels16\) does not take its pictures .*at least 16"):
        require_fitting(pixels, pictures(1, 15)[0], tmp_path)
    torch.jit.script(nn.Identity()).save(str(tmp_path / "other.pt"))
    other = load_detector(tmp_path / "other.pt", accept_unverified=True)
    with pytest.raises(InputFileError, match="the detector .script. does not take its pictures .*Identity"):
        require_fitting(other, pictures(1)[0], tmp_path)


def test_classes_have_no_bias(weights: Path) -> None:
    detector = load_detector(weights, accept_unverified=True)
    detector.network.network.fc.bias.data.fill_(float("nan"))
    probabilities = detect_classes(detector, pictures(1))
    assert probabilities.shape == (1, 1008) and probabilities.sum().item() == pytest.approx(1, abs=1e-5)


def test_pixels16_are_means_of_areas() -> None:
    detector = load_detector("pixels16")
    assert detector.identity.name == "pixels16" and not detector.identity.comparable
    images = pictures(2, 64)
    expected = images.double().unflatten(2, (16, 4)).unflatten(4, (16, 4)).mean(dim=(3, 5)).flatten(1) / 255
    torch.testing.assert_close(detector.network.features(images).double(), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="at least 16 pixels a side"):
        detector.network.features(pictures(1, 15))
    with pytest.raises(UserError, match="the inception score needs classes, which pixels16 lacks"):
        detect_classes(detector, images)
