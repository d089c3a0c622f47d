"""The one-euro filter (Casiez et al. 2012): what rests lies still, what moves is followed closely."""

import math
from typing import Generic, TypeVar

import numpy as np

Value = TypeVar("Value", float, np.ndarray)
_SLOPE_CUTOFF = 1.0


class OneEuroFilter(Generic[Value]):
    """Low-pass filter whose cutoff grows with the speed of what it follows, of a number or of an array as a whole.

    Args:
        cutoff: at rest, in cycles per unit of time.
        gain: of the cutoff per unit of speed; the speed of an array is the root mean square of its numbers' speeds.
    """

    def __init__(self, cutoff: float, gain: float) -> None:
        self.cutoff, self.gain = cutoff, gain
        self._time: float | None = None

    def smooth(self, value: Value, time: float) -> Value:
        """Return the smoothed value; the first one is returned as it is.

        Raises:
            ValueError: a time that is not after the last one.
        """
        if self._time is None:
            self._time, self._value, self._slope = time, value, 0 * value
            return value
        step = time - self._time
        if not step > 0:
            raise ValueError(f"time: expected after {self._time}, got {time}")
        slope = _blend(self._slope, (value - self._value) / step, _SLOPE_CUTOFF, step)
        speed = math.sqrt(np.mean(np.square(slope)))
        self._value = _blend(self._value, value, self.cutoff + self.gain * speed, step)
        self._time, self._slope = time, slope
        return self._value


def _blend(old: Value, new: Value, cutoff: float, step: float) -> Value:
    weight = 2 * math.pi * cutoff * step
    share = weight / (weight + 1)
    return share * new + (1 - share) * old
