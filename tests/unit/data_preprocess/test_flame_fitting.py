"""Fitting's reduced head against the whole one, its energies in closed form, and the published schedule."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from data_preprocess.flame_fitting.energies import (
    LANDMARKS_98_TO_70,
    lid_gaps,
    placement_energy,
    refinement_energy,
    target_points,
)
from data_preprocess.flame_fitting.fitting_head import FLAME_LIDS, FittedParts, reduce_head
from data_preprocess.flame_fitting.solver import START_TRANSLATION, Schedule, fit_head
from portrait4d.geometry.cameras import project_points, split_camera
from portrait4d.geometry.flame import HEAD_TENSORS, HeadModel
from portrait4d.geometry.head_fit import HeadFit, labels_of, params_of, project
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.geometry.posed_points import split_vertices
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.synthetic_heads.figure import open_head_model
from portrait4d.synthetic_heads.scene import LANDMARKS_98_TO_70 as OPEN_HEAD_CHOICE
from tests.helpers.fitted_head import open_head_parts


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return open_head_model()


@pytest.fixture(scope="module")
def parts() -> FittedParts:
    return open_head_parts()


def random_params(seed: int, jaw: Tensor | None = None) -> HeadParams:
    generator = torch.Generator().manual_seed(seed)
    shape, expression, eye, own_jaw = (
        scale * torch.randn(2, size, generator=generator)
        for size, scale in ((300, 0.5), (100, 0.5), (3, 0.2), (3, 0.1))
    )
    return params_of(shape, expression, own_jaw if jaw is None else jaw, eye)


def test_posed_points_are_the_head_s_vertices(head: HeadModel) -> None:
    params = random_params(0)
    torch.testing.assert_close(
        split_vertices(head, dtype=torch.float32).points(params), head(params), atol=2e-6, rtol=0
    )


def test_joints_that_do_not_hang_on_the_neck_are_refused(head: HeadModel) -> None:
    tensors = {name: getattr(head, name) for name in HEAD_TENSORS} | {"parents": torch.tensor([-1, 0, 1, 2, 1])}
    with pytest.raises(ValueError, match="parents: expected"):
        split_vertices(HeadModel(tensors, "chained"))


def test_landmarks_and_flame_s_lid_vertices(head: HeadModel, parts: FittedParts) -> None:
    params = random_params(1)
    vertices = head(params)
    torch.testing.assert_close(parts.landmarks.points(params), head.landmarks(vertices), atol=2e-6, rtol=0)
    flame = HeadModel(dict(head.named_buffers()), "flame")
    points = reduce_head(flame).landmarks.points(params)
    changed = (points - head.landmarks(vertices)).abs().amax((0, 2)) > 1e-4
    assert set(changed.nonzero().flatten().tolist()) == set(FLAME_LIDS) == {37, 38, 40, 41, 43, 44, 46, 47}
    middle = (vertices[:, 2452] + vertices[:, 2454]) / 2
    torch.testing.assert_close(points[:, 37], middle, atol=2e-6, rtol=0)
    torch.testing.assert_close(points[:, 47], vertices[:, 827], atol=2e-6, rtol=0)


def test_mesh_term_and_its_gradient_are_those_of_the_whole_mesh(head: HeadModel, parts: FittedParts) -> None:
    initial = random_params(2)
    moved = random_params(3, jaw=initial.pose[:, 3:])
    outside = torch.ones(len(head.template), dtype=torch.bool)
    outside[head.region("eyelids")] = False
    precise = copy.deepcopy(head).double()  # the gaze's gradient is the small difference of large numbers
    gradients, values = [], []
    for whole in (True, False):
        kind = torch.float64 if whole else torch.float32
        leaves = (moved.shape, moved.expression, moved.eye_pose)
        shape, expression, eye = (t.to(kind, copy=True).requires_grad_() for t in leaves)
        params = HeadParams(shape, expression, moved.pose.to(kind), eye[:, :3].repeat(1, 2))
        if whole:
            start = HeadParams(initial.shape.double(), initial.expression.double(), params.pose, params.eye_pose)
            value = ((precise(params) - precise(start).detach())[:, outside] ** 2).mean()
        else:
            value = parts.mesh_term(initial)(params)
        value.backward()
        values.append(value.item())
        gradients.append([shape.grad, expression.grad, eye.grad])
    assert values[1] == pytest.approx(values[0], rel=1e-4)
    # In float32 the gaze's, a sum that almost cancels, is good to 1.6e-3 with two threads.
    for ours, wanted, tolerance in zip(gradients[1], gradients[0], (1e-3, 1e-3, 5e-3), strict=True):
        torch.testing.assert_close(ours.double(), wanted, atol=tolerance * wanted.abs().max().item(), rtol=0)


def test_targets() -> None:
    assert list(OPEN_HEAD_CHOICE) == LANDMARKS_98_TO_70
    points98, points68 = np.full((98, 2), 10.0), np.full((68, 2), 20.0)
    points98[97] = 100, 30
    targets = target_points(points98, points68, picture_size=256)
    assert targets.dtype == np.float32 and targets.shape == (70, 2)
    assert (targets[:17] == (40, 472)).all() and (targets[17:69] == (20, 492)).all()
    assert targets[69].tolist() == [200, 452]


def test_projection_is_that_of_the_label_s_camera() -> None:
    fit = HeadFit(
        torch.zeros(1, 300),
        torch.zeros(1, 100),
        torch.tensor([[0.1, -0.3, 0.05]]),
        torch.zeros(1, 3),
        torch.tensor([[0.0, 2.0, 0.0]]),
        torch.tensor([[0.02, -0.05, -4.3]]),
    )
    points = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    camera, params = split_label(labels_of(fit))
    rotation = axis_angle_to_matrix(fit.rotation_rad)
    expected = project_points(points, camera) * 512
    torch.testing.assert_close(project(points, rotation, fit.translation), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(split_camera(camera).cam2world[:, :3, :3].mT, rotation)
    assert torch.equal(params.pose[:, :3], fit.rotation_rad)
    assert params.eye_pose[0].tolist() == pytest.approx([0, 2 - math.pi, 0] * 2, abs=1e-6)  # more than a quarter turn


def test_energies_of_shifted_points() -> None:
    """All points 2 px to the right: every mean square over x and y is 2."""
    targets = torch.rand(3, 70, 2, generator=torch.Generator().manual_seed(0)) * 300
    shifted = targets + torch.tensor([2.0, 0.0])
    assert placement_energy(shifted, targets).item() == pytest.approx(2 * (1 + 2 + 2 + 1 + 1), rel=1e-4)
    spread = torch.zeros(1, 70, 2)
    spread[:, [37, 38, 43, 44], 1] = 10.0  # lid gaps of 10 px, of 0 in the corners
    assert lid_gaps(spread)[0].tolist() == pytest.approx([0, 10, 10, 0] * 2, abs=1e-3)
    assert refinement_energy(spread + torch.tensor([2.0, 0.0]), spread).item() == pytest.approx(5 * 4 + 2, rel=1e-4)


def test_small_gaps_count_as_closed_and_both_eyes_should_open_alike() -> None:
    targets = torch.zeros(1, 70, 2)
    targets[:, [37, 38], 1] = 8.0
    # two of eight gaps are 8 px though none is wanted; right and left differ by 8 in two of four pairs
    assert refinement_energy(targets, targets).item() == pytest.approx(2 * 64 * 2 / 8 + 64 * 2 / 4, rel=1e-3)
    targets[:, [37, 38], 1] = 9.0
    assert refinement_energy(targets, targets).item() == pytest.approx(81 * 2 / 4, rel=1e-3)


def start_of(batch: int, shapes: int) -> HeadFit:
    translation = torch.tensor(START_TRANSLATION).repeat(batch, 1)
    zeros = [torch.zeros(batch, 3) for _ in range(3)]
    return HeadFit(torch.zeros(shapes, 300), torch.zeros(batch, 100), *zeros, translation)


def test_the_iterate_of_least_energy_is_kept(parts: FittedParts) -> None:
    """Adam's first step has the length of the learning rate in each coordinate; it is seen by the next evaluation."""
    assert pytest.approx((0, 0, -4.589734), abs=1e-6) == START_TRANSLATION
    start = start_of(2, 2)
    head = params_of(start.shape, start.expression, start.jaw_rad, start.eye_rad)
    goal = start.translation + torch.tensor([0.1, -0.1, 0.4])
    targets = project(parts.landmarks.points(head), torch.eye(3).repeat(2, 1, 1), goal)
    kept = fit_head(parts, targets, start, Schedule(1, 1))
    assert all(torch.equal(getattr(kept, name), getattr(start, name)) for name in vars(start))
    moved = fit_head(parts, targets, start, Schedule(2, 1)).translation - start.translation
    torch.testing.assert_close(moved, torch.tensor([[1e-3, -1e-3, 1e-3]]).repeat(2, 1), atol=1e-6, rtol=0)
    far = fit_head(parts, targets, start, Schedule(2, 1, learning_rate=3.0))  # a step that makes it worse
    assert torch.equal(far.translation, start.translation)


def test_refinement_moves_lids_gaze_and_nothing_else(head: HeadModel, parts: FittedParts) -> None:
    calls = []
    start = start_of(2, 1)
    looking = params_of(start.shape, start.expression, start.jaw_rad, torch.tensor([[0.0, 0.1, 0.0], [0.05, 0.0, 0.0]]))
    targets = project(parts.landmarks.points(looking), torch.eye(3).repeat(2, 1, 1), start.translation)
    fit = fit_head(parts, targets, start, Schedule(0, 120), lambda: calls.append(1))
    assert len(calls) == 120 and fit.shape.shape == (1, 300)
    assert torch.equal(fit.rotation_rad, start.rotation_rad) and torch.equal(fit.jaw_rad, start.jaw_rad)
    assert fit.eye_rad[0, 1] > 0.05 and fit.eye_rad[1, 0] > 0.025
    outside = torch.ones(len(head.template), dtype=torch.bool)
    outside[head.region("eyelids")] = False
    outside[head.region("eyeballs")] = False
    fitted = head(params_of(fit.shape, fit.expression, fit.jaw_rad, fit.eye_rad))
    assert (fitted - head(looking))[:, outside].abs().max() < 2e-3
    labels = labels_of(replace(fit))
    assert labels.shape == (2, 437) and torch.equal(labels[0, 25:325], labels[1, 25:325])
