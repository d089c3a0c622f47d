"""Ray marching: densities along a ray to weights, and weights to pixels (`rendering.md` section 6)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Weights(NamedTuple):
    """Interval weights of rays: `weights` (..., S - 1), `depth` (...), `transmittance` (...)."""

    weights: Tensor
    depth: Tensor
    transmittance: Tensor


def march(densities: Tensor, distances: Tensor) -> Weights:
    """Turn raw densities at ascending distances into interval weights.

    delta_k = t_{k+1} - t_k; sigma = softplus(mean of neighbours - 1); alpha = 1 - exp(-sigma delta);
    w_k = alpha_k prod_{j<k} (1 - alpha_j + 1e-10); depth = sum w t / sum w, within the distances even for an empty ray.

    Args:
        densities: (..., S) raw, before softplus.
        distances: (..., S).
    """
    step = distances[..., 1:] - distances[..., :-1]
    middle = (distances[..., 1:] + distances[..., :-1]) / 2
    density = functional.softplus((densities[..., 1:] + densities[..., :-1]) / 2 - 1)
    alpha = 1 - torch.exp(-density * step)
    through = torch.cumprod(functional.pad(1 - alpha[..., :-1] + 1e-10, (1, 0), value=1.0), dim=-1)
    weights = alpha * through
    total = weights.sum(-1)
    depth = (weights * middle).sum(-1) / total
    depth = torch.nan_to_num(depth, nan=torch.inf).clamp(distances[..., 0], distances[..., -1])
    return Weights(weights, depth, 1 - total)


def sample_weights(weights: Tensor) -> Tensor:
    """Share interval weights (..., S - 1) among the samples (..., S) at their ends.

    sum_k w_k (c_k + c_{k+1}) / 2 = sum_s c_s (w_{s-1} + w_s) / 2: colours need no averaging, and no sorting.
    """
    return (functional.pad(weights, (1, 0)) + functional.pad(weights, (0, 1))) / 2
