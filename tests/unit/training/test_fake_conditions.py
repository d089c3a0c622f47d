"""Conditions of fakes: whole rows with upright necks, or parts from different rows, and cameras that fit the necks."""

import pytest
import torch

from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world, project_points
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import split_label
from portrait4d.training.fake_conditions import ConditionRows, LabelMemory, build_conditions, draw_condition_rows

ROWS = 6


def labels() -> torch.Tensor:
    numbers = torch.Generator().manual_seed(0)
    yaw = torch.linspace(-0.4, 0.4, ROWS)
    camera = join_camera(orbit_cam2world(yaw, 0 * yaw), intrinsics_from_fov().expand(ROWS, 3, 3))
    return torch.cat([camera, 0.2 * torch.randn(ROWS, 412, generator=numbers)], dim=1)


def test_a_whole_row_without_its_neck(ellipsoid: HeadModel) -> None:
    rows = torch.tensor([4, 1, 4])
    asked = build_conditions(ellipsoid, ConditionRows(rows, rows, rows, rows, None), labels().__getitem__)
    camera, stored = split_label(labels()[rows])
    assert torch.equal(asked.params.shape, stored.shape) and torch.equal(asked.params.expression, stored.expression)
    assert torch.equal(asked.params.eye_pose, stored.eye_pose) and torch.equal(
        asked.params.pose[:, 3:], stored.pose[:, 3:]
    )
    assert not asked.params.pose[:, :3].any()
    assert torch.equal(asked.camera_upright, camera)
    assert torch.allclose(asked.camera, camera, atol=1e-5)


def test_rows_are_looked_up_once_for_all_parts(ellipsoid: HeadModel) -> None:
    rows, asked = torch.tensor([4, 1]), []

    def look_up(numbers: torch.Tensor) -> torch.Tensor:
        asked.append(numbers)
        return labels()[numbers]

    build_conditions(ellipsoid, ConditionRows(rows, rows, rows, rows, None), look_up)
    assert len(asked) == 1
    build_conditions(ellipsoid, ConditionRows(rows, rows, torch.tensor([0, 2]), rows, rows), look_up)
    assert len(asked) == 3


def test_each_label_is_read_once() -> None:
    read = []

    def label(row: int) -> torch.Tensor:
        read.append(row)
        return labels()[row]

    memory = LabelMemory(label, ROWS, torch.device("cpu"))
    for rows in ([4, 1, 4], [1, 5], [4, 5]):
        assert torch.equal(memory(torch.tensor(rows)), labels()[rows])
    assert set(read) == {1, 4, 5} and read.count(1) == read.count(5) == 1


def test_parts_of_different_rows(ellipsoid: HeadModel) -> None:
    split = ConditionRows(*torch.arange(5)[:, None])
    asked = build_conditions(ellipsoid, split, labels().__getitem__)
    cameras, stored = split_label(labels())
    assert torch.equal(asked.params.shape, stored.shape[0:1])
    assert torch.equal(asked.params.expression, stored.expression[1:2])
    assert torch.equal(asked.params.pose[:, 3:], stored.pose[1:2, 3:])
    assert torch.equal(asked.params.eye_pose, stored.eye_pose[2:3])
    assert torch.equal(asked.camera_upright, cameras[3:4])
    assert torch.equal(asked.params.pose[:, :3], stored.pose[4:5, :3])


def test_the_camera_sees_the_turned_head_as_the_stored_one_sees_it_upright(ellipsoid: HeadModel) -> None:
    asked = build_conditions(ellipsoid, ConditionRows(*torch.arange(5)[:, None]), labels().__getitem__)
    eyeballs = ellipsoid.region("eyeballs")
    turned = project_points(ellipsoid(asked.params)[:, eyeballs], asked.camera)
    upright = project_points(ellipsoid(asked.params.without_neck_rotation())[:, eyeballs], asked.camera_upright)
    assert torch.allclose(turned, upright, atol=1e-5)
    assert not torch.allclose(asked.camera, asked.camera_upright, atol=1e-2)


def test_drawn_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    joint = draw_condition_rows(3000, ROWS, False, generator)
    assert joint.neck is None
    assert all(torch.equal(part, joint.shape) for part in joint[:-1])
    counts = torch.bincount(joint.shape, minlength=ROWS)
    assert len(counts) == ROWS and counts.min() > 400 and counts.max() < 600
    parts = draw_condition_rows(3000, ROWS, True, generator)
    for number, first in enumerate(parts):
        for second in parts[:number]:
            assert (first == second).float().mean().item() == pytest.approx(1 / ROWS, abs=0.03)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="count, rows: expected at least 1, got 2 and 0"):
        draw_condition_rows(2, 0, False)
