"""RetinaFace: priors, decoding, suppression, choice in closed form; the network's names, batches and sizes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data_preprocess.face_boxes import (
    DetectionSettings,
    FaceBoxes,
    choose_faces,
    decode_faces,
    detect_faces,
    detection_inputs,
    prior_boxes,
    select_faces,
    suppress_overlaps,
)
from data_preprocess.retinaface_network import HeadOutputs, RetinaFace, load_retinaface, published_name
from tests.golden.preprocess_cases import load_filled
from tests.helpers.hash_fill import hash_tensor

MANIFEST = Path(__file__).resolve().parents[2] / "golden" / "manifest-retinaface.json"


def faces_with(boxes: list[list[float]], scores: list[float] | None = None) -> FaceBoxes:
    """Return faces with these boxes; their points are the first corner, five times."""
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    chosen = torch.tensor(scores) if scores else torch.linspace(1, 0.9, len(tensor))
    return FaceBoxes(tensor, chosen, tensor[:, None, :2].expand(-1, 5, 2))


@pytest.fixture(scope="module")
def network() -> RetinaFace:
    return load_filled(load_retinaface, MANIFEST)


def test_names_are_the_published_ones() -> None:
    manifest = json.loads(MANIFEST.read_text())
    shapes = {name: tuple(shape) for name, shape, *_ in manifest["filled"] + manifest["derived"]}
    with torch.device("meta"):
        network = RetinaFace()
    assert {published_name(name): tuple(value.shape) for name, value in network.state_dict().items()} == shapes
    assert len(shapes) == 456  # preprocess-networks.md §1.3
    assert sum(parameter.numel() for parameter in network.parameters()) == 27_293_600


def test_priors_of_odd_sizes() -> None:
    priors = prior_boxes(70, 53)
    assert priors.shape == (2 * (9 * 7 + 5 * 4 + 3 * 2), 4)
    cell = 2 * (1 * 7 + 2)  # row 1, column 2 of the first level
    expected = [[20 / 53, 12 / 70, side / 53, side / 70] for side in (16, 32)]
    np.testing.assert_allclose(priors[cell : cell + 2], expected, rtol=1e-7)
    np.testing.assert_allclose(priors[-1], [48 / 53, 80 / 70, 512 / 53, 512 / 70], rtol=1e-7)


def test_decoding_in_closed_form() -> None:
    priors = torch.tensor([[0.5, 0.25, 0.2, 0.4]])
    locations = torch.tensor([[1.0, -2.0, 0.0, 5 * np.log(2.0)]])
    landmarks = torch.tensor([[0.0, 0.0, 10.0, 0.0, 0.0, 10.0, -10.0, 0.0, 5.0, 5.0]])
    outputs = HeadOutputs(locations, torch.tensor([0.7]), landmarks)
    faces = decode_faces(outputs, priors, (100, 200), ratio=0.5)
    # centre (0.52, 0.17), sides (0.2, 0.8) of an input of 200 x 100, that is of a picture of 400 x 200 pixels
    np.testing.assert_allclose(faces.boxes, [[168, -46, 248, 114]], rtol=1e-5)
    np.testing.assert_allclose(faces.points[0], [[200, 50], [280, 50], [200, 130], [120, 50], [240, 90]], rtol=1e-5)
    assert faces.scores.tolist() == pytest.approx([0.7])


def overlap(a: list[float], b: list[float]) -> float:
    """Return intersection over union with inclusive last pixels."""
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1) for i in (0, 1))
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_suppression_is_greedy() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (200, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (200, 2))], axis=1).tolist()
    kept: list[int] = []
    for row, box in enumerate(boxes):
        if all(overlap(boxes[better], box) <= 0.4 for better in kept):
            kept.append(row)
    assert 20 < len(kept) < 150
    assert suppress_overlaps(torch.tensor(boxes, dtype=torch.float64), 0.4).tolist() == kept


def test_suppression_counts_the_last_pixel_and_keeps_equality() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 3], [0, 0, 9, 4]])  # areas 100, 40, 50
    assert suppress_overlaps(boxes, 0.4).tolist() == [0, 1]
    apart = torch.tensor([[0.0, 0, 0, 0], [0.5, 0, 0.5, 0]])  # half of an inclusive pixel is shared: 0.5 / 1.5
    assert suppress_overlaps(apart, 0.3).tolist() == [0]
    assert suppress_overlaps(apart, 0.34).tolist() == [0, 1]
    assert suppress_overlaps(torch.zeros(0, 4), 0.4).shape == (0,)


def test_selection_sorts_and_thresholds() -> None:
    boxes = [[0, 0, 10, 10], [50, 0, 60, 10], [0, 50, 10, 60], [51, 0, 61, 10]]
    found = select_faces(faces_with(boxes, [0.8, 0.9, 0.81, 0.95]), DetectionSettings())
    assert found.boxes.tolist() == [boxes[3], boxes[2]]
    assert found.scores.tolist() == pytest.approx([0.95, 0.81])
    assert found.points[:, 0].tolist() == [boxes[3][:2], boxes[2][:2]]


def test_choice() -> None:
    boxes = [[40, 40, 50, 50], [0, 0, 30, 10], [60, 60, 80, 80], [55, 55, 75, 75]]
    faces = faces_with(boxes)
    assert choose_faces(faces, "largest", (100, 100)).boxes.tolist() == [boxes[1]]  # of three whose sides add up to 40
    assert choose_faces(faces, "center", (100, 100)).boxes.tolist() == [boxes[0]]
    assert choose_faces(faces, "center", (160, 120)).boxes.tolist() == [boxes[2]]  # middle x 60, y 80
    assert choose_faces(faces, "all", (100, 100)) is faces
    assert all(len(choose_faces(faces[:0], choice, (9, 9))) == 0 for choice in ("largest", "center", "all"))
    with pytest.raises(ValueError, match="choice: expected one of largest, center, all, got 'first'"):
        choose_faces(faces, "first", (9, 9))


@pytest.mark.parametrize(("width", "expected"), [(101, 50), (103, 52), (1, 1)])
def test_inputs_have_the_height_and_colours(width: int, expected: int) -> None:
    """Half widths are rounded to even, as OpenCV does."""
    image = torch.tensor([255.0, 0.0, 100.0]).view(3, 1, 1).expand(3, 128, width) / 127.5 - 1
    inputs, ratio = detection_inputs(image[None], 64)
    assert ratio == 0.5 and inputs.shape == (1, 3, 64, expected)
    assert inputs[0, :, 0, 0].tolist() == [100 - 104, 0 - 117, 255 - 123]
    assert torch.equal(inputs, inputs[:, :, :1, :1].expand_as(inputs))


def test_wrong_shapes_are_refused(network: RetinaFace) -> None:
    with pytest.raises(ValueError, match=r"images: expected shape \(B, 3, H, W\), got \(3, 8, 8\)"):
        detect_faces(network, torch.zeros(3, 8, 8))


def pictures() -> Tensor:
    """Return three different pictures of an odd size."""
    return hash_tensor(7, (3, 3, 91, 75)) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1, 1)


def test_batch_gives_what_single_pictures_give(network: RetinaFace) -> None:
    settings = DetectionSettings(height=101, score_threshold=0.6)
    together = detect_faces(network, pictures(), settings)
    assert all(len(faces) > 3 for faces in together)
    for faces, image in zip(together, pictures(), strict=True):
        (alone,) = detect_faces(network, image[None], settings)
        for ours, theirs in ((faces.boxes, alone.boxes), (faces.scores, alone.scores), (faces.points, alone.points)):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_heads_have_a_prior_each(network: RetinaFace) -> None:
    outputs = network(detection_inputs(pictures(), 101)[0])
    priors = prior_boxes(101, 83)
    assert outputs.locations.shape == (3, *priors.shape)
    assert outputs.scores.shape == (3, len(priors)) and outputs.landmarks.shape == (3, len(priors), 10)
    assert outputs.scores.min() > 0 and outputs.scores.max() < 1


def test_outputs_come_in_the_order_of_the_priors(network: RetinaFace) -> None:
    inputs, _ = detection_inputs(pictures()[:1], 64)
    level = network.contexts[1](network.pyramid(network.body(inputs))[1])
    logits, locations = network.class_heads[1](level)[0], network.box_heads[1](level)[0]
    rows, columns = locations.shape[1:]
    assert (rows, columns) == (4, 4) and inputs.shape[3] == 53
    row, column, size = 2, 1, 1
    place = 2 * (8 * 7) + 2 * (row * columns + column) + size  # after the first level's 8 x 7 cells
    outputs = network(inputs)
    assert torch.equal(outputs.locations[0, place], locations[4 * size : 4 * size + 4, row, column])
    face = logits[2 * size : 2 * size + 2, row, column].softmax(0)[1]
    torch.testing.assert_close(outputs.scores[0, place], face)


def test_pictures_without_faces(network: RetinaFace) -> None:
    (faces,) = detect_faces(network, pictures()[:1], DetectionSettings(height=64, score_threshold=1.0))
    assert (faces.boxes.shape, faces.scores.shape, faces.points.shape) == ((0, 4), (0,), (0, 5, 2))
