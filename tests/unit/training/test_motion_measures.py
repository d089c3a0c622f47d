"""Errors of motion inputs and vectors, against closed forms; weights of the loss."""

import math

import pytest
import torch

from portrait4d.config.motion_training import MotionLossConfig
from portrait4d.synthetic_heads.motion_inputs import MOTION_INPUTS, motion_input_matrix
from portrait4d.training.motion_measures import compare_inputs, format_errors
from portrait4d.training.motion_task import loss_weights

TRUTHS = torch.tensor([-1.0, 1.0, -1.0, 1.0])[:, None].repeat(1, 27)


def test_perfect_answers() -> None:
    errors = compare_inputs(TRUTHS, TRUTHS, motion_input_matrix())
    assert errors.absolute.max() == 0 and errors.explained.min() == 1
    assert torch.allclose(errors.correlation, torch.ones(27).double())
    assert set(errors.vector) == {"eye", "emotion", "mouth", "all"} and max(errors.vector.values()) == 0


def test_always_answering_the_mean() -> None:
    errors = compare_inputs(torch.zeros(4, 27), TRUTHS, motion_input_matrix())
    assert torch.equal(errors.absolute, errors.mean_absolute) and torch.equal(errors.deviation, errors.absolute)
    assert errors.explained.abs().max() == 0 and errors.correlation.isnan().all()
    assert all(value == pytest.approx(1) for value in errors.vector.values())


def test_an_input_that_does_not_vary_explains_nothing() -> None:
    errors = compare_inputs(TRUTHS, torch.ones(4, 27), motion_input_matrix())
    assert errors.explained.isnan().all() and errors.correlation.isnan().all() and torch.all(errors.absolute == 1)


def test_half_as_strong_answers() -> None:
    errors = compare_inputs(TRUTHS / 2 + 0.25, TRUTHS, motion_input_matrix())
    assert torch.allclose(errors.explained, torch.full((27,), 1 - 0.3125).double())
    assert torch.allclose(errors.correlation, torch.ones(27).double())
    assert all(value == pytest.approx(math.sqrt(0.3125)) for value in errors.vector.values())


def test_an_input_counts_in_its_own_part_of_the_vector() -> None:
    answers = TRUTHS.clone()
    answers[:, MOTION_INPUTS.index("pucker")] = 0
    vector = compare_inputs(answers, TRUTHS, motion_input_matrix()).vector
    assert vector["eye"] == vector["emotion"] == 0 and vector["mouth"] > 0.1


def test_the_table_has_a_line_for_each_input_and_part() -> None:
    lines = format_errors(compare_inputs(TRUTHS / 2, TRUTHS, motion_input_matrix())).splitlines()
    assert len(lines) == 1 + 27 + 4
    assert lines[1].split() == ["blink_left", "0.500", "1.000", "1.000", "0.750", "1.000"]
    assert lines[-1].split() == ["vector", "all", "0.500"]


def test_loss_weights() -> None:
    weights = dict(zip(MOTION_INPUTS, loss_weights(MotionLossConfig(blink=5, gaze=4, jaw=2)).tolist(), strict=True))
    assert weights.pop("blink_left") == weights.pop("blink_right") == 5
    assert weights.pop("gaze_pitch") == weights.pop("gaze_yaw") == 4
    assert weights.pop("jaw_open") == 2
    assert set(weights.values()) == {1} and "jaw_side" in weights
