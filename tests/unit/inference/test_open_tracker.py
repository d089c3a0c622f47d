"""The open tracker on rendered heads of the open world, and on pictures without any."""

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.data.image_io import to_uint8
from portrait4d.geometry.cameras import invert_rigid, split_camera
from portrait4d.geometry.head_params import split_label
from portrait4d.inference.open_head_fit import SquarePlace
from portrait4d.inference.open_tracker import OpenTracker, cut_square, load_open_tracker
from portrait4d.inference.tracking import TrackedFrame
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.figure import Detail, build_figure
from portrait4d.synthetic_heads.motions import Motion
from portrait4d.synthetic_heads.portraits import plan_shot
from portrait4d.synthetic_heads.scene import render_portrait

SIZE = 128
MOST_ERROR, MOST_TURN_DEG = 0.05, 8.0


@pytest.fixture(scope="module")
def portrait() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of a turned head, uint8 rows, its label and its 68 points in pixels."""
    zeros = np.zeros(3, np.float32)
    neck, jaw = np.array([0.05, 0.35, 0.05], np.float32), np.array([0.1, 0, 0], np.float32)
    motion = Motion(np.zeros(100, np.float32), neck, jaw, zeros, np.array([0, -0.03, -4.25], np.float32))
    person = sample_appearance(77_000_003)
    shot = plan_shot(person, motion)
    figure = build_figure(person, Detail.for_size(SIZE))
    seen = render_portrait(figure, shot.params, shot.render_camera, SIZE, maps=False)
    return to_uint8(seen.image).permute(1, 2, 0).numpy(), shot.label, seen.landmarks68.numpy()


def track_one(picture: np.ndarray) -> TrackedFrame | None:
    return load_open_tracker(size=SIZE).track([picture])[0]


def points_in_picture(frame: TrackedFrame) -> np.ndarray:
    """Return the landmarks in pixels of the picture, counted from its corner."""
    matrix = frame.crop.crop_to_image
    return (frame.landmarks_pixels - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5


def face_size(points: np.ndarray) -> float:
    return float((points.max(0) - points.min(0)).mean())


def head_turn(label: np.ndarray) -> Tensor:
    """Return the head's rotation, world to camera."""
    return invert_rigid(split_camera(split_label(torch.from_numpy(label)[None])[0]).cam2world)[0, :3, :3]


def test_a_head_is_found_with_its_pose(portrait: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    picture, label, points = portrait
    frame = track_one(picture)
    assert frame is not None
    assert frame.image.shape == (3, SIZE, SIZE) and frame.label.shape == (437,) and frame.motion.shape == (548,)
    assert frame.landmarks_pixels.shape == (68, 2) and frame.crop.image_size == (SIZE, SIZE)
    error = np.linalg.norm(points_in_picture(frame) - points, axis=1).mean() / face_size(points)
    assert error < MOST_ERROR
    trace = float((head_turn(frame.label).T @ head_turn(label)).diagonal().sum())
    assert np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))) < MOST_TURN_DEG
    assert frame.label[320:] @ frame.label[320:] > 0


def test_the_same_head_in_a_larger_picture(portrait: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Three times as large, at the right of a wide picture: found in the same place of the head."""
    picture, _, points = portrait
    wide = np.full((420, 760, 3), 90, np.uint8)
    wide[20:404, 370:754] = picture.repeat(3, axis=0).repeat(3, axis=1)
    frame = track_one(wide)
    assert frame is not None
    gap = (points_in_picture(frame) - np.array([370, 20])) / 3 - points
    assert np.linalg.norm(gap, axis=1).mean() / face_size(points) < MOST_ERROR


def test_no_face_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    plain = np.full((90, 160, 3), 127, np.uint8)
    sky = np.linspace(230, 40, 120).astype(np.uint8)[:, None, None].repeat(160, axis=1).repeat(3, axis=2)
    black = np.zeros((64, 64, 3), np.uint8)
    assert load_open_tracker(size=SIZE).track([noise, plain, sky, black]) == [None] * 4


def test_frames_keep_their_order(portrait: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    picture, _, _ = portrait
    plain = np.full((128, 128, 3), 127, np.uint8)
    frames = load_open_tracker(size=64).track([plain, picture, plain, picture])
    assert [frame is None for frame in frames] == [True, False, True, False]
    assert frames[1].image.shape == (3, 64, 64)
    assert np.abs(frames[1].landmarks_pixels - frames[3].landmarks_pixels).max() < 1e-3
    assert load_open_tracker(size=64).track([]) == []


def test_networks_are_shared_and_trackers_are_not() -> None:
    first, second = load_open_tracker(), load_open_tracker()
    assert isinstance(first, OpenTracker) and first is not second and first.landmarks is second.landmarks


def test_squares_are_cut_exactly_and_edges_go_on() -> None:
    rows = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
    inside = cut_square(rows, SquarePlace(2, 3, 4), 4)
    assert torch.equal(inside[0].permute(1, 2, 0), torch.from_numpy(rows[3:7, 2:6]).float() / 127.5 - 1)
    outside = cut_square(rows, SquarePlace(-2, -2, 4), 4)[0]
    corner = torch.from_numpy(rows[0, 0]).float() / 127.5 - 1
    assert torch.equal(outside[:, 0, 0], corner) and torch.equal(outside[:, 1, 2], corner)
    assert cut_square(rows, SquarePlace(0, 0, 200), 5).shape == (1, 3, 5, 5)


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"pictures: expected uint8 \(H, W, 3\)"):
        load_open_tracker().track([picture])
