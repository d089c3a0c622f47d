"""Supervision by GenHead: repeatability, cameras, still subjects, plane samples, what the motion reader sees."""

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.data.parameter_bank import ParameterBank, SubjectViews
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world, project_points
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.lookat_cameras import CAMERA_DRAWS, random_camera_pose
from portrait4d.models.genhead import FACE_PLANES, GenHead
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.training.genhead_supervision import (
    CameraDraws,
    GenHeadSupervision,
    GenHeadSupervisionConfig,
    choose_samples,
    plan_views,
)
from portrait4d.training.supervision import SupervisedBatch, flame_motion
from tests.helpers.tiny_genhead import build_tiny_genhead

RAYS, SIZE, FEATURES = 16, 64, 8


def bank(head_rows: int = 5) -> ParameterBank:
    """Distinct cameras, shapes and motions, small enough for a head."""
    rng = np.random.default_rng(0)
    yaw = torch.linspace(-0.3, 0.3, head_rows)
    camera = join_camera(orbit_cam2world(yaw, 0 * yaw), intrinsics_from_fov().expand(head_rows, 3, 3)).numpy()
    shapes = np.concatenate([camera, 0.3 * rng.normal(size=(head_rows, 300))], axis=1)
    still, video = (0.05 * rng.normal(size=size) for size in ((4, 112), (3, 6, 112)))
    return ParameterBank.from_arrays([shapes], still, video)


@pytest.fixture(scope="module")
def genhead(ellipsoid: HeadModel) -> GenHead:
    return build_tiny_genhead(ellipsoid)


def supervise(genhead: GenHead, **changes: object) -> GenHeadSupervision:
    return GenHeadSupervision(genhead, bank(), flame_motion, GenHeadSupervisionConfig(resolution=RAYS, **changes))


def sample(genhead: GenHead, subjects: int = 2, **changes: object) -> SupervisedBatch:
    return supervise(genhead, **changes).sample(subjects, torch.Generator().manual_seed(3))


def test_shapes_and_no_gradient(genhead: GenHead) -> None:
    batch = sample(genhead)
    for image in (batch.source_image, batch.driving_image, batch.target_image, batch.target_correspondence):
        assert image.shape == (2, 3, SIZE, SIZE) and not image.requires_grad
    assert batch.target_mask.shape == batch.depth.shape == (2, 1, RAYS, RAYS)
    assert batch.features.shape == batch.background.shape == (2, FEATURES, RAYS, RAYS)
    assert batch.camera.shape == batch.camera_upright.shape == (2, 25)
    assert batch.source_motion.shape == batch.driving_motion.shape == (2, 109)
    assert batch.target_mask.min() >= -1 and batch.target_mask.max() <= 1
    assert not genhead.training and not any(p.requires_grad for p in genhead.parameters())


def test_chunks_do_not_change_what_is_made(genhead: GenHead) -> None:
    whole, apart = (sample(genhead, 3, chunk=chunk) for chunk in (3, 1))
    for name in ("source_image", "target_image", "target_mask", "depth", "camera", "driving_motion"):
        assert torch.allclose(getattr(whole, name), getattr(apart, name), atol=1e-4), name
    assert torch.allclose(whole.plane_samples.points_world, apart.plane_samples.points_world, atol=1e-5)


def test_the_generator_decides(genhead: GenHead) -> None:
    first, again = sample(genhead), sample(genhead)
    assert torch.equal(first.target_image, again.target_image)
    other = supervise(genhead).sample(2, torch.Generator().manual_seed(4))
    assert not torch.allclose(first.target_image, other.target_image, atol=1e-2)


def test_target_has_the_drivers_motion_on_the_sources_identity(genhead: GenHead) -> None:
    batch = sample(genhead)
    assert torch.equal(batch.driving_motion, batch.params.flame_motion())
    assert not torch.allclose(batch.source_motion, batch.driving_motion)
    assert not batch.is_still.any() and not batch.params.pose[:, :3].any()
    assert torch.allclose(batch.camera, batch.camera_upright, atol=1e-5)


def test_still_subjects_show_one_motion(genhead: GenHead) -> None:
    half = sample(genhead, 4, half_static=True)
    same = (half.source_motion == half.driving_motion).all(dim=1)
    assert half.is_still.tolist() == same.tolist() == [False, False, True, True]
    static = sample(genhead, 1, static=True)
    assert static.is_still.all() and torch.equal(static.source_motion, static.driving_motion)
    assert sample(genhead, 3, half_static=True).is_still.tolist() == [False, False, True]


def test_plane_samples_are_the_face_planes_at_deformed_points(
    genhead: GenHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    generate = genhead.generate_planes
    monkeypatch.setattr(genhead, "generate_planes", lambda *args: made.append(generate(*args)) or made[-1])
    batch = sample(genhead)
    samples, planes = batch.plane_samples, made[0][2::3, FACE_PLANES:]
    count = samples.points_world.shape[1]
    assert samples.features.shape == (2, count, FEATURES) and 0 < count <= 4000
    face = genhead.part_field(batch.params)(samples.points_world).face
    expected = TriPlanes(planes, genhead.config.volume.box_warp).sample(face)
    assert torch.allclose(samples.features, expected, atol=1e-5)
    place = project_points(samples.points_world, batch.camera)
    assert place.min() > 0 and place.max() < 1


def test_the_motion_reader_sees_every_picture_with_its_landmarks(genhead: GenHead) -> None:
    seen = []

    def motion(images: Tensor, landmarks_pixels: Tensor, params: HeadParams) -> Tensor:
        seen.append((images, landmarks_pixels, params))
        return torch.arange(6.0)[:, None]

    supervision = GenHeadSupervision(genhead, bank(), motion, GenHeadSupervisionConfig(resolution=RAYS))
    batch = supervision.sample(2, torch.Generator().manual_seed(0))
    ((images, landmarks, params),) = seen
    assert torch.equal(images[2::3], batch.target_image)
    assert torch.equal(batch.source_motion[:, 0], torch.tensor([0.0, 3.0]))
    assert torch.equal(batch.driving_motion[:, 0], torch.tensor([1.0, 4.0]))
    expected = landmarks_2d(genhead.head, params, batch.camera_upright.repeat_interleave(3, dim=0), SIZE)
    assert torch.equal(landmarks[2::3], expected[2::3])


def test_too_many_rays_are_refused(genhead: GenHead) -> None:
    with pytest.raises(ValueError, match="resolution: expected 1 to 63 rays a side, got 64"):
        GenHeadSupervision(genhead, bank(), flame_motion, GenHeadSupervisionConfig(resolution=64))


def test_cameras_below_one_half_are_random_and_the_first_conditions(ellipsoid: HeadModel) -> None:
    drawn = bank().sample_views(2, torch.Generator().manual_seed(0))
    poses = torch.rand(6, CAMERA_DRAWS, generator=torch.Generator().manual_seed(1))
    coins = torch.tensor([0.0, 0.49, 0.5, 0.99, 0.1, 0.7])
    planned = plan_views(ellipsoid, drawn, CameraDraws(poses, coins))
    own, random = drawn.camera.flatten(0, 1), random_camera_pose(poses).flatten(1)
    for number, coin in enumerate(coins.tolist()):
        expected = random[number] if coin < 0.5 else own[number, :16]
        assert torch.equal(planned.camera_upright[number, :16], expected), number
    assert torch.equal(planned.camera_upright[:, 16:], own[:, 16:])
    assert torch.equal(planned.condition_camera, own[[0, 0, 0, 3, 3, 3]])


def test_a_posed_neck_moves_the_camera(ellipsoid: HeadModel) -> None:
    drawn = bank().sample_views(1, torch.Generator().manual_seed(0))
    pose = drawn.pose.clone()
    pose[..., 1] = 0.4
    turned = SubjectViews(drawn.camera, drawn.shape, drawn.expression, pose, drawn.eye_pose)
    planned = plan_views(ellipsoid, turned, CameraDraws(torch.zeros(3, CAMERA_DRAWS), torch.ones(3)))
    assert not torch.allclose(planned.camera, planned.camera_upright, atol=0.1)


def test_chosen_samples_follow_the_permutation() -> None:
    usable = torch.tensor([False, True, True, False, True, True])
    permutation = torch.tensor([3, 0, 2, 1])
    assert choose_samples(usable, permutation, 3).tolist() == [5, 1, 4]
    assert choose_samples(usable, permutation).tolist() == [5, 1, 4, 2]
    with pytest.raises(ValueError, match="permutation: expected one of 4 usable samples, got one of 3"):
        choose_samples(usable, permutation[:3])


def test_genhead_may_be_told_a_frontal_camera(genhead: GenHead) -> None:
    own, frontal = sample(genhead), sample(genhead, frontal_probability=1.0)
    assert torch.equal(own.camera, frontal.camera)  # only what the mapping network hears changes
    assert not torch.allclose(own.target_image, frontal.target_image, atol=1e-4)
