"""Stratified and importance distances against `rendering.md` section 12, and their statistics."""

import pytest
import torch

from portrait4d.rendering.ray_sampling import (
    importance_distances,
    midpoint_jitter,
    sample_jitter,
    stratified_distances,
)
from tests.helpers.waves import wave


def test_importance_distances_of_the_specification() -> None:
    distances = torch.linspace(1, 2, 8).expand(1, 2, 8)
    weights = 0.2 * wave(1, 2, 7).abs()
    quantiles = torch.tensor([[[0.05, 0.3, 0.55, 0.8, 0.999], [0, 0.2, 0.4, 0.6, 1]]])
    expected = torch.tensor(
        [[[1.122305, 1.332655, 1.497882, 1.655564, 1.785064], [1.071429, 1.308722, 1.461148, 1.577472, 1.785714]]]
    )
    torch.testing.assert_close(importance_distances(distances, weights, quantiles), expected, atol=2e-6, rtol=0)


def test_stratified_distances_follow_the_formula() -> None:
    centre, jitter = torch.tensor([4.0, 2.0]), torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    distances = stratified_distances(centre, 1.2, jitter)
    for b, near in enumerate((3.4, 1.4)):
        for k in range(5):
            assert distances[b, k].item() == pytest.approx(near + (k + jitter[b, k].item()) * 0.3, abs=1e-6)


def test_midpoint_jitter_is_centred() -> None:
    jitter = midpoint_jitter(2, 6, 4, "cpu")
    assert torch.equal(jitter.stratified, torch.full((2, 6), 0.5))
    torch.testing.assert_close(jitter.importance[1, 0], torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_sample_jitter_repeats_with_its_generator() -> None:
    draws = [sample_jitter(1, 9, 4, 4, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(draws[0].importance, draws[1].importance)
    assert draws[0].importance.shape == (1, 9, 4)
    assert draws[0].importance.unique().numel() > 30


def test_importance_samples_gather_where_the_weight_is() -> None:
    distances = torch.linspace(0, 1, 48)[None, None]
    weights = torch.zeros(1, 1, 47)
    weights[..., 30] = 1
    quantiles = midpoint_jitter(1, 48, 48, "cpu").importance
    fine = importance_distances(distances, weights, quantiles)
    assert ((fine > 28 / 47) & (fine < 34 / 47)).float().mean() > 0.7
    assert bool((fine.diff(dim=-1) >= 0).all())
