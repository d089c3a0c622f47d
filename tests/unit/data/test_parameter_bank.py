"""Pools of shapes, cameras and motions: columns and pooling, draws, the rules of the three views, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.parameter_bank import (
    JAW_LIMIT_RAD,
    SHAPE_FILES,
    STILL_MOTION_FILE,
    VIDEO_MOTION_FILE,
    ParameterBank,
)
from portrait4d.files.errors import InputFileError
from tests.helpers.damaged_arrays import DAMAGED_ARRAYS


def columns(rows: tuple[int, ...], count: int, start: float) -> np.ndarray:
    """Numbers that name their place: start + row + column / 1000."""
    row = np.arange(np.prod(rows, dtype=int)).reshape(*rows, 1)
    return (start + row + np.arange(count) / 1000).astype(np.float32)


def arrays() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    shapes = [columns((4,), 325, 0), columns((3,), 325, 4)]
    return shapes, columns((5,), 112, 100), columns((3, 6), 112, 200)


def bank() -> ParameterBank:
    return ParameterBank.from_arrays(*arrays())


def test_columns_and_pooling() -> None:
    made, (shapes, still, video) = bank(), arrays()
    pooled = torch.from_numpy(np.concatenate(shapes))
    assert torch.equal(made.cameras, pooled[:, :25]) and torch.equal(made.shapes, pooled[:, 25:])
    for pool, stored in ((made.still, torch.from_numpy(still)), (made.video, torch.from_numpy(video))):
        assert torch.equal(pool.expression, stored[..., :100]) and torch.equal(pool.eye_pose, stored[..., 106:])
        assert not pool.pose[..., :3].any() and torch.equal(pool.pose[..., 3:], stored[..., 103:106])


def test_published_files_load_whatever_their_leading_dimensions(tmp_path: Path) -> None:
    shapes, still, video = arrays()
    np.save(tmp_path / SHAPE_FILES[0], shapes[0].reshape(2, 2, 325))
    np.save(tmp_path / SHAPE_FILES[1], shapes[1][None])
    np.save(tmp_path / STILL_MOTION_FILE, still[:, None])
    np.save(tmp_path / VIDEO_MOTION_FILE, video)
    loaded, made = ParameterBank.load(tmp_path), bank()
    assert torch.equal(loaded.cameras, made.cameras) and torch.equal(loaded.shapes, made.shapes)
    assert torch.equal(loaded.still.expression, made.still.expression)
    assert torch.equal(loaded.video.pose, made.video.pose)
    for content in DAMAGED_ARRAYS:
        (tmp_path / VIDEO_MOTION_FILE).write_bytes(content)
        with pytest.raises(InputFileError, match=f"{VIDEO_MOTION_FILE}: not a readable .npy array"):
            ParameterBank.load(tmp_path)
    (tmp_path / VIDEO_MOTION_FILE).unlink()
    with pytest.raises(InputFileError, match=VIDEO_MOTION_FILE):
        ParameterBank.load(tmp_path)


def test_draws_repeat_with_the_generator() -> None:
    made = bank()
    draws = [made.draw(200, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    for name in ("shape", "camera", "video", "frames", "eyes", "jaw_value", "jaw_coin", "still_expression"):
        first, second, other = (getattr(draw, name) for draw in draws)
        assert torch.equal(first, second) and not torch.equal(first, other), name
    for name, shape, rows in (
        ("shape", (200,), 7),
        ("camera", (200, 3), 7),
        ("video", (200,), 3),
        ("frames", (200, 2), 6),
        ("eyes", (200, 2), 18),
        ("still_expression", (100,), 5),
        ("still_eyes", (100,), 5),
    ):
        drawn = getattr(draws[0], name)
        assert drawn.shape == shape and drawn.unique().tolist() == list(range(rows)), name


def test_views_follow_the_rules() -> None:
    made = bank()
    draws = made.draw(300, torch.Generator().manual_seed(0))
    views = made.compute_views(draws)
    assert torch.equal(views.shape, made.shapes[draws.shape][:, None].expand(-1, 3, -1))
    assert torch.equal(views.camera, made.cameras[draws.camera])
    first, second = (made.video.expression[draws.video, draws.frames[:, k]] for k in (0, 1))
    assert torch.equal(views.expression, torch.stack([first, second, second], 1))
    eyes = made.video.eye_pose.flatten(0, 1)[draws.eyes]
    assert torch.equal(views.eye_pose, eyes[:, [0, 1, 1]])
    stored = made.video.pose[draws.video[:, None], draws.frames][:, [0, 1, 1]]
    assert not views.pose[..., :3].any() and torch.equal(views.pose[..., 4:], stored[..., 4:])
    opened = views.pose[..., 3] != stored[..., 3]
    assert torch.equal(opened[:, 1], opened[:, 2]) and torch.equal(views.pose[:, 1], views.pose[:, 2])
    assert 0.4 < opened[:, :2].float().mean() < 0.6
    jaws = views.pose[..., 3][opened]
    assert jaws.min() >= 0 and jaws.max() <= JAW_LIMIT_RAD
    flat = views.flat()
    assert flat.camera.shape == (900, 25) and torch.equal(flat.camera[4], views.camera[1, 1])


def test_static_and_half_static() -> None:
    made = bank()
    draws = made.draw(4, torch.Generator().manual_seed(0))
    static = made.compute_views(draws, static=True)
    for name in ("expression", "pose", "eye_pose"):
        values = getattr(static, name)
        assert torch.equal(values[:, 0], values[:, 1]) and torch.equal(values[:, 0], values[:, 2])
    assert torch.equal(static.expression[:, 0], made.video.expression[draws.video, draws.frames[:, 0]])
    half, moving = made.compute_views(draws, half_static=True), made.compute_views(draws)
    for name in ("expression", "pose", "eye_pose"):
        assert torch.equal(getattr(half, name)[:2], getattr(moving, name)[:2])
    assert torch.equal(half.expression[2:], made.still.expression[draws.still_expression][:, None].expand(-1, 3, -1))
    assert torch.equal(half.pose[2:], made.still.pose[draws.still_expression][:, None].expand(-1, 3, -1))
    assert torch.equal(half.eye_pose[2:], made.still.eye_pose[draws.still_eyes][:, None].expand(-1, 3, -1))
    draws = made.draw(3, torch.Generator().manual_seed(0))
    odd = made.compute_views(draws, half_static=True)
    assert torch.equal(odd.expression[:2], made.compute_views(draws).expression[:2])
    assert torch.equal(odd.expression[2, 0], made.still.expression[draws.still_expression[0]])


def test_bad_arrays_are_refused() -> None:
    shapes, still, video = arrays()
    broken = still.copy()
    broken[0, 0] = np.nan
    for given, message in (
        (([shapes[0][:, :300]], still, video), r"shapes_and_cameras: expected \(\.\.\., 325\)"),
        ((shapes, still[:, :111], video), r"still_motions: expected \(\.\.\., 112\)"),
        ((shapes, still[:0], video), "still_motions: expected .* with at least one row"),
        ((shapes, broken, video), "still_motions: expected finite numbers"),
        ((shapes, still, video[0]), r"video_motions: expected \(videos, frames, 112\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ParameterBank.from_arrays(*given)
    with pytest.raises(ValueError, match="subjects: expected at least 1, got 0"):
        bank().draw(0)
