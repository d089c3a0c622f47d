"""H3R: boxes, crops, decoding in closed form; the network's names and batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_preprocess.landmarks_2d import (
    LandmarkNetwork,
    bounding_boxes,
    crop_corners,
    cut_box,
    decode_heatmaps,
    detect_landmarks98,
    enlarge_boxes,
    load_landmark_network,
    published_name,
)
from tests.golden.preprocess_cases import load_filled
from tests.helpers.hash_fill import hash_tensor

MANIFEST = Path(__file__).resolve().parents[2] / "golden" / "manifest-h3r.json"


class PeakNetwork(nn.Module):
    """Stands for the network: every map has one high peak, at column `u` and row `v`; keeps its input."""

    def __init__(self, u: int, v: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([u, v]), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        self.inputs = inputs
        heatmaps = torch.zeros(len(inputs), 98, 64, 64)
        heatmaps[:, :, self.place[1], self.place[0]] = 100
        return heatmaps


@pytest.fixture(scope="module")
def network() -> LandmarkNetwork:
    return load_filled(load_landmark_network, MANIFEST)


def test_names_are_the_published_ones() -> None:
    manifest = json.loads(MANIFEST.read_text())
    shapes = {name: tuple(shape) for name, shape, *_ in manifest["filled"] + manifest["derived"]}
    with torch.device("meta"):
        network = LandmarkNetwork()
    assert {published_name(name): tuple(value.shape) for name, value in network.state_dict().items()} == shapes
    assert len(shapes) == 1837  # preprocess-networks.md §2.4
    assert sum(parameter.numel() for parameter in network.parameters()) == 9_688_620


def test_enlarged_boxes_are_squares_about_the_same_centre() -> None:
    enlarged = enlarge_boxes(torch.tensor([[10.0, 20.0, 28.0, 94.0]]), 2.0)  # 19 x 75 pixels
    side = 2 * (19 * 75) ** 0.5
    np.testing.assert_allclose(enlarged, [[19 - side / 2, 57 - side / 2, 19 + side / 2, 57 + side / 2]], rtol=1e-6)
    for last in (float("nan"), float("inf"), 4.0):
        with pytest.raises(ValueError, match="boxes: expected finite x1 <= x2, y1 <= y2"):
            enlarge_boxes(torch.tensor([[5.0, 0.0, last, 1.0]]), 1.5)
    with pytest.raises(ValueError, match=r"boxes: expected shape \(B, 4\), got \(4,\)"):
        enlarge_boxes(torch.zeros(4), 1.5)


def test_boxes_of_points() -> None:
    points = torch.tensor([[[3.0, 9.0], [1.0, 10.0], [2.0, 5.0]]])
    assert bounding_boxes(points).tolist() == [[1, 5, 3, 10]]


def test_corners_are_cut_towards_zero() -> None:
    assert crop_corners(torch.tensor([[-0.9, -1.9, 3.9, 4.0]])).tolist() == [[0, -1, 3, 4]]


def test_crops_are_black_beyond_the_picture() -> None:
    image = hash_tensor(0, (3, 5, 4))
    crop = cut_box(image, torch.tensor([-2, -1, 7, 8]))
    assert crop.shape == (3, 9, 9)
    assert torch.equal(crop[:, 1:6, 2:6], image)
    assert int((crop == -1).sum()) == 3 * (81 - 20)
    assert torch.equal(cut_box(image, torch.tensor([1, 2, 3, 4])), image[:, 2:4, 1:3])
    for corners in ([4, 0, 6, 3], [-3, 0, 0, 3], [0, 5, 2, 9], [2, 2, 2, 4]):
        with pytest.raises(ValueError, match="corners: expected a box in a picture of 4 x 5 pixels"):
            cut_box(image, torch.tensor(corners))


def test_decoding_a_single_peak() -> None:
    heatmaps = torch.full((1, 2, 64, 64), -50.0)
    heatmaps[0, 0, 20, 33], heatmaps[0, 1, 63, 0] = 50, 50
    np.testing.assert_allclose(decode_heatmaps(heatmaps), [[[132, 80], [0, 252]]], atol=1e-4)


def test_decoding_weighs_the_nine_highest_places() -> None:
    heatmaps = torch.full((1, 2, 64, 64), -50.0)
    heatmaps[0, 0, 10, :9], heatmaps[0, 0, 10, 63] = 5.0, 4.9  # the tenth highest is left out
    heatmaps[0, 1, 8, 4], heatmaps[0, 1, 8, 8] = np.log(1.0), np.log(3.0)
    np.testing.assert_allclose(decode_heatmaps(heatmaps), [[[16, 40], [28, 32]]], rtol=1e-6)


def test_points_return_to_the_picture() -> None:
    image = torch.zeros(3, 60, 50)
    boxes = torch.tensor([[10.0, 10.0, 29.5, 29.5]])  # x 1.5: 30.75 about 19.75, from 4 (4.375) to 35 (35.125)
    points = detect_landmarks98(PeakNetwork(32, 16), image[None], boxes)
    assert points.shape == (1, 98, 2) and points.dtype == torch.float64
    np.testing.assert_allclose(points[0, 0], [4 + 128 * 31 / 256, 4 + 64 * 31 / 256], rtol=1e-6)


def test_input_is_the_normalised_crop() -> None:
    network = PeakNetwork(0, 0)
    image = torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1).expand(3, 40, 40)
    detect_landmarks98(network, [image], torch.tensor([[10.0, 10.0, 20.0, 20.0]]))
    assert network.inputs.shape == (1, 3, 256, 256)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(network.inputs[0, :, 100, 100], expected, rtol=1e-5)


def test_second_half_of_the_maps_counts(network: LandmarkNetwork) -> None:
    inputs = hash_tensor(2, (1, 3, 64, 64))
    everything = network.head(network.backbone(inputs))
    assert everything.shape == (1, 196, 16, 16)
    assert torch.equal(network(inputs), everything[:, 98:])


def test_batch_gives_what_single_pictures_give(network: LandmarkNetwork) -> None:
    images = [hash_tensor(3, (3, 80, 70)), hash_tensor(4, (3, 50, 90)), hash_tensor(4, (3, 50, 90))]
    boxes = torch.tensor([[20.0, 10.0, 50.0, 60.0], [-5.0, 5.0, 30.0, 40.0], [40.0, 5.0, 80.0, 60.0]])
    together = detect_landmarks98(network, images, boxes)
    alone = [detect_landmarks98(network, image[None], box[None]) for image, box in zip(images, boxes, strict=True)]
    np.testing.assert_allclose(together, torch.cat(alone), rtol=0, atol=1e-3)
    assert (together[1] - together[2]).abs().max() > 1
    assert detect_landmarks98(network, [], boxes[:0]).shape == (0, 98, 2)


def test_wrong_arguments_are_refused(network: LandmarkNetwork) -> None:
    image, box = torch.zeros(1, 3, 20, 20), torch.tensor([[2.0, 2.0, 8.0, 8.0]])
    with pytest.raises(ValueError, match="boxes: expected one box for each of 1 pictures, got 2"):
        detect_landmarks98(network, image, box.expand(2, 4))
    with pytest.raises(ValueError, match="corners: expected a box in a picture of 20 x 20 pixels"):
        detect_landmarks98(network, image, box + 100)
