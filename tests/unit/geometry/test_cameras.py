"""Cameras against the values of `cameras-and-rasterisation.md` and their defining properties."""

import math

import pytest
import torch

from portrait4d.geometry.cameras import (
    intrinsics_from_fov,
    invert_rigid,
    join_camera,
    look_at_cam2world,
    orbit_cam2world,
    sphere_position,
    split_camera,
)


def test_look_at_of_the_specification() -> None:
    position = sphere_position(torch.tensor(math.pi / 2), torch.tensor(math.pi / 2), 4.0)
    pose = look_at_cam2world(position, torch.zeros(3))
    expected = torch.eye(4)
    expected[2, 3] = 4
    torch.testing.assert_close(pose, expected, atol=1e-6, rtol=0)

    position = sphere_position(torch.tensor(math.pi / 2 + 0.3), torch.tensor(math.pi / 2 - 0.2), 4.0)
    pose = look_at_cam2world(position, torch.tensor([0, 0, 0.1]), torch.tensor(0.1))
    expected = torch.tensor(
        [
            [0.9443, 0.1344, -0.3002, -1.1725],
            [-0.0990, 0.9865, 0.1304, 0.5093],
            [0.3137, -0.0934, 0.9449, 3.7902],
        ]
    )
    torch.testing.assert_close(pose[:3], expected, atol=6e-5, rtol=0)


def test_field_of_view_of_all_published_files() -> None:
    assert intrinsics_from_fov(12.0)[0, 0].item() == pytest.approx(4.757182, abs=1e-6)
    with pytest.raises(ValueError, match="fov_deg: expected a number between 0 and 180, got 0"):
        intrinsics_from_fov(0)


def test_orbit_keeps_the_head_in_the_middle() -> None:
    yaw, pitch = torch.tensor([0.0, 0.5, -0.5]), torch.tensor([0.0, 0.2, -0.1])
    poses = orbit_cam2world(yaw, pitch, (0.0, 0.0, 4.2))
    in_camera = invert_rigid(poses)[:, :3, 3]  # the world origin
    torch.testing.assert_close(in_camera, torch.tensor([[0, 0, -4.2]]).expand(3, 3), atol=1e-6, rtol=0)
    assert poses[1, 0, 3] > 1
    assert poses[1, 1, 3] > 0.5
    assert poses[2, 0, 3] < -1
    torch.testing.assert_close(poses[0, :3, :3], torch.eye(3), atol=1e-7, rtol=0)


def test_invert_and_join_undo() -> None:
    pose = orbit_cam2world(torch.tensor([0.4]), torch.tensor([0.3]))
    torch.testing.assert_close(invert_rigid(pose) @ pose, torch.eye(4)[None], atol=1e-6, rtol=0)
    vector = join_camera(pose, intrinsics_from_fov()[None])
    assert vector.shape == (1, 25)
    assert torch.equal(split_camera(vector).cam2world, pose)
    with pytest.raises(ValueError, match=r"camera: expected last axis 25, got shape \(1, 24\)"):
        split_camera(vector[:, :24])
