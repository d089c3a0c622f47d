"""seq(shape; a) = sin(a j + 0.1) of the specification's small conformance cases, j the flat index."""

import math

import torch


def wave(*shape: int, frequency: float = 0.37) -> torch.Tensor:
    """Return float32 sin(frequency * j + 0.1) of the flat index j, computed in float64."""
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(frequency * index + 0.1).float().view(shape)
