"""Errors of faces and films: closed forms."""

import math

import pytest
import torch

from portrait4d.geometry.cameras import invert_rigid, orbit_cam2world
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.metrics.frame_errors import (
    facing_angles_deg,
    jitter,
    masked_distances,
    mean_absolute_error,
    own_is_nearest,
)
from tests.helpers.waves import wave


def test_mean_absolute_error() -> None:
    truth = wave(2, 4, frequency=0.3)
    offsets = torch.tensor([[1.0, -2.0, 0.0, 3.0], [0.5, 0.5, 0.5, -0.5]])
    assert mean_absolute_error(truth + offsets, truth).tolist() == pytest.approx([1.5, 0.5])
    with pytest.raises(ValueError, match=r"readings: expected shape \(2, 4\)"):
        mean_absolute_error(truth[:, :3], truth)


def test_jitter_of_the_truth_is_zero() -> None:
    truth = wave(6, 3, 4, 4, frequency=0.9)
    assert jitter(truth, truth).tolist() == [0] * 4


def test_jitter_sees_accelerations_only() -> None:
    truth = wave(5, 3, 4, 4, frequency=0.9).double()
    steps = torch.arange(5, dtype=torch.float64)[:, None, None, None]
    assert jitter(truth + 0.3 + 0.1 * steps, truth).tolist() == pytest.approx([0] * 3, abs=1e-12)
    assert jitter(truth + 0.1 * steps**2, truth).tolist() == pytest.approx([0.2] * 3)
    trembling = truth + 0.05 * (-1) ** steps
    assert jitter(trembling, truth).tolist() == pytest.approx([0.2] * 3)


def test_jitter_needs_three_frames() -> None:
    with pytest.raises(ValueError, match="at least 3 frames"):
        jitter(torch.zeros(2, 5), torch.zeros(2, 5))


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (25, 0), (-40, 0), (0, 12), (30, -10)])
def test_angles_of_a_turned_head(yaw: float, pitch: float) -> None:
    turn = axis_angle_to_matrix(torch.deg2rad(torch.tensor([[0.0, yaw, 0], [pitch, 0, 0], [0, 0, 20.0]])))
    rotation = turn[0] @ turn[1]  # pitch first, about the head's own axis
    assert facing_angles_deg(rotation[None])[0].tolist() == pytest.approx([yaw, pitch], abs=1e-4)
    assert facing_angles_deg((rotation @ turn[2])[None])[0].tolist() == pytest.approx([yaw, pitch], abs=1e-4)


def test_a_camera_at_the_side_sees_the_head_turned_away() -> None:
    cam2world = orbit_cam2world(torch.tensor(math.radians(30)), torch.zeros(()), (0.0, 0.0, 4.0))
    angles = facing_angles_deg(invert_rigid(cam2world[None])[:, :3, :3])
    assert angles.abs()[0].tolist() == pytest.approx([30, 0], abs=1e-4)


def test_ranks() -> None:
    truths = torch.stack([torch.full((3, 4, 4), value) for value in (0.0, 0.5, 1.0)])
    masks = torch.zeros(3, 1, 4, 4)
    masks[:, :, :2] = 1
    pictures = truths + torch.tensor([0.1, 0.3, 0.0])[:, None, None, None]
    pictures[:, :, 2:] = 99  # outside the masks
    distances = masked_distances(pictures, truths, masks)
    assert distances[0].tolist() == pytest.approx([0.1, 0.4, 0.9])
    assert own_is_nearest(distances).tolist() == [True, False, True]
