"""Smoothing and the measure of trembling."""

from dataclasses import replace

import numpy as np
import pytest

from portrait4d.inference.head_states import FACE_DIM, FACE_PARTS, HeadState
from portrait4d.inference.stabilise import StateSmoother, SteadinessMeter


def moving(time_s: float, noise: np.ndarray | None = None) -> HeadState:
    """Return a head that nods slowly and speaks a little; `noise` (2,) is of neck and face."""
    face = 0.1 * np.sin(np.arange(FACE_DIM) + 2 * time_s)
    neck = np.array([0.2 * np.sin(time_s), 0, 0])
    if noise is not None:
        neck, face = neck + 0.01 * noise[0], face + 0.02 * noise[1]
    return HeadState(np.zeros(25), neck, face)


def test_off_changes_nothing() -> None:
    state = moving(0.3)
    assert StateSmoother("off").smooth(state, 0.0) is state


def test_noise_goes_and_movement_stays() -> None:
    noise = np.random.default_rng(0).normal(size=(100, 2))
    errors = {}
    for strength in ("off", "light", "strong"):
        smoother, meter = StateSmoother(strength), SteadinessMeter()
        error = []
        for k in range(100):
            noisy = moving(k / 25, noise[k])
            smooth = smoother.smooth(noisy, k / 25)
            meter.add(noisy, smooth)
            error.append(abs(smooth.face - moving(k / 25).face).mean())
        errors[strength] = np.mean(error), meter.jitter["head_deg"][1], meter.jitter["motion"][1], meter.expression_kept
    assert errors["light"][0] < errors["off"][0]  # nearer to the truth
    for number in (1, 2):
        assert errors["strong"][number] < errors["light"][number] < 0.7 * errors["off"][number]
    assert errors["off"][3] == 1 and errors["light"][3] == pytest.approx(1, abs=0.05)


def test_a_gap_begins_anew() -> None:
    smoother = StateSmoother("strong")
    smoother.smooth(moving(0), 0.0)
    late = replace(moving(0), face=moving(0).face + 1)
    assert smoother.smooth(late, 0.4).face[0] != late.face[0]
    again = replace(moving(0), face=moving(0).face + 2)
    np.testing.assert_array_equal(smoother.smooth(again, 1.0).face, again.face)


def test_jitter_in_closed_form() -> None:
    meter = SteadinessMeter()
    for k in range(4):  # accelerations of +-4 degrees about one of three axes, and of +-0.4 in motion
        face = np.zeros(FACE_DIM)
        face[FACE_PARTS["motion"]] = 0.1 * (-1) ** k
        state = HeadState(np.zeros(25), np.deg2rad([(-1.0) ** k, 0, 0]), face)
        meter.add(state, replace(state, face=0.5 * face))
    assert meter.jitter["head_deg"] == pytest.approx((4 / 3, 4 / 3))
    assert meter.jitter["motion"] == pytest.approx((0.4, 0.2))
    assert meter.expression_kept == pytest.approx(0.5)


def test_interruptions_are_no_jitter() -> None:
    meter = SteadinessMeter()
    for k in range(6):
        if k % 2 == 0:
            meter.interrupt()
        meter.add(moving(k), moving(k))
    assert meter.jitter == {}
