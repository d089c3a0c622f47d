"""Heads of the open world from exact landmarks: pose, crop, identity of a clip."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.geometry.cameras import invert_rigid, split_camera
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.inference.open_head_fit import OPEN_WORLD, FramedHead, OpenHeadFitter, SquarePlace
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.figure import open_head_model
from portrait4d.synthetic_heads.motions import CAMERA_MEAN, Motion, sample_clip_motions, sample_still_motion
from portrait4d.synthetic_heads.portraits import plan_shot

SIDE = 512
EXACT = replace(OPEN_WORLD, landmark_pixels=1.0, contour_pixels=None)
"""Landmarks are not detected here, but projected."""


def landmarks(person: int, motion: Motion) -> tuple[Tensor, Tensor]:
    """Return the label (437,) and the 70 points of a picture of 512 pixels, y down."""
    shot = plan_shot(sample_appearance(person), motion)
    points = landmarks_2d(open_head_model(), shot.params, shot.render_camera, SIDE)[0]
    return torch.from_numpy(shot.label), torch.stack([points[:, 0], SIDE - points[:, 1]], dim=1)


def parts(labels: list[np.ndarray] | list[Tensor]) -> tuple[Tensor, Tensor, HeadParams]:
    """Return rotations and translations, world to camera, and parameters."""
    camera, params = split_label(torch.stack([torch.as_tensor(label) for label in labels]))
    world2camera = invert_rigid(split_camera(camera).cam2world)
    return world2camera[:, :3, :3], world2camera[:, :3, 3], params


def angles_deg(first: Tensor, second: Tensor) -> Tensor:
    """Return the angles between rotations."""
    trace = (first.mT @ second).diagonal(dim1=1, dim2=2).sum(1)
    return torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).arccos())


def test_pose_jaw_and_gaze_are_recovered() -> None:
    truths, found = [], []
    for number in range(6):
        label, points = landmarks(500 + number, sample_still_motion(8, number))
        truths.append(label)
        found.append(OpenHeadFitter(EXACT).fit(points[None])[0].label)
    (turned, _, wanted), (ours, _, params) = parts(truths), parts(found)
    assert angles_deg(turned, ours).max() < 1.0 and angles_deg(turned, torch.eye(3).expand(6, 3, 3)).max() > 10
    assert (params.pose[:, 3] - wanted.pose[:, 3]).abs().mean() < 0.04
    assert (params.eye_pose - wanted.eye_pose)[:, :2].abs().mean() < 0.05
    torch.testing.assert_close(axis_angle_to_matrix(params.pose[:, :3]), ours)  # the label holds it twice


def test_the_label_explains_the_points_in_its_crop() -> None:
    label, points = landmarks(510, sample_still_motion(8, 7))
    head = OpenHeadFitter(EXACT).fit(points[None])[0]
    camera, params = split_label(torch.from_numpy(head.label)[None])
    seen = landmarks_2d(open_head_model(), params.without_neck_rotation(), camera, SIDE)[0]
    inside = head.place.points_in(points) * SIDE
    assert (torch.stack([seen[:, 0], SIDE - seen[:, 1]], dim=1) - inside).norm(dim=1).mean() < 2.0


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.21, 40.0), (3.0, -300.0)])
def test_the_crop_frames_the_head_as_the_world_s_cameras_do(scale: float, shift: float) -> None:
    """Wherever the face is in a picture, and however large: the same crop, up to whole pixels, and the same label."""
    _, points = landmarks(511, sample_still_motion(8, 8))
    plain = OpenHeadFitter(EXACT).fit(points[None])[0]
    head = OpenHeadFitter(EXACT).fit(points[None] * scale + shift)[0]
    for name in ("left", "upper"):
        assert getattr(head.place, name) == pytest.approx(getattr(plain.place, name) * scale + shift, abs=2)
    assert head.place.side == pytest.approx(plain.place.side * scale, abs=2)
    (turned, translation, _), (again, moved, _) = parts([plain.label]), parts([head.label])
    usual = torch.from_numpy(CAMERA_MEAN).float()
    for gap in (translation - usual, moved - usual):
        assert gap[0, :2].abs().max() < 0.02 and gap[0, 2].abs() < 0.06
    assert angles_deg(turned, again).max() < 0.5


def test_the_identity_of_a_clip_settles() -> None:
    motions = sample_clip_motions(8, 3, 48)[::4]
    labels, points = zip(*(landmarks(512, motion) for motion in motions), strict=True)
    fitter = OpenHeadFitter(EXACT)
    heads: list[FramedHead] = []
    for first in range(0, 12, 4):
        heads += fitter.fit(torch.stack(points[first : first + 4]))
    (turned, _, _), (ours, _, params) = parts(list(labels)), parts([head.label for head in heads])
    assert angles_deg(turned, ours).max() < 1.0
    early, late = (params.shape[4:8].mean(0) - params.shape[0]).norm(), (params.shape[8] - params.shape[4]).norm()
    assert late < 0.5 and early < 3


def test_another_head_is_started_anew() -> None:
    fitter = OpenHeadFitter(EXACT)
    for person, number in ((513, 1), (514, 2)):
        label, points = landmarks(person, sample_still_motion(9, number))
        head = fitter.fit(points[None] + 700.0 * number)[0]
        (turned, _, _), (ours, _, _) = parts([label]), parts([head.label])
        assert angles_deg(turned, ours).max() < 1.0


def test_squares_and_points() -> None:
    place = SquarePlace(10, -20, 64)
    points = torch.tensor([[10.0, -20.0], [74.0, 44.0], [42.0, 12.0]])
    inside = place.points_in(points)
    torch.testing.assert_close(inside, torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]]))
    torch.testing.assert_close(place.points_out(inside), points)
    matrix = place.crop_to_image(32)  # pixel 0 covers pixels 10 and 11 of the picture
    assert (matrix @ [0, 0, 1]).tolist() == [10.5, -19.5] and (matrix @ [31, 31, 1]).tolist() == [72.5, 42.5]
