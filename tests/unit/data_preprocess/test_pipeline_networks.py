"""The pipeline with its real networks and deterministic weights: it runs through, on real photos too.

Such weights find no faces, so the detector's boxes are replaced by the true ones.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data_preprocess.bfm_regressor import load_bfm_regressor
from data_preprocess.face_boxes import FaceBoxes
from data_preprocess.face_networks import FaceNetworks, join_networks, load_face_networks
from data_preprocess.fan_weights import load_fan
from data_preprocess.landmarks_2d import bounding_boxes, load_landmark_network
from data_preprocess.pipeline import PreprocessConfig, run_preprocessing
from data_preprocess.retinaface_network import load_retinaface
from portrait4d.data.image_io import from_uint8, load_image, save_image
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.files.errors import AssetMissingError
from portrait4d.files.safe_pickle import NUMPY_RULES, read_object_npy
from tests.golden.preprocess_cases import load_filled

TESTS = Path(__file__).parents[2]
PORTRAITS = TESTS.parents[1] / "shared/real/portraits"
ASTRONAUT_BOX = (175.0, 70.0, 275.0, 195.0)


@pytest.fixture(scope="module")
def networks() -> FaceNetworks:
    manifests = TESTS / "golden"
    return join_networks(
        load_filled(load_retinaface, manifests / "manifest-retinaface.json"),
        load_filled(load_landmark_network, manifests / "manifest-h3r.json"),
        load_filled(load_fan, manifests / "manifest-fan.json"),
        load_filled(load_bfm_regressor, manifests / "manifest-deep3d.json"),
    )


def with_boxes(networks: FaceNetworks, boxes: Tensor) -> FaceNetworks:
    """Let the detector run, and answer with the next of the boxes (N, 4) instead."""
    left = list(boxes)

    def detect(images: Tensor) -> list[FaceBoxes]:
        assert len(networks.detect(images)) == len(images)
        return [FaceBoxes(left.pop(0)[None].float(), torch.ones(1), torch.zeros(1, 5, 2)) for _ in images]

    return replace(networks, detect=detect)


def assert_files(root: Path, count: int) -> None:
    items = PortraitFolder(root).items()
    assert len(items) == count
    for item in items:
        assert item.load_image(512).shape == (3, 512, 512)
        for folder, points in (("2dldmks_align", 98), ("3dldmks_align", 68)):
            array = np.load(item.array_path(folder))
            assert array.shape == (points, 2) and array.dtype == np.float64 and np.isfinite(array).all()
        values = read_object_npy(item.array_path("bfm_params"), NUMPY_RULES)
        sizes = {"id": 80, "exp": 64, "tex": 80, "angle": 3, "gamma": 27, "trans": 3}
        assert {key: value.shape for key, value in values.items()} == {key: (1, size) for key, size in sizes.items()}
        assert all(value.dtype == np.float32 for value in values.values())
        assert (root / "crop_transforms" / f"{item.stem}.npz").is_file()


@pytest.mark.slow
def test_real_portraits(networks: FaceNetworks, tmp_path: Path) -> None:
    if not PORTRAITS.is_dir():
        pytest.skip("the eight real portraits are not there")
    items = PortraitFolder(PORTRAITS).items()
    boxes = bounding_boxes(torch.stack([torch.from_numpy(item.load_landmarks98()) for item in items]))
    config = PreprocessConfig(PORTRAITS / "align_images", tmp_path, "cpu", batch=4)
    report = run_preprocessing(config, with_boxes(networks, boxes))
    assert (report.written, report.failures) == (8, [])
    assert_files(tmp_path, 8)


@pytest.mark.slow
def test_astronaut(networks: FaceNetworks, tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    save_image(tmp_path / "in/astronaut.png", from_uint8(torch.from_numpy(data.astronaut()).permute(2, 0, 1)))
    config = PreprocessConfig(tmp_path / "in", tmp_path / "out", "cpu")
    report = run_preprocessing(config, with_boxes(networks, torch.tensor([ASTRONAUT_BOX])))
    assert (report.written, report.failures) == (1, [])
    assert_files(tmp_path / "out", 1)
    assert load_image(tmp_path / "out/align_images/astronaut.png").std() > 0


def test_missing_weights_are_one_error_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path / "assets"))
    save_image(tmp_path / "in/a.png", torch.zeros(3, 32, 32))
    run = partial(run_preprocessing, PreprocessConfig(tmp_path / "in", tmp_path / "out", "cpu"))
    with pytest.raises(AssetMissingError) as caught:
        run()
    message = str(caught.value)
    assert message.endswith(
        "python portrait4d/fetch_assets.py retinaface h3r landmarks68 bfm_regressor --url h3r=ADDRESS "
        "--url landmarks68=ADDRESS --url bfm_regressor=ADDRESS --accept-licences"
    )
    for place in ("facedetect/retinaface/Resnet50_Final.pth", "hrnet_w18_wflw/h3r/model.pth", str(tmp_path / "assets")):
        assert place in message
    assert not (tmp_path / "out").exists()


def test_the_face_model_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    for loader in ("load_retinaface", "load_landmark_network", "load_fan", "load_bfm_regressor"):
        monkeypatch.setattr(f"data_preprocess.face_networks.{loader}", lambda **_: torch.nn.Identity())
    assert load_face_networks(torch.device("cpu")).draw is None
