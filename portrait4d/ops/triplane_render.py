"""Fused rendering of tri-planes for inference: from rays to pixels without a tensor of samples in between.

Contract: what `rendering/volume_renderer.py` computes for a field of tri-planes behind a head-pose deformation and in
front of a two-layer perceptron (`rendering.md` sections 3 to 7): coarse samples, deformation, lookup, decoder, weights,
importance samples, the same again, merge and march. That renderer is the PyTorch version (`render_rays_reference`
there): it is made of the other layers' functions, which ops may not import, and serves wherever this operation does
not. No gradients.

Colours of samples whose weight is below 1e-9 are left out.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.ops.backend import native_serves
from portrait4d.ops.gradients import is_tracked
from portrait4d.ops.triplane_fetch import check_table

MIN_COARSE_SAMPLES = 4


class DecoderWeights(NamedTuple):
    """Perceptron with H hidden units from F plane features to O colour features and a density.

    h = softplus(hidden_weight f + hidden_bias); density = density_weight h + density_bias; colours = 1.002
    sigmoid(colour_weight h + colour_bias) - 0.001.

    Attributes:
        hidden_weight: (H, F). hidden_bias: (H,).
        density_weight: (1, H). density_bias: (1,).
        colour_weight: (O, H). colour_bias: (O,).
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    density_weight: Tensor
    density_bias: Tensor
    colour_weight: Tensor
    colour_bias: Tensor


class HeadPoseGrids(NamedTuple):
    """Deformation grids over the cube (`deformation.md` section 4).

    Attributes:
        fine: (B, r, r, r, 4) offsets x, y, z and squared distance to the mesh, axes (x index, y index, z index).
        coarse: (B, q, q, q, 4) smoothed offsets and a channel that is not read.
        fine_ends, coarse_ends: outermost cell centres, world units.
        threshold: squared distance up to which the fine grid rules.
        falloff: of its share beyond.
    """

    fine: Tensor
    coarse: Tensor
    fine_ends: tuple[float, float]
    coarse_ends: tuple[float, float]
    threshold: float
    falloff: float


class TriplaneScene(NamedTuple):
    """What is rendered: `table` (B, 3, H + 4, W + 4, F) of planes over a cube of side `box_warp`, decoder, grids."""

    table: Tensor
    box_warp: float
    decoder: DecoderWeights
    grids: HeadPoseGrids | None


class RaySamples(NamedTuple):
    """Which rays are rendered, and where.

    Attributes:
        origins, directions: (B, R, 3), world units and unit length.
        distances: (B, D) of the coarse samples, ascending, D >= 4.
        quantiles: (B, R or 1, I) in [0, 1] of the importance samples, I >= 1.
    """

    origins: Tensor
    directions: Tensor
    distances: Tensor
    quantiles: Tensor


class TriplaneRays(NamedTuple):
    """`features` (B, R, O), `depth` and `transmittance` (B, R), sorted `distances` (B, R, S), `weights` (B, R, S - 1).

    The last two have no samples (S = 0) unless they were asked for.
    """

    features: Tensor
    depth: Tensor
    transmittance: Tensor
    distances: Tensor
    weights: Tensor


def triplane_render_serves(scene: TriplaneScene, rays: RaySamples) -> bool:
    """Tell whether `triplane_render` can do a job: native operations, float32, no gradients, sizes it knows."""
    tensors = [scene.table, *scene.decoder, *rays]
    if scene.grids is not None:
        tensors += [scene.grids.fine, scene.grids.coarse]
    if is_tracked(*tensors):
        return False
    return _sizes_fit(scene, rays) and native_serves(*tensors)


def triplane_render(scene: TriplaneScene, rays: RaySamples, keep_samples: bool = False) -> TriplaneRays:
    """Render rays through tri-planes.

    Args:
        scene: planes, decoder and deformation.
        rays: origins, directions and sample positions.
        keep_samples: whether distances and weights of the samples are returned as well.

    Raises:
        ValueError: on shapes that do not fit together.
        RuntimeError: where `triplane_render_serves` is False.
    """
    _check(scene, rays)
    if not triplane_render_serves(scene, rays):
        raise RuntimeError("triplane_render: no native operation serves; use rendering.volume_renderer.render_rays")
    grids, tensors, numbers = scene.grids, [], []
    if grids is not None:
        tensors = [grids.fine, grids.coarse]
        numbers = [*grids.fine_ends, *grids.coarse_ends, grids.threshold, grids.falloff]
    results = torch.ops.portrait4d.triplane_render(
        scene.table, scene.box_warp, list(scene.decoder), tensors, numbers, list(rays), keep_samples
    )
    return TriplaneRays(*results)


def _sizes_fit(scene: TriplaneScene, rays: RaySamples) -> bool:
    """Tell whether a kernel exists: the CPU's takes any sizes, the GPU's what fits its registers and shared memory."""
    if rays.distances.shape[1] < MIN_COARSE_SAMPLES or rays.quantiles.shape[2] < 1:
        return False
    if scene.table.device.type == "cpu":
        return True
    channels, (outputs, hidden) = scene.table.shape[4], scene.decoder.colour_weight.shape
    samples = rays.distances.shape[1] + rays.quantiles.shape[2]
    return channels == outputs and channels in (8, 16, 32) and hidden <= 128 and samples <= 192


def _check(scene: TriplaneScene, rays: RaySamples) -> None:
    check_table(scene.table)
    batch, channels = scene.table.shape[0], scene.table.shape[4]
    hidden, outputs = scene.decoder.hidden_weight.shape[0], scene.decoder.colour_weight.shape[0]
    count, coarse, fine = rays.origins.shape[1], rays.distances.shape[-1], rays.quantiles.shape[-1]
    quantile_rays = 1 if rays.quantiles.shape[1] == 1 else count
    expected = {
        "hidden_weight": (scene.decoder.hidden_weight, (hidden, channels)),
        "hidden_bias": (scene.decoder.hidden_bias, (hidden,)),
        "density_weight": (scene.decoder.density_weight, (1, hidden)),
        "density_bias": (scene.decoder.density_bias, (1,)),
        "colour_weight": (scene.decoder.colour_weight, (outputs, hidden)),
        "colour_bias": (scene.decoder.colour_bias, (outputs,)),
        "origins": (rays.origins, (batch, count, 3)),
        "directions": (rays.directions, (batch, count, 3)),
        "distances": (rays.distances, (batch, coarse)),
        "quantiles": (rays.quantiles, (batch, quantile_rays, fine)),
    }
    if scene.grids is not None:
        for name, grid in (("fine", scene.grids.fine), ("coarse", scene.grids.coarse)):
            expected[name] = (grid, (batch, *(grid.shape[1],) * 3, 4))
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
