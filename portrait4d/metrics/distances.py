"""Distances between sets of feature vectors: FID, KID, precision and recall, and the inception score. Pure functions.

Source: metrics.md section 5.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NEGATIVE_TOLERANCE = 1e-6
"""A covariance may have eigenvalues below zero by this share of its largest one: rounding. They count as zero."""


class Moments(NamedTuple):
    """`mean` (D,) and population `covariance` (D, D) of a set."""

    mean: np.ndarray
    covariance: np.ndarray


class PrecisionRecall(NamedTuple):
    """Share of fakes within the reals, and of reals within the fakes; 0 to 1."""

    precision: float
    recall: float


class ScoreStatistics(NamedTuple):
    """`mean` and population standard deviation `std` over splits."""

    mean: float
    std: float


def frechet_distance(a: Moments, b: Moments) -> float:
    """Compute FID = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)).

    The trace of the last root is the sum of the singular values of S_a^(1/2) S_b^(1/2), with symmetric roots: no
    complex numbers arise, and rank-deficient covariances (fewer items than features) do no harm.

    Raises:
        ValueError: shapes that differ, numbers that are not finite, or a matrix that is no covariance.
    """
    for name, moments in (("a", a), ("b", b)):
        dim = len(a.mean)
        if moments.mean.shape != (dim,) or moments.covariance.shape != (dim, dim):
            got = f"{moments.mean.shape} and {moments.covariance.shape}"
            raise ValueError(f"{name}: expected shapes ({dim},) and ({dim}, {dim}), got {got}")
        if not (np.isfinite(moments.mean).all() and np.isfinite(moments.covariance).all()):
            raise ValueError(f"{name}: expected finite moments, got NaN or infinity")
    roots = _symmetric_root("a", a.covariance) @ _symmetric_root("b", b.covariance)
    overlap = np.linalg.svd(roots, compute_uv=False)
    shift = np.asarray(a.mean, np.float64) - np.asarray(b.mean, np.float64)
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap.sum()
    return float(shift @ shift + spread)


def frechet_distance_of_features(a: Tensor, b: Tensor) -> float:
    """Compute the same FID from the vectors (N, D) and (M, D) themselves, which is quick where these are few.

    With centred rows X, Y the covariances are X'X / N and Y'Y / M, and the singular values of S_a^(1/2) S_b^(1/2) are
    those of X Y' / sqrt(N M).

    Raises:
        ValueError: other shapes, or numbers that are not finite.
    """
    _require_sets(a, b)
    if not (len(a) and len(b) and a.isfinite().all() and b.isfinite().all()):
        raise ValueError(f"a, b: expected at least one vector each and finite numbers, got {len(a)} and {len(b)}")
    x, y = a.double(), b.double()
    shift = x.mean(dim=0) - y.mean(dim=0)
    x, y = ((values - values.mean(dim=0)) / len(values) ** 0.5 for values in (x, y))
    overlap = torch.linalg.svdvals(x @ y.T)
    return float(shift @ shift + x.square().sum() + y.square().sum() - 2 * overlap.sum())


def kernel_distance(
    real: Tensor,
    fake: Tensor,
    subsets: int = 100,
    subset_size: int = 1000,
    generator: torch.Generator | None = None,
) -> float:
    """Compute KID, the unbiased squared maximum mean discrepancy with kernel (x.y / D + 1)^3, averaged over subsets.

    With m = min(subset_size, N, M), each of the subsets draws m vectors of either set without replacement:
    t = (sum a - trace a) / (m - 1) - 2 sum b / m, where a adds the kernels within the two sets and b is the one between
    them; KID = mean t / m. It can be negative.

    Args:
        real: (N, D); fake: (M, D).
        subsets: number of subsets.
        subset_size: their largest size.
        generator: CPU generator of the draws.

    Raises:
        ValueError: other shapes, fewer than two vectors in a set, or no subset.
    """
    _require_sets(real, fake)
    size = min(subset_size, len(real), len(fake))
    if subsets < 1 or size < 2:
        raise ValueError(f"subsets, size: expected at least 1 and 2, got {subsets} and {size}")
    total = 0.0
    for _ in range(subsets):
        x = fake[torch.randperm(len(fake), generator=generator)[:size].to(fake.device)].double()
        y = real[torch.randperm(len(real), generator=generator)[:size].to(real.device)].double()
        within = _cubic_kernel(x, x) + _cubic_kernel(y, y)
        total += float((within.sum() - within.diagonal().sum()) / (size - 1) - 2 * _cubic_kernel(x, y).sum() / size)
    return total / subsets / size


def precision_recall(real: Tensor, fake: Tensor, neighbours: int = 3, block: int = 10000) -> PrecisionRecall:
    """Compute improved precision and recall: which vectors lie within the other set's balls.

    Each vector of a set has a ball up to its (k + 1)-th nearest vector of that set, itself included. Vectors are
    rounded to float16 as in the reference, distances computed in float32.

    Args:
        real: (N, D); fake: (M, D).
        neighbours: k.
        block: rows of distances held at once.

    Raises:
        ValueError: other shapes, a set of at most k vectors, or numbers beyond float16.
    """
    _require_sets(real, fake)
    if neighbours < 1 or min(len(real), len(fake)) <= neighbours:
        raise ValueError(f"neighbours: expected 1 to below {min(len(real), len(fake))} vectors, got {neighbours}")
    real, fake = (values.half().float() for values in (real, fake))
    for name, values in (("real", real), ("fake", fake)):
        if not values.isfinite().all():
            raise ValueError(f"{name}: expected numbers within float16, up to 65504, got larger ones or NaN")
    precision = _share_within(real, fake, neighbours, block)
    return PrecisionRecall(precision, _share_within(fake, real, neighbours, block))


def inception_score(probabilities: Tensor, splits: int = 10) -> ScoreStatistics:
    """Compute exp(mean KL(p(y|x) || mean p(y|x))) of consecutive splits.

    Args:
        probabilities: (N, classes), rows that add up to 1.
        splits: number of splits.

    Raises:
        ValueError: another shape, rows that are no probabilities, or fewer rows than splits.
    """
    if probabilities.ndim != 2 or not 1 <= splits <= len(probabilities):
        raise ValueError(f"probabilities: expected (N >= {splits}, classes), got {tuple(probabilities.shape)}")
    p = probabilities.double()
    if not (p.ge(0).all() and (p.sum(dim=1) - 1).abs().max() < 1e-3):
        raise ValueError("probabilities: expected rows of numbers >= 0 that add up to 1")
    scores = []
    for number in range(splits):
        part = p[number * len(p) // splits : (number + 1) * len(p) // splits]
        marginal = part.mean(dim=0, keepdim=True)
        divergence = (torch.special.xlogy(part, part) - torch.special.xlogy(part, marginal)).sum(dim=1)
        scores.append(float(divergence.mean().exp()))
    return ScoreStatistics(float(np.mean(scores)), float(np.std(scores)))


def _cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _symmetric_root(name: str, covariance: np.ndarray) -> np.ndarray:
    matrix = np.asarray(covariance, np.float64)
    if np.abs(matrix - matrix.T).max(initial=0) > NEGATIVE_TOLERANCE * np.abs(matrix).max(initial=0):
        raise ValueError(f"{name}: expected a symmetric covariance, got another matrix")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    smallest, largest = values.min(initial=0), values.max(initial=0)
    if smallest < -NEGATIVE_TOLERANCE * largest:
        raise ValueError(f"{name}: expected a covariance, got eigenvalues from {smallest:.3g} to {largest:.3g}")
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _share_within(manifold: Tensor, probes: Tensor, neighbours: int, block: int) -> float:
    radii = torch.cat(
        [torch.cdist(rows, manifold).kthvalue(neighbours + 1, dim=1)[0] for rows in manifold.split(block)]
    )
    inside = sum(int((torch.cdist(rows, manifold) <= radii).any(dim=1).sum()) for rows in probes.split(block))
    return inside / len(probes)


def _require_sets(real: Tensor, fake: Tensor) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"real, fake: expected shapes (N, D), (M, D), got {tuple(real.shape)}, {tuple(fake.shape)}")
