"""Counters of a run, the loss scale of float16, and the watch over steps without finite gradients."""

import json

import pytest

from portrait4d.training.run_state import (
    FIRST_FP16_SCALE,
    GROWTH_STEPS,
    LARGEST_SCALE,
    GradientsLostError,
    LossScale,
    RunState,
)


def test_a_scale_halves_after_a_bad_step_and_doubles_after_many_good_ones() -> None:
    scale = LossScale(FIRST_FP16_SCALE)
    scale.note(False, 10, "Gmain")
    assert scale == LossScale(FIRST_FP16_SCALE / 2, 0, 0, 1)
    for _ in range(GROWTH_STEPS - 1):
        scale.note(True, 10, "Gmain")
    assert scale.value == FIRST_FP16_SCALE / 2
    scale.note(True, 10, "Gmain")
    assert scale == LossScale(FIRST_FP16_SCALE, 0, 0, 1)


def test_a_bad_step_starts_the_count_of_good_ones_anew() -> None:
    scale = LossScale(8.0, good_steps=GROWTH_STEPS - 1)
    scale.note(False, 10, "Gmain")
    scale.note(True, 10, "Gmain")
    assert (scale.value, scale.good_steps) == (4.0, 1)


def test_a_scale_has_a_largest_value() -> None:
    scale = LossScale(LARGEST_SCALE, good_steps=GROWTH_STEPS - 1)
    scale.note(True, 10, "Gmain")
    assert scale.value == LARGEST_SCALE


def test_without_float16_the_scale_stays_one() -> None:
    scale = LossScale(good_steps=GROWTH_STEPS - 1)
    scale.note(True, 10, "Gmain")
    assert scale.value == 1.0


def test_patience_counts_bad_steps_in_a_row() -> None:
    scale = LossScale()
    for finite in (False, False, True, False, False):
        scale.note(finite, 3, "Dmain")
    assert (scale.bad_steps, scale.skipped) == (2, 4)
    with pytest.raises(GradientsLostError, match="Dmain: no finite gradients in 3 steps in a row"):
        scale.note(False, 3, "Dmain")


def test_in_float16_patience_counts_only_what_no_smaller_scale_explains() -> None:
    scale = LossScale(4.0)
    for _ in range(2):
        scale.note(False, 1, "Gmain")
    assert (scale.value, scale.bad_steps, scale.skipped) == (1.0, 0, 2)
    with pytest.raises(GradientsLostError):
        scale.note(False, 1, "Gmain")


def test_a_state_goes_through_json() -> None:
    state = RunState(96, 12, 3, 80, 1.5, 1, 2.5, {"G": LossScale(4.0, 3, 1, 7), "D": LossScale()}, {"probability": 0.1})
    assert RunState.from_dict(json.loads(json.dumps(state.as_dict()))) == state
    assert (state.moment.images_seen, state.moment.iteration) == (96, 12)
    older = {key: value for key, value in state.as_dict().items() if key != "ended_at"}  # before there was such a thing
    assert RunState.from_dict(older) == state


@pytest.mark.parametrize(
    ("seen", "seconds", "tick", "expected"),
    [
        (1400, 4.0, 1, 5000.0),  # no speed yet
        (1400, 4.0, 2, 2000.0),  # 400 in 4 s, 6 s to come
        (1400, 0.5, 2, 5000.0),  # 800 a second would be more than there is to see
        (3400, 12.0, 9, 3400.0),  # time is up
        (1400, 10.0, 1, 1400.0),  # before a speed is known
        (6000, 12.0, 9, 5000.0),  # and more than there is to see was seen
    ],
)
def test_where_a_run_with_a_time_limit_ends(seen: int, seconds: float, tick: int, expected: float) -> None:
    state = RunState(images_seen=seen, seconds=seconds, tick=tick)
    assert state.expected_end(1000, 5000, 10.0) == expected
