"""Bootstrap intervals: against closed forms, and groups that stay together."""

import numpy as np
import pytest

from portrait4d.metrics.bootstrap import estimate_correlation, estimate_mean, resample_weights


def test_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = estimate_mean(values, resample_weights(range(400), 20000))
    half = 1.959964 * values.std() / 20  # the bootstrap's deviation is the population one over sqrt(N)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_two_values_have_a_known_distribution() -> None:
    weights = resample_weights(["a", "b"], 40000)
    drawn = weights[1:] @ np.array([0.0, 1.0]) / weights[1:].sum(axis=1)
    shares = [(drawn == mean).mean() for mean in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.01)


def test_frames_of_a_group_are_drawn_together() -> None:
    groups = ["a"] * 50 + ["b"] * 50
    weights = resample_weights(groups, 100)
    assert (weights[0] == 1).all()
    assert (weights[:, :50] == weights[:, :1]).all() and (weights[:, 50:] == weights[:, -1:]).all()
    values = np.repeat([0.0, 1.0], 50)
    assert estimate_mean(values, weights)[1:] == (0, 1)  # as wide as two values make it, not a hundred


def test_equal_values_leave_no_doubt_and_seeds_repeat() -> None:
    assert estimate_mean(np.full(7, 2.5), resample_weights(range(7))) == (2.5, 2.5, 2.5)
    first, again, other = (resample_weights(range(9), 50, seed) for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=300)
    y = 0.8 * x + 0.6 * rng.normal(size=300)
    found = estimate_correlation(x, y, resample_weights(range(300)))
    r = np.corrcoef(x, y)[0, 1]
    assert found.value == pytest.approx(r)
    fisher = np.tanh(np.arctanh(r) + np.array([-1, 1]) * 1.96 / np.sqrt(297))
    assert (found.low, found.high) == pytest.approx(tuple(fisher), abs=0.02)
    assert estimate_correlation(x, -2 * x + 1, resample_weights(range(300))) == pytest.approx((-1, -1, -1))
    assert np.isnan(estimate_correlation(x, np.ones(300), resample_weights(range(300)))).all()


@pytest.mark.parametrize(("spread", "offset"), [(1e-8, 0.0), (1e-8, 1.0), (1e8, 0.0)])
def test_correlation_knows_no_scale(spread: float, offset: float) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=100)
    y = x + rng.normal(size=100)
    weights = resample_weights(range(100), 200)
    found = estimate_correlation(spread * x + offset, spread * y + offset, weights)
    assert found == pytest.approx(estimate_correlation(x, y, weights), abs=1e-6)
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)


def test_drawings_without_variation_leave_no_noise() -> None:
    groups = np.repeat([0, 1], 50)
    x = np.where(groups == 0, 0.1, 0.7)  # a drawing of one group alone does not vary
    found = estimate_correlation(x, 1 / 3 - x, resample_weights(groups, 500))
    assert found == pytest.approx((-1, -1, -1)) and min(found) >= -1
    assert np.isnan(estimate_correlation(x, np.full(100, 0.1), resample_weights(groups, 500))).all()


def test_no_frame() -> None:
    with pytest.raises(ValueError, match="groups: expected at least one frame"):
        resample_weights([])
