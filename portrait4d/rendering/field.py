"""What a radiance field is."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class FieldSample(NamedTuple):
    """A radiance field at points: `features` (B, N, C) and raw `densities` (B, N), before softplus."""

    features: Tensor
    densities: Tensor


Field = Callable[[Tensor], FieldSample]
"""Points (B, N, 3) in world units to a FieldSample."""
