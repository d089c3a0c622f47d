"""The open head model: mesh, mechanics, landmarks, regions, files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.config.networks import HeadPoseConfig
from portrait4d.geometry.deformation import build_head_pose_field, surface_offsets
from portrait4d.geometry.face_alignment import LANDMARKS_98_TO_70
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.flame_assets import load_flame_assets
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.meshes import face_corners
from portrait4d.geometry.open_head import digest_assets
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.synthetic_heads.head_expressions import FULL_EXPRESSION
from portrait4d.synthetic_heads.head_files import save_head_folder
from portrait4d.synthetic_heads.head_mechanics import RIGID_ABOVE
from portrait4d.synthetic_heads.head_template import (
    NAME,
    VERSION,
    HeadAssets,
    build_open_head,
    compute_open_head,
    open_head_assets,
    open_head_extras,
)

HEAD = 3931
MM = 3e-3  # world units of a millimetre


@pytest.fixture(scope="module")
def assets() -> HeadAssets:
    return open_head_assets()


@pytest.fixture(scope="module")
def head(assets: HeadAssets) -> HeadModel:
    return HeadModel.from_assets(assets, VERSION)


def frame(pose: list[float] | None = None, **expression: float) -> HeadParams:
    coefficients = torch.zeros(1, 100)
    for name, share in expression.items():
        coefficients[0, open_head_extras().expression_slot(name)] = share * FULL_EXPRESSION
    return HeadParams(torch.zeros(1, 300), coefficients, torch.tensor([pose or [0.0] * 6]), torch.zeros(1, 6))


def test_same_bits_with_and_without_the_cache_and_by_name(assets: HeadAssets) -> None:
    computed, extras = compute_open_head()
    assert digest_assets(computed) == digest_assets(assets) == digest_assets(build_open_head(NAME, VERSION))
    assert extras.expression_names == open_head_extras().expression_names
    assert len(build_open_head("ellipsoid", 1).template) < 1000
    with pytest.raises(ValueError, match="expected open-head version 1 or ellipsoid, got egg 1"):
        build_open_head("egg", 1)
    with pytest.raises(ValueError, match="slot: expected one of smile, .*, got grin"):
        extras.expression_slot("grin")


def test_mesh_is_flames_size_closed_but_for_the_neck_and_symmetric(assets: HeadAssets) -> None:
    assert assets.template.shape == (5023, 3) and assets.faces.shape == (7830 + 2 * 1088, 3)
    edges = assets.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    assert len(np.unique(edges, axis=0)) == len(edges)  # consistently wound
    sides, uses = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    border = sides[uses == 1]
    assert len(border) == 30 and set(uses) == {1, 2}
    assert assets.template[border.ravel(), 1].max() < -0.18
    corners = assets.template[assets.faces].astype(np.float64)
    assert (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() > 0
    mirror = open_head_extras().mirror[:HEAD]
    np.testing.assert_allclose(assets.template[:HEAD][mirror] * [-1, 1, 1], assets.template[:HEAD], atol=1e-6)


def test_unused_slots_are_zero_and_used_ones_move_a_few_millimetres(assets: HeadAssets) -> None:
    extras = open_head_extras()
    size = np.abs(assets.blend_directions).max(axis=(0, 1))
    shapes, expressions = len(extras.shape_names), len(extras.expression_names)
    used = np.r_[np.arange(shapes), 300 + np.arange(expressions)]
    assert (np.delete(size, used) == 0).all()
    assert size[used].min() > 3e-4 and size[used].max() < 9e-3
    assert np.abs(assets.blend_directions[HEAD:, :, 300:]).max() == 0  # no expression moves an eyeball


def test_zero_neck_pose_is_the_identity_deformation(head: HeadModel) -> None:
    params = frame([0, 0, 0, 0.2, 0, 0], smile=1.0)
    assert build_head_pose_field(head, params, 1.3, HeadPoseConfig()) is None
    upright = params.without_neck_rotation()
    assert torch.equal(head(params), head(upright))


def test_head_turns_rigidly_and_the_deformation_turns_it_back(head: HeadModel, assets: HeadAssets) -> None:
    turned, upright = frame([0.2, -0.4, 0.1, 0.15, 0, 0], smile=0.7), frame([0, 0, 0, 0.15, 0, 0], smile=0.7)
    joint = head.rest(turned.shape, turned.expression).joints[0, 1]
    rotation = axis_angle_to_matrix(turned.pose[:, :3])[0]
    above = torch.from_numpy(assets.template[:, 1] > RIGID_ABOVE * 1e-3)
    posed, still = head(turned), head(upright)
    expected = (still[0, above] - joint) @ rotation.T + joint
    torch.testing.assert_close(posed[0, above], expected, atol=2e-6, rtol=0)
    faces = head.faces[above[head.faces].all(1)]
    triangles = face_corners(posed, faces), face_corners(still, faces)
    points = triangles[0][:, ::37].mean(2) * 1.01
    offsets, _ = surface_offsets(points, *triangles)
    carried = (points[0] - joint) @ rotation + joint
    # 0.01 mm: float32 barycentrics of thin triangles, a third of a per mille of the turn's longest way
    torch.testing.assert_close(points[0] + offsets[0], carried, atol=0.01 * MM, rtol=0)


def test_blink_closes_the_lids_in_front_of_the_eyeball(head: HeadModel) -> None:
    extras = open_head_extras()
    for side, lids in (("left", extras.left_eyelid), ("right", extras.right_eyelid)):
        upper, lower = lids[[1, 2, 3]], lids[[7, 6, 5]]
        centre = head(frame())[0, 3931 if side == "left" else 4477 :][:546]
        middle = (centre.amax(0) + centre.amin(0)) / 2
        gaps = []
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            vertices = head(frame(**{f"blink_{side}": share}))[0]
            gaps.append(float((vertices[upper, 1] - vertices[lower, 1]).mean()) / MM)
            distance = (vertices[np.concatenate([upper, lower])] - middle).norm(dim=1).min() / MM
            assert distance > 12.3
        assert gaps[0] > 6.5 and gaps[-1] < 1.0
        assert all(a > b for a, b in zip(gaps, gaps[1:], strict=False))


def test_jaw_opens_the_mouth_and_leaves_the_skull(head: HeadModel, assets: HeadAssets) -> None:
    closed, opened = head(frame()), head(frame([0, 0, 0, 0.3, 0, 0]))
    inner = slice(88, 96)
    points = [_landmarks98(head, vertices)[inner] for vertices in (closed, opened)]
    gaps = [float((p[2, 1] - p[6, 1]) / MM) for p in points]
    assert gaps[0] < 1 and gaps[1] > 15
    still = torch.from_numpy((assets.template[:, 1] > 0) & (np.arange(5023) < HEAD))
    torch.testing.assert_close(closed[0, still], opened[0, still], atol=1e-6, rtol=0)


def test_gaze_turns_eyeballs_and_the_upper_lids_follow(head: HeadModel) -> None:
    down = frame()
    down = HeadParams(down.shape, down.expression, down.pose, torch.tensor([[0.3, 0, 0, 0.3, 0, 0]]))
    before, after = head(frame())[0], head(down)[0]
    assert after[3931, 1] < before[3931, 1] - 3 * MM  # the pupil
    lids = open_head_extras().left_eyelid
    assert after[lids[2], 1] < before[lids[2], 1] - 1.5 * MM
    torch.testing.assert_close(after[lids[6]], before[lids[6]], atol=0.1 * MM, rtol=0)


def _landmarks98(head: HeadModel, vertices: torch.Tensor) -> torch.Tensor:
    extras = open_head_extras()
    corners = vertices[0, head.faces[extras.landmark98_faces]]
    return (corners * torch.from_numpy(extras.landmark98_barycentrics)[..., None]).sum(1)


def test_landmarks_lie_on_their_features(head: HeadModel, assets: HeadAssets) -> None:
    points = _landmarks98(head, head(frame()))
    torch.testing.assert_close(head.landmarks(head(frame()))[0], points[LANDMARKS_98_TO_70])
    faces98 = assets.faces[open_head_extras().landmark98_faces]
    lips = np.isin(faces98, assets.regions["lips"])
    assert lips[76:96].any(1).all() and not lips[:76].any()
    lids = np.isin(faces98, assets.regions["eyelids"])
    assert lids[60:76].any(1).all() and not lids[51:60].any()
    assert (faces98[96:] >= HEAD).all()
    for left, right in ((72, 60), (82, 76), (32, 0), (46, 33), (97, 96)):
        torch.testing.assert_close(points[left] * torch.tensor([-1.0, 1, 1]), points[right], atol=0.6 * MM, rtol=0)
        assert points[left, 0] > 0
    heights = points[[16, 85, 90, 79, 57, 54, 51, 62, 38]][:, 1]  # chin to brow
    assert (heights.diff() > 0).all()
    assert points[54, 2] == points[:, 2].max()  # the tip of the nose is in front
    assert (points[3:30, 0].diff() > 0).all()  # from under one ear round the chin to under the other


def test_regions_are_complete(assets: HeadAssets) -> None:
    regions = assets.regions
    np.testing.assert_array_equal(regions["eyeballs"], np.arange(HEAD, 5023))
    np.testing.assert_array_equal(regions["head"], np.arange(HEAD))
    assert set(regions["lips"]) < set(regions["face_without_eyes"]) < set(regions["face"])
    assert set(regions["eyelids"]) < set(regions["small_face"])
    extras = open_head_extras()
    assert set(np.concatenate([extras.left_eyelid, extras.right_eyelid])) < set(regions["eyelids"])
    inside = np.nonzero(extras.lip_row < 7)[0]
    assert not set(inside) & set(regions["outer_mouth"])


def test_saved_as_flame_files_it_reads_back(assets: HeadAssets, tmp_path: Path) -> None:
    folder = save_head_folder(tmp_path / "FLAME", assets, open_head_extras())
    read = load_flame_assets(folder)
    assert read.name == "flame"
    for name, value in vars(assets).items():
        if name == "regions":
            for region in value:
                np.testing.assert_array_equal(read.regions[region], value[region], err_msg=region)
        elif name != "name":
            np.testing.assert_array_equal(getattr(read, name), value, err_msg=name)
    with np.load(folder / "open_head_extras.npz") as archive:
        np.testing.assert_array_equal(archive["left_eyelid"], open_head_extras().left_eyelid)
