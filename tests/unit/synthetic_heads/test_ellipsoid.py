"""The ellipsoid head and its painted portraits."""

import numpy as np
import pytest
import torch

from portrait4d.geometry.cameras import project_points
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.open_head import digest_assets
from portrait4d.synthetic_heads.ellipsoid_head import NAME, VERSION, build_ellipsoid_head, build_open_head
from portrait4d.synthetic_heads.ellipsoid_portrait import paint_portrait, sample_look
from tests.helpers.cameras import frontal_camera
from tests.helpers.painted_portraits import read_poses


def test_same_bits_every_time_and_by_name() -> None:
    digest = digest_assets(build_ellipsoid_head())
    assert digest_assets(build_open_head(NAME, VERSION)) == digest
    with pytest.raises(ValueError, match="expected ellipsoid version 1, got egg version 1"):
        build_open_head("egg", 1)


def test_faces_are_closed_and_wound_outwards() -> None:
    assets = build_ellipsoid_head()
    corners = assets.template[assets.faces].astype(np.float64)
    volume = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    egg, eyes = 4 / 3 * np.pi * 0.075 * 0.105 * 0.09, 2 * 4 / 3 * np.pi * 0.013**3
    assert volume == pytest.approx(egg + eyes, rel=0.04)
    edges = np.sort(assets.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_the_painted_mouth_is_where_the_landmarks_are(ellipsoid: HeadModel) -> None:
    pose = torch.tensor([[0.1, 0.3, 0.0, 0, 0, 0]])
    params = HeadParams(torch.zeros(1, 300), torch.zeros(1, 100), pose, torch.zeros(1, 6))
    look = sample_look(np.random.default_rng(3))
    expression = torch.zeros(100)
    expression[1] = 2.0
    closed = paint_portrait(look, frontal_camera()[0], pose[0], torch.zeros(100), 128)
    opened = paint_portrait(look, frontal_camera()[0], pose[0], expression, 128)
    changed = (opened - closed).abs().sum(0) > 0.05
    rows, columns = changed.nonzero(as_tuple=True)
    landmarks = project_points(ellipsoid.landmarks(ellipsoid(params)), frontal_camera())[0, 48:68].mean(0) * 128
    assert abs(columns.float().mean() + 0.5 - landmarks[0]) < 4
    assert abs(128 - rows.float().mean() - 0.5 - landmarks[1]) < 4


def test_portraits_repeat_and_differ() -> None:
    poses = read_poses()
    assert len(poses) == 12

    def paint(seed: int, number: int) -> torch.Tensor:
        look = sample_look(np.random.default_rng(seed))
        return paint_portrait(look, frontal_camera()[0], poses[number].pose[0], poses[number].expression[0], 32)

    assert torch.equal(paint(0, 1), paint(0, 1))
    assert not torch.equal(paint(0, 1), paint(1, 1))
    assert not torch.equal(paint(0, 1), paint(0, 4))
    assert paint(0, 0).min() >= -1 and paint(0, 0).max() <= 1
