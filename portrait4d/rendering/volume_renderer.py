"""Two-pass volume rendering of any radiance field (`rendering.md` sections 6.3 and 7)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.config.networks import VolumeConfig
from portrait4d.rendering.compositing import march, sample_weights
from portrait4d.rendering.ray_sampling import Jitter, importance_distances, stratified_distances
from portrait4d.rendering.rays import Rays


class FieldSample(NamedTuple):
    """A radiance field at points: `features` (B, N, C) and raw `densities` (B, N), before softplus."""

    features: Tensor
    densities: Tensor


Field = Callable[[Tensor], FieldSample]
"""Points (B, N, 3) in world units to a FieldSample."""


class RenderedRays(NamedTuple):
    """What the volume renderer returns for each ray.

    Attributes:
        features: (B, R, C), weighted by opacity (empty space gives 0).
        depth: (B, R) distance along the ray, world units.
        transmittance: (B, R) in [0, 1], how much of the background is seen.
        distances: (B, R, S) sorted sample distances, coarse and importance.
        weights: (B, R, S - 1) of the intervals between them.
    """

    features: Tensor
    depth: Tensor
    transmittance: Tensor
    distances: Tensor
    weights: Tensor


def render_rays(
    field: Field, rays: Rays, jitter: Jitter, config: VolumeConfig, chunk: int | None = None, box_scale: float = 1.0
) -> RenderedRays:
    """Render rays: a coarse pass, importance sampling, a fine pass, one march over all samples.

    Args:
        field: the radiance field.
        rays: origins, directions and the cube's distance.
        jitter: random or deterministic offsets for the whole picture; chunks share them, so they leave no seams.
        config: samples per ray and box size.
        chunk: rays evaluated at once (bounds the memory); None for all.
        box_scale: factor on the box size of the depth range.

    Raises:
        ValueError: if chunk is not positive.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected a positive number of rays, got {chunk}")
    coarse = stratified_distances(rays.centre_distance, config.box_warp * box_scale, jitter.stratified)
    ray_count = rays.origins.shape[1]
    step = chunk or max(ray_count, 1)
    parts = []
    for start in range(0, max(ray_count, 1), step):
        part = slice(start, start + step)
        quantiles = jitter.importance if jitter.importance.shape[1] == 1 else jitter.importance[:, part]
        parts.append(_render_part(field, rays.origins[:, part], rays.directions[:, part], coarse, quantiles))
    if len(parts) == 1:
        return parts[0]
    return RenderedRays(*(torch.cat(values, dim=1) for values in zip(*parts, strict=True)))


def _render_part(field: Field, origins: Tensor, directions: Tensor, coarse: Tensor, quantiles: Tensor) -> RenderedRays:
    batch, ray_count = origins.shape[:2]
    coarse = coarse[:, None].expand(batch, ray_count, -1)
    near_features, near_densities = _evaluate(field, origins, directions, coarse)
    coarse_weights = march(near_densities.detach(), coarse).weights
    fine = importance_distances(coarse, coarse_weights, quantiles)
    far_features, far_densities = _evaluate(field, origins, directions, fine)

    distances, order = torch.cat([coarse, fine], dim=2).sort(dim=2)
    densities = torch.cat([near_densities, far_densities], dim=2).gather(2, order)
    weights, depth, transmittance = march(densities, distances)
    unsorted = torch.zeros_like(distances).scatter(2, order, sample_weights(weights))
    near_weights, far_weights = unsorted.split([coarse.shape[2], fine.shape[2]], dim=2)
    features = _weighted_sum(near_weights, near_features) + _weighted_sum(far_weights, far_features)
    return RenderedRays(features, depth, transmittance, distances, weights)


def _evaluate(field: Field, origins: Tensor, directions: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate the field at distances (B, R, S): features (B, R, S, C), densities (B, R, S)."""
    points = origins[:, :, None] + distances[..., None] * directions[:, :, None]
    sample = field(points.flatten(1, 2))
    return sample.features.unflatten(1, distances.shape[1:]), sample.densities.unflatten(1, distances.shape[1:])


def _weighted_sum(weights: Tensor, features: Tensor) -> Tensor:
    """Return sum_s weights (B, R, S) features (B, R, S, C) as (B, R, C)."""
    return torch.matmul(weights[:, :, None], features)[:, :, 0]
