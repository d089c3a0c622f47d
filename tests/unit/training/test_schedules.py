"""Schedules at their corners, and Adam's correction, from the formulas of training-genhead.md."""

import pytest

from portrait4d.training.schedules import (
    AdamSettings,
    average_beta,
    blur_sigma,
    has_started,
    lazy_interval,
    lazy_settings,
    ramp,
    rate_factor,
    render_resolution,
    scale_kimg,
    swap_probability,
)


def test_ramp() -> None:
    assert [ramp(n, 2.0) for n in (0, 500, 2000, 9000)] == [0.0, 0.25, 1.0, 1.0]
    assert [ramp(n, 2.0, 1.0) for n in (0, 1000, 2000, 3000)] == [0.0, 0.0, 0.5, 1.0]
    assert [ramp(n, 0.0, 1.0) for n in (0, 999, 1000)] == [0.0, 0.0, 1.0]
    assert ramp(0, 0.0) == 1.0
    with pytest.raises(ValueError, match="length_kimg: expected at least 0"):
        ramp(0, -1.0)


def test_a_stage_begins_with_its_first_image() -> None:
    assert [has_started(n, 1000.0) for n in (0, 999_999, 1_000_000)] == [False, False, True]
    assert has_started(0, 0.0)


def test_durations_scale_with_the_batch() -> None:
    assert scale_kimg(200.0, 32) == 200.0
    assert scale_kimg(200.0, 4) == 25.0


def test_blur_falls_to_zero_and_stays() -> None:
    assert [blur_sigma(n, 200.0) for n in (0, 100_000, 200_000, 10**9)] == [10.0, 5.0, 0.0, 0.0]
    assert blur_sigma(0, 0.0) == 0.0
    assert blur_sigma(0, 200.0, initial_sigma=3.0) == 3.0


def test_swapping_starts_certain() -> None:
    assert [swap_probability(n, 0.5, 1000.0) for n in (0, 500_000, 1_000_000, 10**9)] == [1.0, 0.75, 0.5, 0.5]
    assert swap_probability(0, 0.5, 0.0) == 0.5
    assert swap_probability(10**9, None, 1000.0) is None


def test_resolution() -> None:
    assert render_resolution(10**9, 64) == 64
    assert [render_resolution(n, 64, 128) for n in (0, 500_000, 10**6, 10**9)] == [64, 96, 128, 128]
    assert [render_resolution(n, 64, 128, 1000.0, 1000.0) for n in (10**6, 1_500_000, 2 * 10**6)] == [64, 96, 128]
    assert render_resolution(500_000, 64, 65) == 64  # 64.5: half to even, as numpy rounds
    assert render_resolution(500_000, 65, 66) == 66
    assert render_resolution(250_000, 128, 64) == 112


def test_the_average_begins_as_a_copy_and_ends_with_its_half_life() -> None:
    assert average_beta(0, 32, 10.0) == 0.0
    assert average_beta(10**9, 10_000, 10.0) == 0.5
    assert average_beta(0, 10_000, 10.0, ramp_up=None) == 0.5
    assert average_beta(640, 32, 10.0, ramp_up=0.05) == 0.5  # half-life of 32 images
    assert average_beta(640, 32, 10.0, ramp_up=0.1) == pytest.approx(2**-0.5)
    betas = [average_beta(n, 32, 10.0) for n in range(0, 300_000, 1000)]
    assert betas == sorted(betas)
    assert average_beta(10**6, 32, scale_kimg(10.0, 32)) == average_beta(10**6, 4, scale_kimg(10.0, 4))


@pytest.mark.parametrize(
    ("settings", "interval", "expected"),
    [
        (AdamSettings(0.0025), 4, (0.002, 0.0, 0.99**0.8)),
        (AdamSettings(0.002), 16, (0.002 * 16 / 17, 0.0, 0.99 ** (16 / 17))),
        (AdamSettings(1e-4, 0.9, 0.999, 1e-5), 4, (8e-5, 0.9**0.8, 0.999**0.8)),
        (AdamSettings(0.0025), None, (0.0025, 0.0, 0.99)),
    ],
)
def test_lazy_adam(settings: AdamSettings, interval: int | None, expected: tuple[float, float, float]) -> None:
    corrected = lazy_settings(settings, interval)
    assert (corrected.learning_rate, corrected.beta1, corrected.beta2) == pytest.approx(expected, rel=1e-12)
    assert corrected.eps == settings.eps


def test_lazy_adam_decays_as_much_over_an_interval() -> None:
    corrected = lazy_settings(AdamSettings(1.0, 0.9, 0.99), 16)
    assert corrected.beta2**17 == pytest.approx(0.99**16)
    assert corrected.learning_rate * 17 == pytest.approx(16)


def test_nothing_is_lazy_without_weight() -> None:
    assert lazy_interval(0.25, 4) == 4
    assert lazy_interval(0.0, 4) is None
    with pytest.raises(ValueError, match="interval: expected at least 1, got 0"):
        lazy_settings(AdamSettings(1.0), 0)


def test_rates_fall_at_the_end_if_they_are_told_to() -> None:
    assert [rate_factor(images, 10, 4) for images in (0, 6000, 8000, 10000)] == [1, 1, 0.5, 0]
    assert rate_factor(10000, 10, 0) == 1
