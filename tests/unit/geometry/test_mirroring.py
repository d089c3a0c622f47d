"""Mirroring, geometrically: projecting the mirrored label gives the flipped picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from portrait4d.geometry.cameras import (
    CAMERA_DIM,
    intrinsics_from_fov,
    join_camera,
    look_at_cam2world,
    project_points,
    split_camera,
)
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams, join_label, split_label
from portrait4d.geometry.mirroring import (
    LANDMARK_SWAPS,
    HeadMirror,
    mirror_axis_angle,
    mirror_camera,
    mirror_image,
    mirror_landmarks,
    mirror_partners,
    mirror_points,
)
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.rendering.mesh_maps import landmarks_2d, render_correspondence
from portrait4d.synthetic_heads.ellipsoid_head import build_ellipsoid_head


@pytest.fixture(scope="module")
def lopsided() -> HeadModel:
    """The ellipsoid head with odd and paired directions: sheared skull, left and right cheek, left and right brow."""
    assets = build_ellipsoid_head()
    directions = assets.blend_directions.copy()
    x, y, z = assets.template.T
    directions[:, 0, 10] = 0.1 * y  # odd: the mirrored direction is the negative one
    bump = np.exp(-(((y + 0.02) / 0.03) ** 2)) * (z > 0.02) * 0.004
    directions[:, 2, 11], directions[:, 2, 12] = bump * (x > 0.01), bump * (x < -0.01)  # a mirrored pair
    brow = np.exp(-(((y - 0.045) / 0.02) ** 2)) * (z > 0.02) * 0.004
    directions[:, 1, SHAPE_DIM + 10], directions[:, 1, SHAPE_DIM + 11] = brow * (x > 0.01), brow * (x < -0.01)
    return HeadModel.from_assets(replace(assets, blend_directions=directions))


@pytest.fixture(scope="module")
def label() -> torch.Tensor:
    """Three lopsided frames seen by turned, rolled and shifted cameras."""
    rng = torch.Generator().manual_seed(3)
    shape, expression = torch.zeros(3, SHAPE_DIM), torch.zeros(3, EXPRESSION_DIM)
    shape[:, :20] = torch.randn(3, 20, generator=rng)
    expression[:, :20] = torch.randn(3, 20, generator=rng)
    pose, eyes = 0.2 * torch.randn(3, 6, generator=rng), 0.3 * torch.randn(3, 6, generator=rng)
    position = torch.tensor([[1.2, 0.4, 4.0], [-0.8, -0.5, 4.1], [0.1, 0.9, 3.9]])
    cam2world = look_at_cam2world(position, 0.05 * torch.randn(3, 3, generator=rng), torch.tensor([0.3, -0.2, 0.1]))
    intrinsics = intrinsics_from_fov().repeat(3, 1, 1)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 0, 1] = 0.46, 0.52, 0.03
    return join_label(join_camera(cam2world, intrinsics), HeadParams(shape, expression, pose, eyes))


def test_the_mirrored_label_projects_to_the_flipped_picture(lopsided: HeadModel, label: torch.Tensor) -> None:
    mirror = HeadMirror.fit(lopsided)
    assert mirror.residual < 1e-6
    camera, params = split_label(label)
    mirrored_camera, mirrored_params = split_label(mirror.label(label))
    partner = mirror_partners(lopsided.template)
    points = project_points(lopsided(params), camera)
    mirrored = project_points(lopsided(mirrored_params), mirrored_camera)
    expected = torch.stack([1 - points[:, partner, 0], points[:, partner, 1]], dim=-1)
    assert (mirrored - expected).abs().max() < 1e-5
    assert (mirrored - points).abs().max() > 0.05, "the frames are not lopsided enough to prove anything"


def test_what_each_coefficient_becomes(lopsided: HeadModel) -> None:
    mirror = HeadMirror.fit(lopsided)
    shape, expression = torch.zeros(1, SHAPE_DIM), torch.zeros(1, EXPRESSION_DIM)
    shape[0, [0, 10, 11]] = torch.tensor([1.0, 2.0, 3.0])
    expression[0, 10] = 4.0
    got = mirror.params(HeadParams(shape, expression, torch.zeros(1, 6), torch.tensor([[1.0, 2, 3, 4, 5, 6]])))
    wanted = torch.zeros(1, SHAPE_DIM)
    wanted[0, [0, 10, 12]] = torch.tensor([1.0, -2.0, 3.0])
    torch.testing.assert_close(got.shape, wanted, atol=1e-4, rtol=0)
    wanted = torch.zeros(1, EXPRESSION_DIM)
    wanted[0, 11] = 4.0
    torch.testing.assert_close(got.expression, wanted, atol=1e-4, rtol=0)
    assert got.eye_pose.tolist() == [[4, -5, -6, 1, -2, -3]]


def test_symmetric_heads_keep_their_coefficients(ellipsoid: HeadModel, label: torch.Tensor) -> None:
    fitted, unchanged = HeadMirror.fit(ellipsoid).label(label), HeadMirror.unchanged().label(label)
    moving = [*range(25, 30), *range(325, 329)]  # the others move nothing on this head
    torch.testing.assert_close(fitted[:, moving], label[:, moving], atol=1e-4, rtol=0)
    assert torch.equal(unchanged[:, 25:425], label[:, 25:425])
    assert torch.equal(fitted[:, :25], unchanged[:, :25]) and torch.equal(fitted[:, 425:], unchanged[:, 425:])
    torch.testing.assert_close(HeadMirror.unchanged().label(unchanged), label)  # mirroring twice changes nothing


def test_an_asymmetric_template_leaves_a_residual_and_an_offset(ellipsoid: HeadModel) -> None:
    assets = build_ellipsoid_head()
    template = assets.template.copy()
    template[:, 0] += 0.01 * template[:, 1]
    leaning = HeadModel.from_assets(replace(assets, template=template))
    assert HeadMirror.fit(leaning).residual > 1e-4
    directions = assets.blend_directions.copy()
    directions[:, 0, 10] = 0.1 * template[:, 1]
    able = HeadModel.from_assets(replace(assets, template=template, blend_directions=directions))
    mirror = HeadMirror.fit(able)
    assert mirror.shape_offset[10] == pytest.approx(-0.2, abs=0.03), "it leans the other way by 2 x 0.01 / 0.1"


def test_rendered_maps_are_flipped(ellipsoid: HeadModel, label: torch.Tensor) -> None:
    centred = label.clone()
    centred[:, :25] = join_camera(split_camera(label[:, :25]).cam2world, intrinsics_from_fov().repeat(3, 1, 1))
    camera, params = split_label(centred)
    mirrored_camera, mirrored_params = split_label(HeadMirror.fit(ellipsoid).label(centred))
    seen = render_correspondence(ellipsoid, params, camera, 64).image
    mirrored = render_correspondence(ellipsoid, mirrored_params, mirrored_camera, 64).image
    expected = mirror_image(seen) * torch.tensor([-1.0, 1, 1]).view(1, 3, 1, 1)
    wrong = ((mirrored - expected).abs() > 0.02).any(dim=1).float().mean()
    assert (seen != 0).any(dim=1).float().mean() > 0.1
    assert wrong < 0.01
    assert ((mirrored - seen).abs() > 0.02).any(dim=1).float().mean() > 0.1


def test_projected_landmarks_change_places(ellipsoid: HeadModel, label: torch.Tensor) -> None:
    camera, params = split_label(label)
    mirrored_camera, mirrored_params = split_label(HeadMirror.fit(ellipsoid).label(label))
    points = landmarks_2d(ellipsoid, params, camera, 100)
    mirrored = landmarks_2d(ellipsoid, mirrored_params, mirrored_camera, 100)
    # landmarks lie on triangles whose diagonals are not mirrored: up to a pixel of 100
    assert (mirrored - mirror_landmarks(points, 100)).abs().max() < 1.0


def test_cameras_mirror_the_world() -> None:
    camera = torch.randn(4, CAMERA_DIM, generator=torch.Generator().manual_seed(0))
    camera[:, :16] = look_at_cam2world(torch.randn(4, 3) + torch.tensor([0, 0, 5.0]), torch.zeros(4, 3)).flatten(1)
    camera[:, 22:] = torch.tensor([0.0, 0, 1])
    points = 0.3 * torch.randn(4, 50, 3, generator=torch.Generator().manual_seed(1))
    seen = project_points(points, camera)
    mirrored = project_points(mirror_points(points), mirror_camera(camera))
    torch.testing.assert_close(mirrored, torch.stack([1 - seen[..., 0], seen[..., 1]], -1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mirror_camera(mirror_camera(camera)), camera)


def test_rotations_are_conjugated() -> None:
    vector = torch.randn(20, 3, generator=torch.Generator().manual_seed(2))
    flip = torch.diag(torch.tensor([-1.0, 1, 1]))
    expected = flip @ axis_angle_to_matrix(vector) @ flip
    torch.testing.assert_close(axis_angle_to_matrix(mirror_axis_angle(vector)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [68, 70, 98])
def test_swaps_are_pairings_and_images_of_a_symmetric_face(count: int) -> None:
    swap = LANDMARK_SWAPS[count]
    assert sorted(swap) == list(range(count))
    assert all(swap[swap[k]] == k for k in range(count))
    fixed = {68: 8, 70: 8, 98: 10 - 1}[count]  # chin, nose bridge and tip, lip centres
    middle = [k for k in range(count) if swap[k] == k]
    assert len(middle) == {68: 10, 70: 10, 98: 10}[count] or len(middle) == fixed
    points = torch.rand(2, count, 3)
    mirrored = mirror_landmarks(points, 63.0)
    assert torch.equal(mirrored[:, 0, 0], 63.0 - points[:, swap[0], 0])
    assert torch.equal(mirrored[..., 1:], points[:, list(swap), 1:])
    torch.testing.assert_close(mirror_landmarks(mirrored, 63.0), points)


def test_landmark_layouts_of_real_and_open_faces(ellipsoid: HeadModel) -> None:
    assets = build_ellipsoid_head()
    corners = assets.template[assets.faces[assets.landmark_faces]]
    points = torch.from_numpy((corners * assets.landmark_barycentrics[..., None]).sum(1))
    assert (mirror_landmarks(points[None], 0.0)[0] - points).abs().max() < 0.004, "metres on a symmetric face"


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"points: expected shape \(\.\.\., 68, 70 or 98, 2 or 3\), got \(5, 2\)"):
        mirror_landmarks(torch.zeros(5, 2), 1.0)
    with pytest.raises(ValueError, match="camera: expected last axis 25"):
        mirror_camera(torch.zeros(24))
    with pytest.raises(ValueError, match="label: expected shape"):
        HeadMirror.unchanged().label(torch.zeros(2, 400))
