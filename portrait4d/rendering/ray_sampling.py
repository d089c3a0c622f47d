"""Where along the rays the field is evaluated: stratified, then importance distances (`rendering.md` 3 and 6.2)."""

from typing import NamedTuple

import torch
from torch import Tensor


class Jitter(NamedTuple):
    """The random numbers of one rendering.

    Attributes:
        stratified: (B, D) in [0, 1), one offset for each coarse sample, shared by all rays of a picture.
        importance: (B, R or 1, I) in [0, 1), the quantiles of the importance samples.
    """

    stratified: Tensor
    importance: Tensor


def midpoint_jitter(batch: int, depth_samples: int, importance_samples: int, device: torch.device | str) -> Jitter:
    """Return the deterministic jitter: coarse 1/2, importance quantiles (k + 1/2) / I. Repeatable, free of flicker."""
    quantiles = (torch.arange(importance_samples, dtype=torch.float32, device=device) + 0.5) / importance_samples
    half = torch.full((batch, depth_samples), 0.5, device=device)
    return Jitter(half, quantiles.expand(batch, 1, importance_samples))


def sample_jitter(
    batch: int, rays: int, depth_samples: int, importance_samples: int, generator: torch.Generator | None
) -> Jitter:
    """Draw uniform jitter on the generator's device (CPU without one), whole pictures at once."""
    device = generator.device if generator is not None else "cpu"
    stratified = torch.rand(batch, depth_samples, generator=generator, device=device)
    return Jitter(stratified, torch.rand(batch, rays, importance_samples, generator=generator, device=device))


def stratified_distances(centre_distance: Tensor, box_warp: float | Tensor, jitter: Tensor) -> Tensor:
    """Return coarse distances (B, D): t_k = near + k / (D-1) (far - near) + jitter_k (far - near) / (D-1).

    The range is centre_distance -+ box_warp / 2, as if ray distance were depth; the last sample may lie beyond.

    Args:
        centre_distance: (B,) distance of the cube's centre.
        box_warp: side of the cube, world units, or one for each picture (B,).
        jitter: (B, D) in [0, 1).
    """
    count = jitter.shape[1]
    near, far = (centre_distance - box_warp / 2)[:, None], (centre_distance + box_warp / 2)[:, None]
    steps = torch.arange(count, dtype=jitter.dtype, device=jitter.device) / (count - 1)
    return near + steps * (far - near) + jitter * ((far - near) / (count - 1))


@torch.no_grad()
def importance_distances(distances: Tensor, weights: Tensor, quantiles: Tensor) -> Tensor:
    """Draw distances where the coarse pass found weight.

    Args:
        distances: (..., D) coarse distances, ascending.
        weights: (..., D - 1) coarse weights of the intervals.
        quantiles: (..., I) in [0, 1].

    Returns:
        (..., I) distances, ascending if the quantiles are.
    """
    ends = torch.nn.functional.pad(weights, (1, 1), value=-torch.inf)
    largest = torch.maximum(ends[..., :-1], ends[..., 1:])
    smoothed = (largest[..., :-1] + largest[..., 1:]) / 2 + 0.01
    middles = (distances[..., :-1] + distances[..., 1:]) / 2
    density = smoothed[..., 1:-1] + 1e-5
    density = density / density.sum(-1, keepdim=True)
    cumulative = torch.nn.functional.pad(density.cumsum(-1), (1, 0))
    above = torch.searchsorted(cumulative, quantiles.expand(*cumulative.shape[:-1], -1).contiguous(), right=True)
    low = (above - 1).clamp_min(0)
    high = above.clamp_max(cumulative.shape[-1] - 1)
    cdf_low, cdf_high = cumulative.gather(-1, low), cumulative.gather(-1, high)
    middle_low, middle_high = middles.gather(-1, low), middles.gather(-1, high)
    width = cdf_high - cdf_low
    width = torch.where(width < 1e-5, 1.0, width)
    return middle_low + (quantiles - cdf_low) / width * (middle_high - middle_low)
