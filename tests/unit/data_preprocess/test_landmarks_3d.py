"""FAN-4: frames, crops, decoding and depth maps in closed form; the network's names, batches, files and archives."""

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_preprocess import fan, fan_weights
from data_preprocess.fan import Fan, published_name
from data_preprocess.fan_weights import convert_fan, load_fan
from data_preprocess.landmarks_3d import (
    FanFrame,
    cut_fan_crop,
    decode_heatmaps,
    detect_landmarks68,
    draw_depth_maps,
    fan_frame,
    place_points,
)
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.models.pretrained import registry
from tests.helpers.hash_fill import hash_tensor

MANIFEST = Path(__file__).resolve().parents[2] / "golden" / "manifest-fan.json"
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Published(nn.Module):
    """FAN-4 under its published names, for archives like the published one: pictures in [0, 1]."""

    def __init__(self, network: Fan) -> None:
        super().__init__()
        self.network = [network]  # hidden from the state dict; the tracer knows its tensors as those registered here
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            *modules, leaf = published_name(name).split(".")
            owner: nn.Module = self
            for module in modules:
                if module not in owner._modules:
                    owner.add_module(module, nn.Module())
                owner = owner._modules[module]
            owner.register_buffer(leaf, tensor)

    def forward(self, crops: Tensor) -> Tensor:
        return self.network[0](crops * 2 - 1)


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> Fan:
    """A network of one stack, random; what is loaded has one stack, too."""
    monkeypatch.setattr(fan, "STACKS", 1)
    torch.manual_seed(0)
    return Fan().eval().requires_grad_(False)


@pytest.fixture
def archive(single: Fan, tmp_path: Path) -> Path:
    return save_archive(tmp_path / "3DFAN.zip", Published(single))


def save_archive(path: Path, network: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, of shape checks
        torch.jit.trace(network, torch.rand(1, 3, 256, 256), check_trace=False).save(str(path))
    return path


# ---------------------------------------------------------------------------------------------------- frame and crop


def test_frame_of_a_box() -> None:
    frame = fan_frame(torch.tensor([10.0, 20.0, 106.0, 116.0]))  # 96 x 96
    assert frame.centre == pytest.approx((58, 68 - 0.12 * 96))
    assert frame.scale == pytest.approx(1) and frame.side == pytest.approx(200)
    assert frame.to_image(torch.tensor([32.0, 32.0]), 64).tolist() == pytest.approx(frame.centre)


@pytest.mark.parametrize("box", [[5.0, 5.0, 5.0, 9.0], [0.0, 0.0, float("nan"), 3.0]])
def test_empty_boxes_are_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match="box: expected x1 < x2, y1 < y2"):
        fan_frame(torch.tensor(box))


def test_corners_are_cut_towards_zero() -> None:
    frame = FanFrame((128.0, 120.0), 256 / 200)  # one pixel of the network is one of the picture
    assert frame.corners == ((1, -7), (256, 248))
    assert FanFrame((126.5, 120.0), 256 / 200).corners[0] == (0, -7)  # -0.5 becomes 0


def test_crop_is_the_picture_where_there_is_one_and_black_elsewhere() -> None:
    white = torch.ones(3, 300, 300)
    crop = cut_fan_crop(white, FanFrame((128.0, 120.0), 256 / 200))
    assert crop.shape == (3, 256, 256)
    assert (crop[:, :6] == -1).all() and (crop[:, 9:] == 1).all()
    with pytest.raises(ValueError, match="corners: expected a box in a picture of 300 x 300 pixels"):
        cut_fan_crop(white, FanFrame((1000.0, 0.0), 1.0))


# ---------------------------------------------------------------------------------------------------- decoding


def test_peaks_move_a_quarter_towards_the_larger_neighbour() -> None:
    heatmaps = torch.zeros(1, 4, 64, 64)
    heatmaps[0, :, 20, 30] = 2
    heatmaps[0, 1, 20, 31] = heatmaps[0, 1, 19, 30] = 1
    heatmaps[0, 2, 20, 29] = heatmaps[0, 2, 21, 30] = 1
    heatmaps[0, 3, 40, 63] = 3  # at the border nothing is moved
    heatmaps[0, 3, 39, 63] = heatmaps[0, 3, 40, 62] = 1
    points, scores = decode_heatmaps(heatmaps)
    assert points[0].tolist() == [[30.5, 20.5], [30.75, 20.25], [30.25, 20.75], [63.5, 40.5]]
    assert scores.tolist() == [[2, 2, 2, 3]]
    with pytest.raises(ValueError, match=r"heatmaps: expected shape \(B, K, 64, 64\), got \(1, 4, 32, 64\)"):
        decode_heatmaps(heatmaps[:, :, :32])


def test_points_return_to_the_picture_and_are_cut() -> None:
    frame = FanFrame((100.0, 50.0), 0.64)  # two pixels of the picture per pixel of the map
    points = torch.tensor([[32.0, 32.0], [10.3, 6.9]])
    assert place_points(points, frame, whole_pixels=False).numpy() == pytest.approx(
        np.array([[100, 50], [56.6, -0.2]]), abs=1e-4
    )
    assert place_points(points, frame).tolist() == [[100, 50], [56, 0]]


def test_depth_maps_are_gaussians_before_the_point() -> None:
    (drawn,) = draw_depth_maps(torch.tensor([[25.125, 30.125]]))  # 100.5, 120.5 of 256
    y, x = np.mgrid[:256, :256]
    expected = np.exp(-((x - 99) ** 2 + (y - 119) ** 2) / (2 * 3.25**2))
    expected[(abs(x - 99) > 6) | (abs(y - 119) > 6)] = 0
    np.testing.assert_allclose(drawn, expected, atol=1e-6)


def test_depth_maps_at_borders() -> None:
    low, high, outside = draw_depth_maps(torch.tensor([[0.5, 32.0], [63.5, 32.0], [-3.0, 32.0]]))
    # 2 of 256: from -4 to 8, three values of the kernel skipped, the first drawn at pixel 0
    assert low[127, :8].numpy() == pytest.approx(np.exp(-((np.arange(8) - 3) ** 2) / (2 * 3.25**2)), abs=1e-6)
    assert not low[:, 8:].any()
    assert high[127].argmax() == 253 and int((high[127] > 0).sum()) == 9  # 254: from 248 to the last pixel
    assert not outside.any()


# ---------------------------------------------------------------------------------------------------- network


def test_names_are_the_published_ones() -> None:
    manifest = json.loads(MANIFEST.read_text())
    shapes = {name: tuple(shape) for name, shape, *_ in manifest["filled"] + manifest["derived"]}
    with torch.device("meta"):
        network = Fan()
    assert {published_name(name): tuple(value.shape) for name, value in network.state_dict().items()} == shapes


def test_batch_gives_what_single_pictures_give(single: Fan) -> None:
    images = [hash_tensor(3, (3, 80, 70)), hash_tensor(4, (3, 50, 90))]
    boxes = torch.tensor([[20.0, 10.0, 50.0, 60.0], [-5.0, 5.0, 30.0, 40.0]])
    together = detect_landmarks68(single, images, boxes)
    alone = [detect_landmarks68(single, image[None], box[None]) for image, box in zip(images, boxes, strict=True)]
    assert together.points.shape == (2, 68, 2) and together.scores.shape == (2, 68)
    assert torch.equal(together.points, together.points.trunc())
    scores = torch.cat([one.scores for one in alone])
    torch.testing.assert_close(together.scores, scores, rtol=0, atol=1e-4 * scores.abs().max().item())
    assert detect_landmarks68(single, [], boxes[:0]).points.shape == (0, 68, 2)
    with pytest.raises(ValueError, match=r"boxes: expected shape \(2, 4\), got \(1, 4\)"):
        detect_landmarks68(single, images, boxes[:1])


def test_other_crops_are_refused(single: Fan) -> None:
    with pytest.raises(ValueError, match=r"crops: expected shape \(B, 3, 256, 256\), got \(1, 3, 128, 128\)"):
        single(torch.zeros(1, 3, 128, 128))


# ---------------------------------------------------------------------------------------------------- archives


def test_unknown_archives_are_not_opened(archive: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(InputFileError, match=f"unknown sha256 {digest}, expected one that begins with 4a694010b9"):
        load_fan(archive)
    assert not archive.with_suffix(".safetensors").exists()


def test_archives_are_converted_once(
    archive: Path, single: Fan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    place = tmp_path / registry.EXTERNAL_WEIGHTS["landmarks68"].path
    place.parent.mkdir()
    place.write_bytes(archive.read_bytes())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(fan_weights, "ARCHIVE_DIGEST", digest[:10])
    first = load_fan()
    place.unlink()
    for loaded in (first, load_fan()):
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), single.parameters(), strict=True))
    assert [path.name for path in place.parent.iterdir()] == ["3DFAN4-4a694010b9.safetensors"]


def test_other_networks_are_not_converted(archive: Path, tmp_path: Path) -> None:
    class Other(nn.Module):
        def forward(self, crops: Tensor) -> Tensor:
            return crops

    torch.jit.script(Other()).save(str(tmp_path / "other.zip"))
    with pytest.raises(InputFileError, match=r"other\.zip: .*tensors"):
        convert_fan(tmp_path / "other.zip", tmp_path / "other.safetensors", accept_unverified=True)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(InputFileError, match="damaged.zip: not a readable TorchScript archive"):
        convert_fan(damaged, tmp_path / "damaged.safetensors", accept_unverified=True)
    with pytest.raises(InputFileError, match="nowhere.zip: no such file"):
        convert_fan(tmp_path / "nowhere.zip", tmp_path / "nowhere.safetensors")
    with pytest.raises(InputFileError, match="x.safetensors: cannot be written .* convert it elsewhere"):
        convert_fan(archive, archive / "x.safetensors", accept_unverified=True)
    assert not list(tmp_path.glob("*.safetensors"))


def test_archives_that_say_something_else_are_not_converted(single: Fan, tmp_path: Path) -> None:
    class Skewed(Published):
        def forward(self, crops: Tensor) -> Tensor:
            return super().forward(crops) + 1

    save_archive(tmp_path / "skewed.zip", Skewed(single))
    with pytest.raises(InputFileError, match="skewed.zip: gives other heat-maps than FAN-4"):
        load_fan(tmp_path / "skewed.zip", accept_unverified=True)
    assert [path.name for path in tmp_path.iterdir()] == ["skewed.zip"]


def test_missing_weights_say_where_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setattr(registry, "PACKAGE_MODELS", tmp_path / "package")
    with pytest.raises(AssetMissingError, match="portrait4d/fetch_assets.py landmarks68 --url") as caught:
        load_fan()
    assert str(tmp_path / "assets/landmark3d/3DFAN4-4a694010b9.zip") in str(caught.value)
