"""Mesh maps on the stand-in head: recorded numbers, closed forms of the pinhole, and definitions of the masks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, project_points, split_camera
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.meshes import face_corners, face_normals
from portrait4d.rendering.mesh_maps import (
    EYEBALL_SHIFT,
    landmarks_2d,
    pose_vertices,
    render_coarse_correspondence,
    render_correspondence,
    render_features,
    render_normals,
    render_part_masks,
    render_region_mask,
)
from tests.golden.comparison import everywhere, nearly_all_pixels
from tests.golden.kind_reconstructor import MESH_MAPS, SUBSAMPLING, case_params, compute_mesh_maps, standin_head
from tests.helpers.cameras import frontal_camera, tilted_camera

GOLDEN = Path(__file__).parents[2] / "golden"
SIZE = 96


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return standin_head()


@pytest.fixture(scope="module")
def posed(head: HeadModel) -> Tensor:
    """A head with open mouth, turned neck and turned eyes."""
    return pose_vertices(head, case_params("a"))


def pixel_centres(size: int) -> Tensor:
    """Return (size, size, 2) centres as fractions of the picture, x right, y up."""
    centre = (torch.arange(size) + 0.5) / size
    up, right = torch.meshgrid(1 - centre, centre, indexing="ij")
    return torch.stack([right, up], dim=-1)


@pytest.mark.parametrize("case", ["a", "n"])
def test_recorded_maps(head: HeadModel, case: str) -> None:
    golden = np.load(GOLDEN / f"reconstructor-{case}.npz")
    ours = compute_mesh_maps(head, case_params(case), torch.from_numpy(golden["camera"])[None])
    for array in MESH_MAPS:
        value = ours[array].numpy()[SUBSAMPLING.get(array, np.s_[:])]
        assert value.shape == golden[array].shape
        assert nearly_all_pixels()(np.abs(value - golden[array]) / np.abs(golden[array]).max()), array
    assert everywhere(1e-3)(np.abs(ours["landmarks"].numpy() - golden["landmarks"]))


def test_correspondence_names_the_point_a_pixel_shows(head: HeadModel) -> None:
    """On the canonical head itself, 0.6 times the picture is the world point: it projects to its own pixel centre."""
    vertices = head.canonical_vertices[None]
    for camera in (frontal_camera(), tilted_camera()):
        plain = render_correspondence(head, vertices, camera, SIZE, eyeball_shift=0.0)
        mask = plain.mask[0, 0].bool()
        points = (0.6 * plain.image[0].permute(1, 2, 0))[mask]
        assert len(points) > 500
        torch.testing.assert_close(
            project_points(points[None], camera)[0], pixel_centres(SIZE)[mask], atol=1e-5, rtol=0
        )
        position = split_camera(camera).cam2world[0]
        depth = (points - position[:3, 3]) @ -position[:3, 2]
        torch.testing.assert_close(plain.depth[0, 0][mask], depth, atol=1e-5, rtol=0)
        assert not plain.image[0, :, ~mask].any()
        assert not plain.depth[0, 0, ~mask].any()


def test_eyeballs_are_shifted_in_z_only(head: HeadModel, posed: Tensor) -> None:
    shifted = render_correspondence(head, posed, frontal_camera(), SIZE)
    plain = render_correspondence(head, posed, frontal_camera(), SIZE, eyeball_shift=0.0)
    difference = plain.image - shifted.image
    assert not difference[:, :2].any()
    eyeballs = (difference[:, 2:] / EYEBALL_SHIFT).round()
    torch.testing.assert_close(difference[:, 2:], EYEBALL_SHIFT * eyeballs, atol=1e-6, rtol=0)
    # Visible eyeballs: at least what no face triangle is behind or in front of, at most what eyeballs alone cover.
    assert (eyeballs >= render_part_masks(head, posed, frontal_camera(), SIZE).eye).all()
    assert (eyeballs <= render_region_mask(head, posed, frontal_camera(), SIZE, "eyes")).all()
    assert eyeballs.sum() > 10


def test_part_masks_follow_their_definition(head: HeadModel, posed: Tensor) -> None:
    camera = frontal_camera()
    masks = render_part_masks(head, posed, camera, SIZE)
    eyes, face, outer = (
        render_region_mask(head, posed, camera, SIZE, name) for name in ("eyes", "face_without_eyes", "outer_mouth")
    )
    silhouette = render_coarse_correspondence(head, posed, camera, SIZE, cull_backfaces=False).mask
    assert torch.equal(masks.head, silhouette)
    for part, within, apart in ((masks.eye, eyes, face), (masks.mouth, masks.head, outer)):
        assert part.shape == (1, 1, SIZE, SIZE)
        assert torch.equal(part, within.bool().logical_and(~apart.bool()).float())
        assert 0 < part.sum() < within.sum()
    assert not (masks.eye * masks.mouth).any()


def test_both_sides_cover_more_than_front_faces(head: HeadModel, posed: Tensor) -> None:
    front = render_region_mask(head, posed, tilted_camera(), SIZE, "face_without_eyes")
    both = render_region_mask(head, posed, tilted_camera(), SIZE, "face_without_eyes", cull_backfaces=False)
    assert (both >= front).all()
    coarse_front = render_coarse_correspondence(head, posed, tilted_camera(), SIZE)
    assert coarse_front.image.shape == (1, 3, SIZE, SIZE)
    assert coarse_front.mask.sum() <= render_part_masks(head, posed, tilted_camera(), SIZE).head.sum()


def test_the_pixel_of_a_landmark_shows_its_depth(head: HeadModel, posed: Tensor) -> None:
    """A landmark lies within 0.71 pixels of its pixel's centre; turned by less than 45 degrees, that is as much depth.

    Landmarks under the stand-in's bulging eyeballs are left out.
    """
    size, camera = 256, frontal_camera()
    camera[:, 7] = 0.3  # raised, so that the picture holds the whole head
    depth = render_features(head, posed, camera, size, posed).depth[0, 0]
    normals = face_normals(face_corners(posed, head.faces[head.landmark_faces]))[0]
    front = normals[:, 2] > 0.7
    x, y = landmarks_2d(head, posed, camera, size)[0][front].T
    expected = (split_camera(camera).cam2world[0, :3, 3] - head.landmarks(posed)[0])[front, 2]
    row, column = (size - y).floor().long(), x.floor().long()
    skin = render_region_mask(head, posed, camera, size, "eyes")[0, 0, row, column] == 0
    pixel = 2 * 4.2 * np.tan(np.radians(6)) / size
    assert skin.sum() > 20
    assert (depth[row, column] - expected)[skin].abs().max() < pixel


def test_only_landmarks_take_notice_of_intrinsics(head: HeadModel, posed: Tensor) -> None:
    camera = frontal_camera()
    zoomed = join_camera(split_camera(camera).cam2world, intrinsics_from_fov(24.0)[None])
    ratio = zoomed[0, 16] / camera[0, 16]
    plain, other = (landmarks_2d(head, posed, c, SIZE) - SIZE / 2 for c in (camera, zoomed))
    torch.testing.assert_close(other, plain * ratio, atol=1e-3, rtol=0)
    assert torch.equal(
        render_correspondence(head, posed, camera, SIZE).mask, render_correspondence(head, posed, zoomed, SIZE).mask
    )
    wide = render_correspondence(head, posed, camera, SIZE, fov_deg=24.0)
    assert wide.mask.sum() < 0.3 * render_correspondence(head, posed, camera, SIZE).mask.sum()
    raised = landmarks_2d(head, posed + torch.tensor([0, 0.1, 0]), camera, SIZE)
    assert (raised[..., 1] > landmarks_2d(head, posed, camera, SIZE)[..., 1]).all()


def test_lids_may_follow_another_expression(head: HeadModel) -> None:
    params = case_params("n")
    blink = torch.linspace(-1, 1, 100)[None]
    vertices = pose_vertices(head, params, eyelid_expression=blink)
    is_lid = torch.zeros(5023, dtype=torch.bool).index_fill(0, head.region("eyelids"), True)
    blinking = head(HeadParams(params.shape, blink, params.pose, params.eye_pose))
    assert torch.equal(vertices[:, is_lid], blinking[:, is_lid])
    assert torch.equal(vertices[:, ~is_lid], head(params)[:, ~is_lid])
    assert not torch.equal(vertices, head(params))
    assert torch.equal(pose_vertices(head, params), head(params))


def test_parameters_and_batches_give_the_same_maps(head: HeadModel, posed: Tensor) -> None:
    params, camera = case_params("a"), torch.cat([frontal_camera(), tilted_camera()])
    both = render_correspondence(head, posed.expand(2, -1, -1), camera, 33)
    for number in range(2):
        alone = render_correspondence(head, params, camera[number : number + 1], 33)
        for ours, single in zip(both, alone, strict=True):
            torch.testing.assert_close(ours[number], single[0], atol=1e-5, rtol=0)
    masks = render_part_masks(head, params, frontal_camera(), 33)
    for ours, expected in zip(masks, render_part_masks(head, posed, frontal_camera(), 33), strict=True):
        assert torch.equal(ours, expected)
    torch.testing.assert_close(landmarks_2d(head, params, camera[:1], 9), landmarks_2d(head, posed, camera[:1], 9))


def test_autocast_does_not_touch_geometry(head: HeadModel) -> None:
    params, camera = case_params("a"), frontal_camera()
    expected = render_correspondence(head, params, camera, 33), landmarks_2d(head, params, camera, 33)
    with torch.autocast("cpu", torch.bfloat16):
        ours = render_correspondence(head, params, camera, 33), landmarks_2d(head, params, camera, 33)
    assert torch.equal(ours[0].image, expected[0].image)
    assert torch.equal(ours[1], expected[1])


def test_gradients_reach_features_and_landmarks(head: HeadModel, posed: Tensor) -> None:
    features = torch.zeros(1, 5023, 2, requires_grad=True)
    shown = render_features(head, posed, frontal_camera(), 48, features)
    shown.image.sum().backward()
    # Barycentrics of a pixel add up to 1, so all gradients of a channel add up to the number of covered pixels.
    torch.testing.assert_close(features.grad.sum((0, 1)), shown.mask.sum().expand(2), rtol=1e-4, atol=0)
    vertices = posed.clone().requires_grad_()
    landmarks_2d(head, vertices, frontal_camera(), 48).sum().backward()
    assert vertices.grad.abs().sum() > 0
    assert not render_correspondence(head, vertices, frontal_camera(), 8).image.requires_grad


def test_normals_face_the_camera_and_have_unit_length(head: HeadModel) -> None:
    vertices = head.canonical_vertices[None]
    image, mask, _ = render_normals(head, vertices, frontal_camera(), SIZE)
    normals = image[0, :, mask[0, 0].bool()]
    assert normals.norm(dim=0).median() == pytest.approx(1, abs=0.01)
    assert normals.abs().max() <= 1 + 1e-5
    assert (normals[2] > 0).float().mean() > 0.98
    left, right = image[0, 0, :, : SIZE // 3], image[0, 0, :, -SIZE // 3 :]
    assert left.sum() < -10
    assert right.sum() > 10


def test_features_must_fit_the_mesh(head: HeadModel, posed: Tensor) -> None:
    with pytest.raises(ValueError, match=r"features: expected shape \(B, 5023, C\), got \(1, 7, 3\)"):
        render_features(head, posed, frontal_camera(), 8, torch.zeros(1, 7, 3))
