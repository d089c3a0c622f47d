"""Ray marching: densities along a ray to weights, and weights to pixels (`rendering.md` section 6)."""

from torch import Tensor
from torch.nn import functional

from portrait4d.ops.ray_march import Weights, march

__all__ = ["Weights", "march", "sample_weights"]


def sample_weights(weights: Tensor) -> Tensor:
    """Share interval weights (..., S - 1) among the samples (..., S) at their ends.

    sum_k w_k (c_k + c_{k+1}) / 2 = sum_s c_s (w_{s-1} + w_s) / 2: colours need no averaging, and no sorting.
    """
    return (functional.pad(weights, (1, 0)) + functional.pad(weights, (0, 1))) / 2
