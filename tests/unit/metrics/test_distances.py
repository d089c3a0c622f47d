"""Distances between sets on distributions with a closed form."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch

from portrait4d.metrics.distances import (
    Moments,
    frechet_distance,
    frechet_distance_of_features,
    inception_score,
    kernel_distance,
    precision_recall,
)


def random_covariance(dim: int, rank: int, seed: int) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(dim, rank))
    return factor @ factor.T / rank


def normal(count: int, dim: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("dim", [1, 3, 64])
def test_fid_of_isotropic_gaussians(dim: int) -> None:
    """|m|² + D (s - t)² for covariances s² I and t² I."""
    mean = np.linspace(-1, 2, dim)
    a = Moments(np.zeros(dim), 4.0 * np.eye(dim))
    b = Moments(mean, 0.25 * np.eye(dim))
    assert frechet_distance(a, b) == pytest.approx(mean @ mean + dim * 1.5**2, rel=1e-12)


def test_fid_of_gaussians_with_common_axes() -> None:
    """Covariances Q diag(a) Q' and Q diag(b) Q': sum of (sqrt a - sqrt b)²."""
    dim = 50
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))
    p, q = (np.random.default_rng(seed).uniform(0, 3, dim) for seed in (1, 2))
    p[:20], q[10:30] = 0, 0  # singular, on different axes
    moments = [Moments(np.ones(dim), (axes * values) @ axes.T) for values in (p, q)]
    expected = ((np.sqrt(p) - np.sqrt(q)) ** 2).sum()
    assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-6)


def test_fid_in_two_dimensions() -> None:
    """tr sqrt(AB) = sqrt(tr(AB) + 2 sqrt(det(AB))) for 2 x 2 matrices (Cayley-Hamilton)."""
    a, b = np.array([[2.0, 1.5], [1.5, 3.0]]), np.array([[1.0, -0.4], [-0.4, 0.5]])
    root = math.sqrt(np.trace(a @ b) + 2 * math.sqrt(np.linalg.det(a @ b)))
    expected = 5 + np.trace(a) + np.trace(b) - 2 * root
    found = frechet_distance(Moments(np.array([1.0, 2.0]), a), Moments(np.zeros(2), b))
    assert found == pytest.approx(expected, rel=1e-12)


def test_fid_is_that_of_the_matrix_square_root() -> None:
    a, b = random_covariance(40, 80, 0), random_covariance(40, 60, 1)
    expected = np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    zero = np.zeros(40)
    assert frechet_distance(Moments(zero, a), Moments(zero, b)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(Moments(zero, b), Moments(zero, a)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [5, 200])
def test_fid_of_a_set_and_itself_is_zero(rank: int) -> None:
    covariance = random_covariance(100, rank, 3)
    moments = Moments(np.ones(100), covariance)
    assert abs(frechet_distance(moments, moments)) < 1e-10 * np.trace(covariance)


def test_fid_refuses_what_is_no_covariance() -> None:
    good = Moments(np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match=r"b: expected shapes \(2,\) and \(2, 2\), got \(3,\)"):
        frechet_distance(good, Moments(np.zeros(3), np.eye(3)))
    with pytest.raises(ValueError, match="a: expected finite moments"):
        frechet_distance(Moments(np.zeros(2), np.full((2, 2), np.nan)), good)
    with pytest.raises(ValueError, match="b: expected a symmetric covariance"):
        frechet_distance(good, Moments(np.zeros(2), np.array([[1.0, 2.0], [0.0, 1.0]])))
    with pytest.raises(ValueError, match="b: expected a covariance, got eigenvalues from -1"):
        frechet_distance(good, Moments(np.zeros(2), np.diag([1.0, -1.0])))
    with pytest.raises(ValueError, match="b: expected a covariance, got eigenvalues from -1"):
        frechet_distance(good, Moments(np.zeros(2), -np.eye(2)))
    rounded = Moments(np.zeros(2), np.diag([1.0, -1e-9]))
    assert frechet_distance(rounded, rounded) == pytest.approx(0, abs=1e-8)


def test_kid_of_two_points_a_set() -> None:
    """With x = (1), (1) and y = (0), (0): within-set kernels 8 and 1, between 1: (8 + 1) - 2 = 7."""
    fake, real = torch.ones(2, 1), torch.zeros(2, 1)
    assert kernel_distance(real, fake, subsets=3) == pytest.approx(7)


def test_kid_is_unbiased() -> None:
    """Its mean over **all** pairs of subsets of a finite population is the population's unbiased estimate."""
    real, fake = normal(5, 2, 0), normal(5, 2, 1, 0.5)

    def estimate(x: torch.Tensor, y: torch.Tensor) -> float:
        return kernel_distance(y, x, subsets=1, subset_size=len(x))

    whole = estimate(fake, real)
    pairs = itertools.product(itertools.combinations(range(5), 3), repeat=2)
    values = [estimate(fake[list(i)], real[list(j)]) for i, j in pairs]
    assert np.mean(values) == pytest.approx(whole, rel=1e-6)


def test_kid_of_gaussians() -> None:
    """D = 1, x ~ N(s, 1), y ~ N(0, 1): expectation of (uv + 1)³ by moments of independent u and v.

    E(uv + 1)³ = M3 M3' + 3 M2 M2' + 3 M1 M1' + 1; for N(s, 1): M1 = s, M2 = s² + 1, M3 = s³ + 3 s.
    """
    shift = 1.0
    x, y = (shift, shift**2 + 1, shift**3 + 3 * shift), (0.0, 1.0, 0.0)

    def kernel(u: tuple[float, ...], v: tuple[float, ...]) -> float:
        return u[2] * v[2] + 3 * u[1] * v[1] + 3 * u[0] * v[0] + 1

    expected = kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)
    draws = [kernel_distance(normal(200, 1, 2 * i), normal(200, 1, 2 * i + 1, shift), subsets=1) for i in range(60)]
    error = np.std(draws) / math.sqrt(len(draws))
    assert abs(np.mean(draws) - expected) < 4 * error
    assert error < 0.05 * expected


def test_kid_of_one_distribution_is_zero_on_average() -> None:
    draws = [kernel_distance(normal(50, 8, 2 * i), normal(50, 8, 2 * i + 1), subsets=1) for i in range(100)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / math.sqrt(len(draws))
    assert min(draws) < 0 < max(draws)


def test_kid_draws_are_seeded() -> None:
    real, fake = normal(300, 4, 0), normal(200, 4, 1)

    def draw(seed: int) -> float:
        return kernel_distance(real, fake, 5, 50, torch.Generator().manual_seed(seed))

    assert draw(0) == draw(0) != draw(1)


def test_precision_and_recall_of_clouds() -> None:
    cloud = normal(200, 5, 0)
    assert precision_recall(cloud, cloud.clone()) == (1, 1)
    assert precision_recall(cloud, cloud + 100) == (0, 0)
    both = torch.cat([cloud, cloud + 100])
    assert precision_recall(cloud, both) == (0.5, 1)  # half of the fakes are off; all reals are covered
    assert precision_recall(both, cloud) == (1, 0.5)


def test_precision_by_hand() -> None:
    """Reals 0, 1, 2, 3 and k = 1: all radii are 1. Of fakes -1.5, -1, 1.4, 4, 4.5 the three in the middle count."""
    real = torch.tensor([[0.0], [1], [2], [3]])
    fake = torch.tensor([[-1.5], [-1], [1.4], [4], [4.5]])
    result = precision_recall(real, fake, neighbours=1)
    assert result.precision == pytest.approx(3 / 5)
    # fakes' radii: 0.5, 0.5, 2.4, 0.5, 0.5: around 1.4 all of 0, 1, 2, 3 lie within 2.4
    assert result.recall == 1


def test_blocks_of_precision_change_nothing() -> None:
    real, fake = normal(150, 4, 0), normal(130, 4, 1, 0.3)
    assert precision_recall(real, fake, block=17) == precision_recall(real, fake)


def test_inception_score_of_certain_and_uncertain_classes() -> None:
    """C classes, each certain and equally often: C. The same distribution every time: 1."""
    certain = torch.eye(5).repeat(20, 1)
    assert inception_score(certain).mean == pytest.approx(5)
    assert inception_score(certain).std == pytest.approx(0, abs=1e-9)
    same = torch.tensor([[0.2, 0.3, 0.5]]).repeat(40, 1)
    assert inception_score(same).mean == pytest.approx(1)


def test_inception_score_of_two_splits() -> None:
    """The first split holds one class, 1; the second two, 2."""
    rows = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    score = inception_score(rows, splits=2)
    assert (score.mean, score.std) == pytest.approx((1.5, 0.5))


def test_bad_sets_are_refused() -> None:
    cloud = normal(5, 3, 0)
    for compute in (kernel_distance, precision_recall):
        with pytest.raises(ValueError, match=r"real, fake: expected shapes \(N, D\), \(M, D\)"):
            compute(cloud, normal(5, 4, 0))
    with pytest.raises(ValueError, match="expected at least 1 and 2, got 100 and 1"):
        kernel_distance(cloud, cloud[:1])
    with pytest.raises(ValueError, match="neighbours: expected 1 to below 3 vectors, got 3"):
        precision_recall(cloud, cloud[:3])
    with pytest.raises(ValueError, match="real: expected numbers within float16"):
        precision_recall(cloud * 1e6, cloud)
    with pytest.raises(ValueError, match=r"probabilities: expected \(N >= 10, classes\), got \(5, 3\)"):
        inception_score(cloud)
    with pytest.raises(ValueError, match="probabilities: expected rows of numbers >= 0 that add up to 1"):
        inception_score(cloud, splits=2)


@pytest.mark.parametrize(("count", "dim"), [(7, 30), (30, 7)])
def test_fid_of_features_is_that_of_their_moments(count: int, dim: int) -> None:
    sets = normal(count, dim, 0), 1.5 * normal(count + 2, dim, 1, shift=0.3)
    arrays = [values.double().numpy() for values in sets]
    moments = [Moments(values.mean(axis=0), np.cov(values.T, bias=True)) for values in arrays]
    assert frechet_distance_of_features(*sets) == pytest.approx(frechet_distance(*moments), rel=1e-6)
    assert frechet_distance_of_features(sets[0], sets[0]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance_of_features(sets[0], sets[0] + 2) == pytest.approx(4 * dim, rel=1e-5)


def test_features_that_are_none() -> None:
    for bad in (torch.zeros(0, 3), torch.full((2, 3), math.nan)):
        with pytest.raises(ValueError, match="a, b: expected at least one vector"):
            frechet_distance_of_features(bad, torch.zeros(2, 3))
