"""Subjects rendered on line: labels, motions, cameras and depth agree with the pictures."""

from functools import lru_cache

import numpy as np
import pytest
import torch

from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world, project_points
from portrait4d.geometry.head_params import split_label
from portrait4d.geometry.lookat_cameras import sample_camera_poses
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.rendering.rays import camera_rays
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.figure import open_head_model
from portrait4d.synthetic_heads.motions import sample_still_motion
from portrait4d.synthetic_heads.portraits import plan_shot
from portrait4d.training.rendered_subjects import RenderedSubjects, distance_along_rays, free_shot
from portrait4d.training.subject_frames import SubjectFrames
from tests.helpers.cameras import frontal_camera

SIZE, RAYS = 32, 16
CAMERA, SHAPE, MOTION, NECK = slice(0, 25), slice(25, 325), slice(325, 437), slice(425, 428)
STILL_MOTION = np.r_[325:425, 428:437]
SEEDS = range(4)


@lru_cache
def load(seed: int, still: bool = False, cross: bool = False) -> SubjectFrames:
    return RenderedSubjects(SIZE, RAYS, cross).load(seed, still)


def test_what_a_subject_is() -> None:
    for frames in map(load, SEEDS):
        for frame in frames[:3]:
            assert frame.image.shape == (3, SIZE, SIZE) and frame.image.dtype == np.uint8
            assert frame.mask.shape == (1, SIZE, SIZE) and frame.mask.min() == 0 and frame.mask.max() == 255
            assert np.array_equal(frame.label[SHAPE], frames.source.label[SHAPE])
        assert np.array_equal(frames.driving.motion, frames.target.motion)
        assert np.array_equal(frames.driving.label[MOTION], frames.target.label[MOTION])
        assert not np.array_equal(frames.source.motion, frames.target.motion)
    assert not np.array_equal(load(0).source.label[SHAPE], load(1).source.label[SHAPE])


def test_some_targets_are_seen_by_other_cameras() -> None:
    own = [np.array_equal(f.driving.label[CAMERA], f.target.label[CAMERA]) for f in map(load, SEEDS)]
    images = [np.array_equal(f.driving.image, f.target.image) for f in map(load, SEEDS)]
    assert own == images and len(set(own)) == 2


def test_a_seed_gives_the_same_subject_again() -> None:
    again = RenderedSubjects(SIZE, RAYS).load(0, still=False)
    for first, second in zip(load(0)[:3], again[:3], strict=True):
        assert all(np.array_equal(value, getattr(second, name)) for name, value in vars(first).items())
    assert np.array_equal(load(0).depth, again.depth)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        RenderedSubjects(SIZE).load(0, still=False)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_still_subjects_turn_the_head_and_nothing_else() -> None:
    for seed in SEEDS:
        frames = load(seed, still=True)
        assert np.array_equal(frames.source.motion, frames.target.motion)
        assert np.array_equal(frames.source.label[STILL_MOTION], frames.target.label[STILL_MOTION])
        assert not np.array_equal(frames.source.label[NECK], frames.target.label[NECK])


def test_another_driver_with_the_same_motion() -> None:
    alone, crossed = load(0), load(0, cross=True)
    assert np.array_equal(alone.target.image, crossed.target.image)
    assert not np.array_equal(crossed.driving.label[SHAPE], crossed.target.label[SHAPE])
    assert np.array_equal(crossed.driving.label[MOTION], crossed.target.label[MOTION])
    assert np.array_equal(crossed.driving.motion, crossed.target.motion)


def test_depth_is_how_far_the_head_is() -> None:
    head = open_head_model()
    for frames in map(load, SEEDS):
        upright, params = split_label(torch.from_numpy(frames.target.label)[None])
        camera = camera_for_posed_neck(head, params, upright)
        nose = head.landmarks(head(params))[0, 30]
        x, y = project_points(nose[None, None], camera)[0, 0].tolist()
        column, row = int(x * RAYS), int((1 - y) * RAYS)
        distance = (nose - camera[0, :16].view(4, 4)[:3, 3]).norm().item()
        assert frames.depth.shape == (1, RAYS, RAYS)
        assert frames.depth[0, row, column] == pytest.approx(distance, abs=0.08)
    assert RenderedSubjects(SIZE).load(0, still=False).depth is None


def test_a_free_camera_sees_the_upright_head_as_asked() -> None:
    shot = plan_shot(sample_appearance(3), sample_still_motion(1, 2))
    pose = sample_camera_poses(1, torch.Generator().manual_seed(0))[0]
    free, head = free_shot(shot, pose), open_head_model()
    assert torch.equal(free.label_camera[0, :16], pose.flatten())
    assert torch.equal(free.label_camera[0, 16:], shot.label_camera[0, 16:])
    eyeballs = head.region("eyeballs")
    turned = project_points(head(free.params)[:, eyeballs], free.render_camera)
    upright = project_points(head(free.params.without_neck_rotation())[:, eyeballs], free.label_camera)
    assert free.params.pose[:, :3].abs().max() > 0.05
    assert torch.allclose(turned, upright, atol=1e-5)


def test_distance_of_a_wall_across_the_view() -> None:
    # A plane at depth d: distance = d / cos, the ray's z in the camera being 1 / sqrt(1 + x^2 + y^2).
    camera, size = frontal_camera(), 32
    distance = distance_along_rays(torch.full((1, 1, size, size), 3.0), camera, size)
    focal = camera[0, 16].item()
    centres = (torch.arange(size) + 0.5) / size - 0.5
    expected = 3 * (1 + (centres[:, None] ** 2 + centres**2) / focal**2).sqrt()
    assert torch.allclose(distance[0, 0], expected, atol=1e-5)


def test_background_does_not_pull_the_distance() -> None:
    camera = join_camera(orbit_cam2world(torch.tensor(0.5), torch.tensor(0.2)), intrinsics_from_fov())[None]
    depth = torch.zeros(1, 1, 32, 32)
    depth[..., :15] = 4.0
    distance = distance_along_rays(depth, camera, 8)
    assert distance[..., :4].min() >= 4 and distance[..., :4].max() < 4.1
    assert torch.allclose(distance[..., 5:], camera_rays(camera, 8).centre_distance.expand(1, 1, 8, 3))
