"""One-euro smoothing of how a face lies in the frames of a film (Casiez et al. 2012): steady faces lie still.

Source: preprocess-pipeline.md §5.5.
"""

import math

from data_preprocess.portrait_crop import Placement

_SLOPE_CUTOFF = 1.0
_SCALE_CUTOFF, _SCALE_GAIN = 0.0001, 0.005
_SHIFT_CUTOFF, _SHIFT_GAIN = 0.001, 0.05


class OneEuroFilter:
    """Low-pass filter whose cutoff grows with the speed of what it follows.

    Args:
        cutoff: at rest, in cycles per unit of time.
        gain: of the cutoff per unit of speed.
    """

    def __init__(self, cutoff: float, gain: float) -> None:
        self.cutoff, self.gain = cutoff, gain
        self._time: float | None = None
        self._value = self._slope = 0.0

    def smooth(self, value: float, time: float) -> float:
        """Return the smoothed value; the first one is returned as it is.

        Raises:
            ValueError: a time that is not after the last one.
        """
        if self._time is None:
            self._time, self._value = time, value
            return value
        step = time - self._time
        if not step > 0:
            raise ValueError(f"time: expected after {self._time}, got {time}")
        slope = _blend(self._slope, (value - self._value) / step, _SLOPE_CUTOFF, step)
        self._value = _blend(self._value, value, self.cutoff + self.gain * abs(slope), step)
        self._time, self._slope = time, slope
        return self._value


class PlacementSmoother:
    """Smooth the placements of one face; make a new one for each film, and where a face was lost for long."""

    def __init__(self) -> None:
        self._scale = OneEuroFilter(_SCALE_CUTOFF, _SCALE_GAIN)
        self._shift = [OneEuroFilter(_SHIFT_CUTOFF, _SHIFT_GAIN) for _ in range(2)]

    def smooth(self, placement: Placement, frame: int) -> Placement:
        """Return the smoothed placement of a frame, whose numbers grow.

        Raises:
            ValueError: a number that is not after the last one.
        """
        scale = self._scale.smooth(placement.scale, frame)
        x, y = (one.smooth(value, frame) for one, value in zip(self._shift, placement.shift, strict=True))
        return Placement(scale, (x, y))


def _blend(old: float, new: float, cutoff: float, step: float) -> float:
    weight = 2 * math.pi * cutoff * step
    share = weight / (weight + 1)
    return share * new + (1 - share) * old
