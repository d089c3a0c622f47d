"""What keeps a radiance field tidy: smooth densities, compact surfaces, and no face inside eyes and mouth.

Source: training-genhead.md §7. Everything is float32, for each sample, before the mean over the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.rendering.part_renderer import PartRays

POINTS_PER_SAMPLE = 1000


@dataclass(frozen=True)
class PartWeights:
    """Factors of the terms of eyes and mouth, §7 "Gmain"."""

    density: float = 10.0
    distortion: float = 100.0
    opacity: float = 100.0


class PartPenalties(NamedTuple):
    """Terms of eyes or mouth, (B,) each, factors included.

    Attributes:
        density: density that the face's planes have where this part should be.
        distortion: how much the part's surface is smeared along its rays.
        opacity: how much background is seen through the part.
    """

    density: Tensor
    distortion: Tensor
    opacity: Tensor


def ray_distortion(distances: Tensor, weights: Tensor) -> Tensor:
    """Measure how far the weights of rays are spread (distortion loss of mip-NeRF 360).

    sum_ij w_i w_j |u_i - u_j| + 1/3 sum_i w_i^2 (t_{i+1} - t_i), u_i = (t_i + t_{i+1}) / 2. As the u ascend, the double
    sum is 2 sum_i w_i (u_i sum_{j<i} w_j - sum_{j<i} w_j u_j): linear in S.

    Args:
        distances: (..., S) t, ascending, world units.
        weights: (..., S - 1) w, of the intervals.

    Returns:
        (...), world units.

    Raises:
        ValueError: if there are not S - 1 weights.
    """
    if weights.shape[:-1] != distances.shape[:-1] or weights.shape[-1] != distances.shape[-1] - 1:
        expected = (*distances.shape[:-1], distances.shape[-1] - 1)
        raise ValueError(f"weights: expected shape {tuple(expected)}, got {tuple(weights.shape)}")
    step = distances[..., 1:] - distances[..., :-1]
    # The double sum does not depend on where distances are counted from; near zero they keep their digits.
    middle = (distances[..., 1:] + distances[..., :-1]) / 2 - distances[..., :1].detach()
    moment = weights * middle
    before = weights.cumsum(-1) - weights, moment.cumsum(-1) - moment
    between = 2 * (weights * (middle * before[0] - before[1])).sum(-1)
    return between + (weights.square() * step).sum(-1) / 3


def part_penalties(
    mask: Tensor, face_densities: Tensor, distortion: Tensor, transmittance: Tensor, weights: PartWeights
) -> PartPenalties:
    """Compute the terms of one part, each a mean over all rays, those that do not see the part included (§7 "Gmain").

    Args:
        mask: (B, R) in [0, 1], how much of the part each ray shows.
        face_densities: (B, R, S) raw density of the face's planes in the part.
        distortion: (B, R) of `ray_distortion`.
        transmittance: (B, R) in [0, 1].
        weights: factors.

    Raises:
        ValueError: if the numbers of rays differ.
    """
    rays = {"face_densities": face_densities.shape[:2], "distortion": distortion.shape}
    for name, shape in (rays | {"transmittance": transmittance.shape}).items():
        if shape != mask.shape:
            raise ValueError(f"{name}: expected samples and rays {tuple(mask.shape)} as the mask, got {tuple(shape)}")
    return PartPenalties(
        weights.density * (functional.softplus(face_densities).mean(dim=2) * mask).mean(dim=1),
        weights.distortion * (distortion * mask).mean(dim=1),
        weights.opacity * (transmittance * mask).mean(dim=1),
    )


def eye_and_mouth_penalties(
    rays: PartRays, eye_mask: Tensor, mouth_mask: Tensor, weights: PartWeights | None = None
) -> tuple[PartPenalties, PartPenalties]:
    """Compute the terms of the eyes and those of the mouth of rendered heads.

    Args:
        rays: (B, R, ...) results of the renderer.
        eye_mask, mouth_mask: (B, 1, H, W) or (B, R) in [0, 1], R = H W.
        weights: factors; default `PartWeights()`.

    Raises:
        ValueError: if masks and rays differ in number.
    """
    weights = weights or PartWeights()
    distortion = ray_distortion(rays.distances, rays.weights)
    eye, mouth = (
        part_penalties(mask.flatten(1), densities, distortion, rays.transmittance, weights)
        for mask, densities in (
            (eye_mask, rays.face_densities_in_eyes),
            (mouth_mask, rays.face_densities_in_mouth),
        )
    )
    return eye, mouth


def pair_points(uniform: Tensor, normal: Tensor, spread: float) -> Tensor:
    """Turn draws into points and their neighbours, §7 "Greg".

    Args:
        uniform: (B, N, 3) in [0, 1).
        normal: (B, N, 3) of variance 1.
        spread: standard deviation of the steps to the neighbours, world units.

    Returns:
        (B, 2 N, 3) in world units: points in the cube from -1 to 1, then the neighbour of each.
    """
    points = 2 * uniform - 1
    return torch.cat([points, points + spread * normal], dim=1)


def sample_point_pairs(
    batch: int,
    spread: float,
    count: int = POINTS_PER_SAMPLE,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw points and their neighbours (batch, 2 count, 3), see `pair_points`; `generator` is one of the device."""
    shape = (batch, count, 3)
    uniform = torch.rand(shape, generator=generator, device=device)
    return pair_points(uniform, torch.randn(shape, generator=generator, device=device), spread)


def density_roughness(densities: Sequence[Tensor]) -> Tensor:
    """Return the mean absolute difference of densities between points and neighbours, averaged over fields.

    Args:
        densities: of each field (eye, face, mouth, or only one), (B, 2 N) raw densities at points of `pair_points`.

    Returns:
        A scalar, without the factor (`density_reg`).

    Raises:
        ValueError: on no fields, or an odd number of points.
    """
    if not densities:
        raise ValueError("densities: expected those of at least one field, got none")
    odd = [tuple(field.shape) for field in densities if field.ndim != 2 or field.shape[1] % 2]
    if odd:
        raise ValueError(f"densities: expected shape (B, 2 N), got {odd[0]}")
    pairs = [field.chunk(2, dim=1) for field in densities]
    return torch.stack([functional.l1_loss(here, there) for here, there in pairs]).mean()
