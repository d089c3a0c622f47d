"""Random cameras: where the middle and the ends of the uniform numbers put them, and what they look at."""

import math

import pytest
import torch

from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, project_points, split_camera
from portrait4d.geometry.lookat_cameras import (
    CAMERA_DRAWS,
    frontal_camera,
    look_at_pose,
    random_camera_pose,
    replace_pose,
    sample_camera_poses,
)

MIDDLE = torch.full((CAMERA_DRAWS,), 0.5)


def with_draw(number: int, value: float) -> torch.Tensor:
    draws = MIDDLE.clone()
    draws[number] = value
    return draws


def camera(pose: torch.Tensor) -> torch.Tensor:
    return join_camera(pose, intrinsics_from_fov().expand(*pose.shape[:-2], 3, 3))


def test_the_frontal_pose_looks_along_minus_z() -> None:
    quarter = torch.tensor(math.pi / 2)
    pose = look_at_pose(quarter, quarter, torch.tensor(0.0), torch.zeros(3), torch.tensor(4.2))
    expected = torch.eye(4)
    expected[2, 3] = 4.2
    assert torch.allclose(pose, expected, atol=1e-6)


def test_middle_numbers() -> None:
    # Pitch 0.2: vertical pi/2 - 0.2, polar angle arccos(1 - 2 v / pi) = arccos(0.4 / pi).
    pose = random_camera_pose(MIDDLE)
    height = 0.4 / math.pi
    expected = 4.05 * torch.tensor([0.0, height, math.sqrt(1 - height**2)])
    assert torch.allclose(pose[:3, 3], expected, atol=1e-5)


def test_the_pivot_is_in_the_middle_of_the_picture() -> None:
    draws = torch.rand(50, CAMERA_DRAWS, generator=torch.Generator().manual_seed(0))
    pivot = 0.06 * draws[:, 3:6] + torch.tensor([-0.03, -0.03, 0.06])
    place = project_points(pivot[:, None], camera(random_camera_pose(draws)))
    assert torch.allclose(place, torch.full_like(place, 0.5), atol=1e-4)


@pytest.mark.parametrize(("draw", "yaw_rad"), [(0.0, -0.78), (1.0, 0.78)])
def test_yaw_moves_the_camera_sideways(draw: float, yaw_rad: float) -> None:
    x, _, z = random_camera_pose(with_draw(0, draw))[:3, 3].tolist()
    assert math.atan2(z, x) == pytest.approx(math.pi / 2 + yaw_rad, abs=1e-5)


@pytest.mark.parametrize(("draw", "pitch_rad"), [(0.0, -0.25), (1.0, 0.65)])
def test_pitch_lifts_the_camera(draw: float, pitch_rad: float) -> None:
    position = random_camera_pose(with_draw(1, draw))[:3, 3]
    assert position[1].item() / 4.05 == pytest.approx(2 * pitch_rad / math.pi, abs=1e-5)


@pytest.mark.parametrize(("draw", "roll_rad"), [(0.0, -0.25), (1.0, 0.25)])
def test_roll_turns_the_picture_only(draw: float, roll_rad: float) -> None:
    upright, rolled = random_camera_pose(MIDDLE), random_camera_pose(with_draw(2, draw))
    assert torch.equal(upright[:3, 3], rolled[:3, 3])
    # §5 with f = -z: r = x, u = y, u' = y cos + x sin, right = x cos - y sin, up = y cos + x sin.
    turn = upright[:3, :3].T @ rolled[:3, :3]
    cos, sin = math.cos(roll_rad), math.sin(roll_rad)
    assert torch.allclose(turn, torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]), atol=1e-5)


@pytest.mark.parametrize(("draw", "radius"), [(0.0, 3.65), (1.0, 4.45)])
def test_radius(draw: float, radius: float) -> None:
    assert random_camera_pose(with_draw(6, draw))[:3, 3].norm().item() == pytest.approx(radius, abs=1e-5)


def test_sampled_poses_fill_the_range_and_repeat() -> None:
    poses = sample_camera_poses(2000, torch.Generator().manual_seed(1))
    assert torch.equal(poses, sample_camera_poses(2000, torch.Generator().manual_seed(1)))
    yaw = torch.atan2(poses[:, 2, 3], poses[:, 0, 3]) - math.pi / 2
    radius = poses[:, :3, 3].norm(dim=1)
    for values, low, high in ((yaw, -0.78, 0.78), (radius, 3.65, 4.45)):
        assert low - 1e-5 <= values.min() and values.max() <= high + 1e-5
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.04 * (high - low))
        assert values.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.05)


def test_chosen_cameras_get_other_poses_and_keep_their_intrinsics() -> None:
    own = torch.arange(75.0).view(3, 25)
    poses = sample_camera_poses(3, torch.Generator().manual_seed(0))
    moved = replace_pose(own, poses, torch.tensor([True, False, True]))
    assert torch.equal(moved[1], own[1])
    assert torch.equal(split_camera(moved).cam2world[[0, 2]], poses[[0, 2]])
    assert torch.equal(moved[:, 16:], own[:, 16:])
    assert torch.equal(replace_pose(own, poses)[1, :16], poses[1].flatten())


def test_another_number_of_columns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"draws: expected \(\.\.\., 7\), got \(2, 6\)"):
        random_camera_pose(torch.zeros(2, 6))


def test_the_frontal_camera_keeps_the_intrinsics() -> None:
    camera = replace_pose(join_camera(torch.eye(4)[None], intrinsics_from_fov(20.0)[None]), sample_camera_poses(1))
    pose, intrinsics = split_camera(frontal_camera(camera))
    assert torch.equal(pose[0, :3, :3], torch.eye(3)) and pose[0, :3, 3].tolist() == [0, 0, 4]
    assert torch.equal(intrinsics, split_camera(camera).intrinsics)
