"""Trembling filtered out of a driver's states, and how much of it, and of the expression, went."""

from fractions import Fraction

import numpy as np
import torch

from portrait4d.config.animation import Stabilise
from portrait4d.geometry.one_euro import OneEuroFilter
from portrait4d.inference.head_states import FACE_PARTS, MOTION_DIM, HeadState
from portrait4d.metrics.frame_errors import jitter

_SPEEDS = {"neck": 0.3, "expression": 0.3, "jaw": 0.1, "eyes": 0.3, "motion": 0.1}
"""Speeds of usual movements: rad/s of neck, jaw and eyes, 1/s of the others; root mean squares over the numbers."""
_STRENGTHS: dict[Stabilise, tuple[float, float]] = {"light": (2.0, 4.0), "strong": (0.7, 2.0)}
"""Cutoffs in Hz at rest, and what is added at a usual speed."""

_LONGEST_GAP_S = 0.5


class StateSmoother:
    """One-euro filters on head pose and on the parts of the face.

    Args:
        strength: "light" or "strong"; "off" lets states through.
    """

    def __init__(self, strength: Stabilise) -> None:
        self.strength: Stabilise = strength
        self._filters: dict[str, OneEuroFilter] = {}
        self._time_s = 0.0

    def smooth(self, state: HeadState, time_s: Fraction | float) -> HeadState:
        """Return the smoothed state of the next time; after half a second without any, smoothing begins anew.

        Raises:
            ValueError: a time that is not after the last one.
        """
        if self.strength == "off":
            return state
        if not self._filters or time_s - self._time_s > _LONGEST_GAP_S:
            cutoff, added = _STRENGTHS[self.strength]
            self._filters = {name: OneEuroFilter(cutoff, added / speed) for name, speed in _SPEEDS.items()}
        self._time_s = float(time_s)
        face = [self._filters[name].smooth(state.face[part], self._time_s) for name, part in FACE_PARTS.items()]
        neck = self._filters["neck"].smooth(_unwrapped(state.neck_rad), self._time_s)
        return HeadState(state.camera, neck, np.concatenate(face))


class SteadinessMeter:
    """How much states tremble before and after smoothing, and how much expression is lost; memory does not grow.

    Jitter is the mean absolute acceleration, see `metrics.frame_errors.jitter`: of head rotations in degrees per frame
    squared, of motion vectors in their unit per frame squared. Expression is the spread of motion vectors.
    """

    def __init__(self) -> None:
        self._last: list[tuple[HeadState, HeadState]] = []
        self._jitter = np.zeros((2, 2))
        self._measured = self._count = 0
        self._mean = np.zeros((2, MOTION_DIM))
        self._squares = np.zeros(2)

    def add(self, before: HeadState, after: HeadState) -> None:
        """Take in the next state."""
        self._last = [*self._last[-2:], (before, after)]
        self._count += 1
        for side, state in enumerate((before, after)):
            motion = state.face[FACE_PARTS["motion"]]
            old = motion - self._mean[side]
            self._mean[side] += old / self._count
            self._squares[side] += old @ (motion - self._mean[side])
        if len(self._last) == 3:
            self._measured += 1
            for side in range(2):
                states = [pair[side] for pair in self._last]
                angles = np.rad2deg([state.neck_rad for state in states])
                motions = np.stack([state.face[FACE_PARTS["motion"]] for state in states])
                self._jitter[:, side] += [_acceleration(angles), _acceleration(motions)]

    def interrupt(self) -> None:
        """Say that the next state does not follow on the last one."""
        self._last = []

    @property
    def jitter(self) -> dict[str, tuple[float, float]]:
        """Jitter before and after: "head_deg" and "motion"; empty for fewer than three frames in a row."""
        if not self._measured:
            return {}
        means = (self._jitter / self._measured).tolist()
        return {name: (before, after) for name, (before, after) in zip(("head_deg", "motion"), means, strict=True)}

    @property
    def expression_kept(self) -> float:
        """Spread of motion vectors after smoothing, 1 as before."""
        before, after = self._squares
        return float(np.sqrt(after / before)) if before > 0 else 1.0


def _acceleration(values: np.ndarray) -> float:
    frames = torch.from_numpy(values)
    return float(jitter(frames, torch.zeros_like(frames)))


def _unwrapped(rotation_rad: np.ndarray) -> np.ndarray:
    """Return the same rotation (3,) by at most half a turn, so that neighbours have near numbers."""
    angle = float(np.linalg.norm(rotation_rad))
    if angle <= np.pi:
        return rotation_rad
    return rotation_rad * (1 - 2 * np.pi * round(angle / (2 * np.pi)) / angle)
