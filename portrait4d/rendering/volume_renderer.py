"""Two-pass volume rendering of any radiance field (`rendering.md` sections 6.3 and 7)."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from portrait4d.config.networks import VolumeConfig
from portrait4d.ops.triplane_render import RaySamples, triplane_render, triplane_render_serves
from portrait4d.rendering.compositing import march, sample_weights
from portrait4d.rendering.field import Field, FieldSample
from portrait4d.rendering.plane_field import PlaneField
from portrait4d.rendering.ray_sampling import Jitter, importance_distances, stratified_distances
from portrait4d.rendering.rays import Rays


class RenderedRays(NamedTuple):
    """What the volume renderer returns for each ray.

    Attributes:
        features: (B, R, C), weighted by opacity (empty space gives 0).
        depth: (B, R) distance along the ray, world units.
        transmittance: (B, R) in [0, 1], how much of the background is seen.
        distances: (B, R, S) sorted sample distances, coarse and importance; S = 0 where samples are not kept.
        weights: (B, R, S - 1) of the intervals between them; none where samples are not kept.
    """

    features: Tensor
    depth: Tensor
    transmittance: Tensor
    distances: Tensor
    weights: Tensor


Results = TypeVar("Results", bound=tuple)
Samples = TypeVar("Samples", bound=tuple)


def render_rays(
    field: Field,
    rays: Rays,
    jitter: Jitter,
    config: VolumeConfig,
    chunk: int | None = None,
    box_scale: float = 1.0,
    keep_samples: bool = True,
) -> RenderedRays:
    """Render rays: a coarse pass, importance sampling, a fine pass, one march over all samples.

    A `PlaneField` without gradients is rendered by the fused operation where that serves, any other by calling it.

    Args:
        field: the radiance field.
        rays: origins, directions and the cube's distance.
        jitter: random or deterministic offsets for the whole picture; chunks share them, so they leave no seams.
        config: samples per ray and box size.
        chunk: rays evaluated at once (bounds the memory); None for all.
        box_scale: factor on the box size of the depth range.
        keep_samples: whether distances and weights of the samples are returned; the fused operation saves them.

    Raises:
        ValueError: if chunk is not positive.
    """
    if isinstance(field, PlaneField):
        distances = stratified_distances(rays.centre_distance, config.box_warp * box_scale, jitter.stratified)
        samples = RaySamples(rays.origins, rays.directions, distances, jitter.importance)
        scene = field.scene()
        if triplane_render_serves(scene, samples):
            return RenderedRays(*triplane_render(scene, samples, keep_samples))
    rendered = render_rays_reference(field, rays, jitter, config, chunk, box_scale)
    if keep_samples:
        return rendered
    return rendered._replace(distances=rendered.distances[..., :0], weights=rendered.weights[..., :0])


def render_rays_reference(
    field: Field, rays: Rays, jitter: Jitter, config: VolumeConfig, chunk: int | None = None, box_scale: float = 1.0
) -> RenderedRays:
    """Do the same by calling the field, which may be any; the parameters are those of `render_rays`."""
    coarse = stratified_distances(rays.centre_distance, config.box_warp * box_scale, jitter.stratified)

    def render_part(part: slice) -> RenderedRays:
        def evaluate(distances: Tensor) -> FieldSample:
            sample = field(ray_points(rays, part, distances).flatten(1, 2))
            return FieldSample(*(value.unflatten(1, distances.shape[1:]) for value in sample))

        return render_two_passes(evaluate, *pass_inputs(rays, part, coarse, jitter))[0]

    return render_in_chunks(render_part, rays.origins.shape[1], chunk)


def render_in_chunks(render_part: Callable[[slice], Results], ray_count: int, chunk: int | None) -> Results:
    """Render consecutive parts of a picture's rays and join them.

    Args:
        render_part: a part of the rays to a NamedTuple of tensors (B, rays of the part, ...).
        ray_count: rays of the picture; there is one part, an empty one, if it has none.
        chunk: rays in a part; None for all.

    Raises:
        ValueError: if chunk is not positive.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected a positive number of rays, got {chunk}")
    step = chunk or max(ray_count, 1)
    parts = [render_part(slice(start, start + step)) for start in range(0, max(ray_count, 1), step)]
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(torch.cat(values, dim=1) for values in zip(*parts, strict=True)))


def render_two_passes(
    evaluate: Callable[[Tensor], Samples], coarse: Tensor, quantiles: Tensor
) -> tuple[RenderedRays, Samples, Samples]:
    """Render rays in two passes (section 6.3): the second where the first found weight, then one march over both.

    Args:
        evaluate: distances (B, R, S) along the rays to a tuple with `features` (B, R, S, C) and raw `densities`
            (B, R, S) there.
        coarse: (B, R, D) distances of the first pass, ascending.
        quantiles: (B, R or 1, I) in [0, 1] of the second.

    Returns:
        The rays, and what `evaluate` gave in the first and in the second pass.
    """
    near = evaluate(coarse)
    fine = importance_distances(coarse, march(near.densities.detach(), coarse).weights, quantiles)
    far = evaluate(fine)
    distances, order = torch.cat([coarse, fine], dim=2).sort(dim=2)
    densities = torch.cat([near.densities, far.densities], dim=2).gather(2, order)
    weights, depth, transmittance = march(densities, distances)
    unsorted = torch.zeros_like(distances).scatter(2, order, sample_weights(weights))
    near_weights, far_weights = unsorted.split([coarse.shape[2], fine.shape[2]], dim=2)
    features = _weighted_sum(near_weights, near.features) + _weighted_sum(far_weights, far.features)
    return RenderedRays(features, depth, transmittance, distances, weights), near, far


def pass_inputs(rays: Rays, part: slice, coarse: Tensor, jitter: Jitter) -> tuple[Tensor, Tensor]:
    """Return distances (B, r, D) and quantiles for `render_two_passes` of a part of r rays; `coarse` is (B, D)."""
    quantiles = jitter.importance if jitter.importance.shape[1] == 1 else jitter.importance[:, part]
    return coarse[:, None].expand(-1, rays.origins[:, part].shape[1], -1), quantiles


def ray_points(rays: Rays, part: slice, distances: Tensor) -> Tensor:
    """Return the points (B, r, S, 3) at distances (B, r, S) along a part of r rays."""
    return rays.origins[:, part, None] + distances[..., None] * rays.directions[:, part, None]


def _weighted_sum(weights: Tensor, features: Tensor) -> Tensor:
    """Return sum_s weights (B, R, S) features (B, R, S, C) as (B, R, C)."""
    return torch.matmul(weights[:, :, None], features)[:, :, 0]
