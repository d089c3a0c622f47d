"""Camera and neck: recorded cameras, the identities of the decomposition, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.geometry.cameras import (
    intrinsics_from_fov,
    invert_rigid,
    join_camera,
    look_at_cam2world,
    project_points,
    split_camera,
)
from portrait4d.geometry.flame import NECK, HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.geometry.rotations import axis_angle_to_matrix
from tests.golden.cases import case_tensor, standin_head

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
CASE = "losses-a/decompose"


def random_params(batch: int) -> HeadParams:
    generator = torch.Generator().manual_seed(1)
    sizes = ((300, 1.0), (100, 1.0), (6, 0.3), (6, 0.2))
    return HeadParams(*(torch.randn(batch, n, generator=generator) * std for n, std in sizes))


def cameras(batch: int) -> torch.Tensor:
    position = torch.tensor([[0.3, 0.2, 4.0], [-1.0, 0.5, 3.8], [0.0, -0.4, 4.5]])[:batch]
    cam2world = look_at_cam2world(position, torch.tensor([0.0, 0.1, 0.2]), 0.15)
    return join_camera(cam2world, intrinsics_from_fov().expand(batch, 3, 3))


def test_recorded_cameras() -> None:
    golden = np.load(GOLDEN / "sampling.npz")
    head = standin_head()
    shape, expression = (case_tensor(CASE, *a) for a in (("shape", (6, 300), 0.6), ("expression", (6, 100), 0.5)))
    params = HeadParams(shape, expression, torch.from_numpy(golden["decompose/pose"]), torch.zeros(6, 6))
    joints = head.posed_joints(head.rest(shape, expression), params.without_neck_rotation())
    assert np.abs(joints[:, NECK].numpy() - golden["decompose/neck_joint"]).max() < 1e-6
    ours = camera_for_posed_neck(head, params, torch.from_numpy(golden["decompose/c_compose"])).numpy()
    for name in ("free", "limited"):  # rotation limits make no difference
        wanted = golden[f"decompose/{name}/c"]
        assert np.abs(ours - wanted).max() <= 1e-6 * np.abs(wanted).max()


def test_the_posed_head_looks_as_the_upright_one_did(ellipsoid: HeadModel) -> None:
    params, camera = random_params(3), cameras(3)
    carried = ellipsoid.skinning_weights[:, 0] == 0  # the whole head above the neck, jaw and eyes included
    assert carried.sum() > 500
    before = project_points(ellipsoid(params.without_neck_rotation())[:, carried], camera)
    after = project_points(ellipsoid(params)[:, carried], camera_for_posed_neck(ellipsoid, params, camera))
    assert (after - before).abs().max() < 2e-6
    assert (project_points(ellipsoid(params)[:, carried], camera) - before).abs().max() > 0.02


def test_fitted_labels_give_a_camera_without_rotation(ellipsoid: HeadModel) -> None:
    params = random_params(3)
    world2camera = torch.eye(4).repeat(3, 1, 1)
    world2camera[:, :3, :3] = axis_angle_to_matrix(params.pose[:, :3])
    world2camera[:, :3, 3] = torch.tensor([0.01, 0.02, -4.3])
    camera = join_camera(invert_rigid(world2camera), intrinsics_from_fov().expand(3, 3, 3))
    cam2world, intrinsics = split_camera(camera_for_posed_neck(ellipsoid, params, camera))
    assert (cam2world[:, :3, :3] - torch.eye(3)).abs().max() < 1e-6
    assert torch.equal(cam2world[:, 3], torch.tensor([0.0, 0, 0, 1]).expand(3, 4))
    assert torch.equal(intrinsics, intrinsics_from_fov().expand(3, 3, 3))


def test_an_unrotated_neck_keeps_the_camera(ellipsoid: HeadModel) -> None:
    params, camera = random_params(2).without_neck_rotation(), cameras(2)
    assert (camera_for_posed_neck(ellipsoid, params, camera) - camera).abs().max() < 2e-6


@pytest.mark.parametrize("shape", [(1, 25), (25,), (2, 24)])
def test_other_cameras_are_refused(ellipsoid: HeadModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="camera"):
        camera_for_posed_neck(ellipsoid, random_params(2), torch.zeros(shape))
