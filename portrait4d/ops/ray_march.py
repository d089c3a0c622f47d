"""Densities along a ray to weights (`rendering.md` section 6).

Contract, for raw densities d at ascending distances t: delta_k = t_{k+1} - t_k; sigma_k = softplus(mean of neighbours
- 1); alpha = 1 - exp(-sigma delta); w_k = alpha_k prod_{j<k} (1 - alpha_j + 1e-10); depth = sum w t / sum w, within the
distances even for an empty ray; transmittance = 1 - sum w. Differentiable with respect to densities and distances.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.ops.backend import native_serves


class Weights(NamedTuple):
    """Interval weights of rays: `weights` (..., S - 1), `depth` (...), `transmittance` (...)."""

    weights: Tensor
    depth: Tensor
    transmittance: Tensor


def march(densities: Tensor, distances: Tensor) -> Weights:
    """Turn raw densities at ascending distances into interval weights.

    Args:
        densities: (..., S) raw, before softplus, S >= 2.
        distances: (..., S) of the same type.

    Raises:
        ValueError: on other shapes or types.
    """
    if densities.shape != distances.shape or densities.shape[-1] < 2:
        shapes = tuple(densities.shape), tuple(distances.shape)
        raise ValueError(f"densities and distances: expected one shape (..., S >= 2), got {shapes[0]} and {shapes[1]}")
    if not native_serves(densities, distances):
        return march_reference(densities, distances)
    *rays, samples = densities.shape
    rows = (numbers.reshape(math.prod(rays), samples) for numbers in (densities, distances))
    weights, depth, transmittance = torch.ops.portrait4d.march_rays(*rows)
    return Weights(weights.view(*rays, samples - 1), depth.view(rays), transmittance.view(rays))


def march_reference(densities: Tensor, distances: Tensor) -> Weights:
    """Do the same in PyTorch."""
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
