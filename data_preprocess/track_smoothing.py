"""One-euro smoothing of how a face lies in the frames of a film (Casiez et al. 2012): steady faces lie still.

Source: preprocess-pipeline.md §5.5.
"""

from data_preprocess.portrait_crop import Placement
from portrait4d.geometry.one_euro import OneEuroFilter

_SCALE_CUTOFF, _SCALE_GAIN = 0.0001, 0.005
_SHIFT_CUTOFF, _SHIFT_GAIN = 0.001, 0.05


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
