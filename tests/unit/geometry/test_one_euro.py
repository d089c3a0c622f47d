"""The one-euro filter in closed form, for numbers and for arrays."""

import math

import numpy as np
import pytest

from portrait4d.geometry.one_euro import OneEuroFilter


def test_first_values_and_steady_ones_stay() -> None:
    one_euro = OneEuroFilter(0.01, 0.1)
    assert [one_euro.smooth(3.5, time) for time in range(4)] == [3.5] * 4


def test_one_step_in_closed_form() -> None:
    one_euro = OneEuroFilter(0.01, 0.1)
    one_euro.smooth(1.0, 0)
    slope = (4 * math.pi) / (4 * math.pi + 1) * 1.5  # 3 in two units of time
    weight = 2 * math.pi * (0.01 + 0.1 * slope) * 2
    assert one_euro.smooth(4.0, 2) == pytest.approx(1 + 3 * weight / (weight + 1))
    with pytest.raises(ValueError, match="time: expected after 2, got 2"):
        one_euro.smooth(4.0, 2)


def test_arrays_are_followed_as_a_whole() -> None:
    """A turned copy of a track is smoothed to the turned copy of its smoothing; one number's filter is not."""
    rng = np.random.default_rng(0)
    track = rng.normal(size=(30, 2))
    turn = np.array([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    plain, turned = OneEuroFilter(0.1, 0.5), OneEuroFilter(0.1, 0.5)
    for time, value in enumerate(track):
        np.testing.assert_allclose(turn @ plain.smooth(value, time), turned.smooth(turn @ value, time), atol=1e-12)


def test_equal_numbers_behave_as_one() -> None:
    array, number = OneEuroFilter(0.1, 0.5), OneEuroFilter(0.1, 0.5)
    for time, value in enumerate([0.0, 1.0, -2.0, 0.5]):
        np.testing.assert_allclose(array.smooth(np.full(3, value), time), number.smooth(value, time))
