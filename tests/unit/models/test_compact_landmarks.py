"""Compact landmark network: its maps in closed form, both looks, files, and the shipped weights' size."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from portrait4d.config.networks import LandmarkNetworkConfig
from portrait4d.files.errors import InputFileError
from portrait4d.models.checkpoints import (
    LANDMARK_NETWORK,
    load_compact_motion_encoder,
    load_landmark_network,
    read_safetensors,
    save_network,
)
from portrait4d.models.compact_landmarks import CompactLandmarks, FaceReading, mean_places
from tests.helpers.hash_fill import hash_tensor

TINY = LandmarkNetworkConfig(picture_size=32, widths=(8, 8, 8), points=4)
FACE = torch.tensor([[0.2, 0.2], [0.8, 0.25], [0.5, 0.5], [0.4, 0.9]])


def build_tiny() -> CompactLandmarks:
    torch.manual_seed(1)
    return CompactLandmarks(TINY, FACE)


def moved(points: Tensor, scale: float, angle_rad: float, shift: tuple[float, float]) -> Tensor:
    angle = torch.tensor(angle_rad)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return scale * (points - 0.5) @ turn.T + 0.5 + torch.tensor(shift)


def test_points_are_the_mean_places_of_maps() -> None:
    maps = torch.full((1, 2, 4, 8), -1e4)
    maps[0, 0, 1, 6] = maps[0, 1, 0, 0] = maps[0, 1, 3, 0] = 0
    torch.testing.assert_close(mean_places(maps), torch.tensor([[[6.5 / 8, 1.5 / 4], [0.5 / 8, 0.5]]]))


def test_one_reading_for_each_picture() -> None:
    reading = build_tiny()(hash_tensor(0, [3, 3, 32, 32]))
    assert reading.points.shape == (3, 4, 2) and reading.presence.shape == (3,)
    assert reading.points.min() > 0 and reading.points.max() < 1
    assert (reading.presence[0] - reading.presence[1]).abs() > 1e-4


def test_a_closer_look_sees_faces_upright_and_answers_in_the_picture() -> None:
    """A stub that reads the colours where the mean face's points are, and says that they are there."""
    network = build_tiny()
    seen = {}

    def look(views: Tensor) -> FaceReading:
        column, row = (FACE * 32).long().unbind(1)
        seen["colours"] = views[0, :, row, column]
        return FaceReading(FACE[None].clone(), torch.zeros(1))

    network.forward = look
    side = 96
    points = moved(FACE, 0.5, 0.4, (0.1, -0.05))
    place = (torch.arange(side) + 0.5) / side
    gradient = torch.stack([place.expand(side, side), place[:, None].expand(side, side), torch.zeros(side, side)])
    reading = network.look_closer(gradient[None], points[None])
    torch.testing.assert_close(reading.points[0], points, atol=1e-5, rtol=0)
    at_pixels = moved(((FACE * 32).long() + 0.5) / 32, 0.5, 0.4, (0.1, -0.05))
    torch.testing.assert_close(seen["colours"][:2].T, at_pixels, atol=1e-4, rtol=0)


def test_both_looks_must_see_a_face() -> None:
    network, answers = build_tiny(), iter([3.0, -2.0])
    network.forward = lambda views: FaceReading(FACE[None].clone(), torch.full((len(views),), next(answers)))
    assert network.find(torch.zeros(1, 3, 40, 40)).presence.tolist() == [-2.0]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mean_face: expected shape \(4, 2\), got \(5, 2\)"):
        CompactLandmarks(TINY, torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"pictures: expected shape \(B, 3, 32, 32\), got \(1, 3, 8, 8\)"):
        build_tiny()(torch.zeros(1, 3, 8, 8))
    for changed, message in (
        ({"picture_size": 20}, "picture_size: expected a multiple of 8, got 20"),
        ({"widths": (8, 9, 8)}, "widths: expected multiples of 8"),
        ({"widths": (8, 8)}, "widths: expected at least three stages"),
    ):
        with pytest.raises(ValueError, match=message):
            LandmarkNetworkConfig(**({"picture_size": 32, "widths": (8, 8, 8)} | changed))


def test_files_round_trip_and_kinds_are_told_apart(tmp_path: Path) -> None:
    network, path = build_tiny(), tmp_path / "landmarks.safetensors"
    save_network(path, network)
    loaded = load_landmark_network(path)
    assert loaded.config == TINY and not loaded.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    with pytest.raises(InputFileError, match="expected a motion_encoder, got 'landmarks'"):
        load_compact_motion_encoder(path)


def test_shipped_weights_are_small() -> None:
    network = load_landmark_network()
    assert LANDMARK_NETWORK.stat().st_size <= 4_000_000
    assert sum(parameter.numel() for parameter in network.parameters()) <= 2_000_000
    description, tensors = read_safetensors(LANDMARK_NETWORK)
    assert description["network"] == "landmarks" and {t.dtype for t in tensors.values()} == {torch.float16}
    assert network.stem.weight.dtype == torch.float32
