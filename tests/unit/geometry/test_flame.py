"""The head model: kinematics on the stand-in (FLAME's shapes) and on the ellipsoid head."""

from pathlib import Path

import pytest
import torch

from portrait4d.geometry.flame import NECK, HeadModel
from portrait4d.geometry.flame_assets import load_flame_assets
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.rotations import axis_angle_to_matrix
from tests.helpers.standin_head import write_standin_folder


@pytest.fixture(scope="module", params=["standin", "ellipsoid"])
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ellipsoid: HeadModel) -> HeadModel:
    if request.param == "ellipsoid":
        return ellipsoid
    return HeadModel.from_assets(load_flame_assets(write_standin_folder(tmp_path_factory.mktemp("flame"))))


def params(pose: list[float] | None = None, batch: int = 1, seed: int = 0) -> HeadParams:
    generator = torch.Generator().manual_seed(seed)
    return HeadParams(
        torch.randn(batch, 300, generator=generator) * 0.5,
        torch.randn(batch, 100, generator=generator) * 0.5,
        torch.tensor(pose or [0.0] * 6).expand(batch, 6),
        torch.randn(batch, 6, generator=generator) * 0.1,
    )


def zero_params() -> HeadParams:
    return HeadParams(torch.zeros(1, 300), torch.zeros(1, 100), torch.zeros(1, 6), torch.zeros(1, 6))


def test_the_neck_joint_of_the_plain_head_is_the_origin(head: HeadModel) -> None:
    rest = head.rest(torch.zeros(1, 300), torch.zeros(1, 100))
    assert head.posed_joints(rest, zero_params())[0, NECK].abs().max() < 1e-6


def test_canonical_vertices_are_the_plain_head_with_an_open_jaw(head: HeadModel) -> None:
    canonical = HeadParams(
        torch.zeros(1, 300), torch.zeros(1, 100), torch.tensor([[0, 0, 0, 0.3, 0, 0]]), torch.zeros(1, 6)
    )
    torch.testing.assert_close(head(canonical)[0], head.canonical_vertices, atol=1e-6, rtol=0)
    assert (head(zero_params())[0] - head.canonical_vertices).abs().max() > 0.01


def test_the_neck_joint_stays_when_the_neck_turns(head: HeadModel) -> None:
    still, turned = params(), params([0.3, -0.4, 0.2, 0.1, 0, 0])
    rest = head.rest(still.shape, still.expression)
    torch.testing.assert_close(
        head.posed_joints(rest, turned)[:, NECK], head.posed_joints(rest, still)[:, NECK], atol=0, rtol=0
    )


def test_vertices_that_hang_on_the_eyes_turn_with_neck_and_eye(ellipsoid: HeadModel) -> None:
    """Without pose correctives the eyeballs move rigidly: R_neck R_eye about their joints."""
    still = zero_params()
    turned = HeadParams(
        still.shape, still.expression, torch.tensor([[0.2, 0.5, -0.1, 0, 0, 0]]), torch.tensor([[0.1, 0.2, 0, 0, 0, 0]])
    )
    rest = ellipsoid.rest(still.shape, still.expression)
    left = ellipsoid.skinning_weights[:, 3] == 1
    neck, eye = axis_angle_to_matrix(turned.pose[0, :3]), axis_angle_to_matrix(turned.eye_pose[0, :3])
    pivot, neck_joint = rest.joints[0, 3], rest.joints[0, NECK]
    own = (rest.vertices[0, left] - pivot) @ eye.T + pivot
    expected = (own - neck_joint) @ neck.T + neck_joint
    torch.testing.assert_close(ellipsoid(turned)[0, left], expected, atol=1e-6, rtol=0)


def test_batches_equal_single_frames(head: HeadModel) -> None:
    both = params([0.1, 0.2, 0.3, 0.1, 0, 0], batch=2)
    one = HeadParams(both.shape[1:], both.expression[1:], both.pose[1:], both.eye_pose[1:])
    torch.testing.assert_close(head(both)[1], head(one)[0], atol=2e-6, rtol=0)


def test_landmarks_lie_on_their_faces(head: HeadModel) -> None:
    vertices = head(params())
    corners = vertices[0, head.faces[head.landmark_faces]]
    landmarks = head.landmarks(vertices)[0]
    assert landmarks.shape == (70, 3)
    assert ((landmarks - corners.amin(1)) >= -1e-5).all() and ((corners.amax(1) - landmarks) >= -1e-5).all()
    assert landmarks[36:42, 0].mean() < landmarks[42:48, 0].mean()  # the subject's right eye is at image left
    assert landmarks[:, 2].mean() > 0


def test_coefficients_of_another_length_are_named(head: HeadModel) -> None:
    with pytest.raises(ValueError, match="expected 400 coefficients together, got 300 \\+ 50"):
        head.rest(torch.zeros(1, 300), torch.zeros(1, 50))


def test_missing_and_unknown_buffers_are_named() -> None:
    with pytest.raises(ValueError, match="missing .*'template'.*unknown .'teeth'"):
        HeadModel({"teeth": torch.zeros(1)}, "x")


def test_open_heads_carry_their_identity(ellipsoid: HeadModel, tmp_path: Path) -> None:
    assert ellipsoid.open_head.name == "ellipsoid"
    assert len(ellipsoid.open_head.sha256) == 64
    assert HeadModel.from_assets(load_flame_assets(write_standin_folder(tmp_path))).open_head is None
