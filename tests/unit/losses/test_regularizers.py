"""Distortion, terms of eyes and mouth, and density roughness against closed forms and a brute-force twin."""

import math

import pytest
import torch
from torch import Tensor

from portrait4d.losses.regularizers import (
    PartWeights,
    density_roughness,
    eye_and_mouth_penalties,
    pair_points,
    part_penalties,
    ray_distortion,
    sample_point_pairs,
)
from portrait4d.rendering.part_renderer import PartRays
from tests.helpers.waves import wave


def all_pairs(distances: Tensor, weights: Tensor) -> Tensor:
    """Distortion as it is defined."""
    middle = (distances[..., 1:] + distances[..., :-1]) / 2
    apart = (middle[..., :, None] - middle[..., None, :]).abs()
    between = (weights[..., :, None] * weights[..., None, :] * apart).sum((-1, -2))
    return between + (weights**2 * (distances[..., 1:] - distances[..., :-1])).sum(-1) / 3


def random_rays(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Ascending distances (2, 5, 12) near 4, and weights."""
    generator = torch.Generator().manual_seed(3)
    distances = torch.rand(2, 5, 12, generator=generator, dtype=torch.float64).sort(-1).values + 3.5
    return distances.to(dtype), (torch.rand(2, 5, 11, generator=generator, dtype=torch.float64) / 11).to(dtype)


def part_rays(distances: Tensor, weights: Tensor, densities: Tensor, transmittance: Tensor) -> PartRays:
    """Rays with the same face densities in eyes and mouth; other results are empty."""
    unused = torch.empty(0)
    return PartRays(
        features=unused,
        depth=unused,
        transmittance=transmittance,
        distances=distances,
        weights=weights,
        surface_distances=unused,
        face_densities_in_eyes=densities,
        face_densities_in_mouth=densities,
        coarse_eye_weights=unused,
        coarse_points=unused,
        coarse_face_features=unused,
    )


def test_distortion_equals_the_double_sum() -> None:
    torch.testing.assert_close(ray_distortion(*random_rays()), all_pairs(*random_rays()))
    single = ray_distortion(*random_rays(torch.float32)).double()
    torch.testing.assert_close(single, all_pairs(*random_rays()), rtol=3e-5, atol=0)


def test_distortion_gradients_equal_those_of_the_double_sum() -> None:
    leaves = [tensor.requires_grad_() for tensor in random_rays()]
    ours, theirs = (torch.autograd.grad(f(*leaves).sum(), leaves) for f in (ray_distortion, all_pairs))
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(ray_distortion, leaves)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_evenly_spread_weights_give_a_third_of_the_length(count: int) -> None:
    distances = torch.linspace(4.0, 5.5, count + 1, dtype=torch.float64)
    value = ray_distortion(distances, torch.full((count,), 1 / count, dtype=torch.float64))
    assert value.item() == pytest.approx(0.5)


def test_two_spikes_and_an_empty_ray() -> None:
    distances = torch.tensor([0.0, 0.0, 3.0, 3.0])  # intervals without length at 0 and 3, an empty one between
    assert ray_distortion(distances, torch.tensor([0.25, 0.0, 0.75])).item() == pytest.approx(2 * 0.25 * 0.75 * 3)
    assert ray_distortion(distances, torch.zeros(3)).item() == 0


def test_distortion_wants_one_weight_less_than_distances() -> None:
    with pytest.raises(ValueError, match=r"weights: expected shape \(2, 3\), got \(2, 4\)"):
        ray_distortion(torch.zeros(2, 4), torch.zeros(2, 4))


def test_part_terms_in_closed_form() -> None:
    mask = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    terms = part_penalties(
        mask, torch.full((2, 4, 3), 2.0), torch.full((2, 4), 0.2), torch.full((2, 4), 0.3), PartWeights(10, 100, 50)
    )
    share = 1.5 / 4
    expected = (10 * math.log1p(math.exp(2)) * share, 100 * 0.2 * share, 50 * 0.3 * share)
    for term, value in zip(terms, expected, strict=True):
        torch.testing.assert_close(term, torch.tensor([value, 0.0]))


@pytest.mark.parametrize("name", ["face_densities", "distortion", "transmittance"])
def test_rays_of_another_number_are_refused(name: str) -> None:
    arguments = {
        "face_densities": torch.zeros(2, 4, 3),
        "distortion": torch.zeros(2, 4),
        "transmittance": torch.zeros(2, 4),
    }
    arguments[name] = arguments[name][:, :1]  # would broadcast
    with pytest.raises(ValueError, match=f"{name}: expected samples and rays"):
        part_penalties(torch.zeros(2, 4), weights=PartWeights(), **arguments)


def test_eyes_and_mouth_have_masks_and_densities_of_their_own() -> None:
    distances, weights = random_rays()
    densities, through = wave(2, 5, 12).double(), torch.full((2, 5), 0.4, dtype=torch.float64)
    rays = part_rays(distances, weights, densities, through)._replace(face_densities_in_mouth=densities + 1)
    eye_mask, mouth_mask = torch.zeros(2, 1, 1, 5), torch.zeros(2, 1, 1, 5)
    eye_mask[..., 0], mouth_mask[..., 3] = 1, 0.5
    eye, mouth = eye_and_mouth_penalties(rays, eye_mask.double(), mouth_mask.double())
    spread = all_pairs(distances, weights)
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(eye.distortion, 100 * spread[:, 0] / 5)
    torch.testing.assert_close(mouth.distortion, 50 * spread[:, 3] / 5)
    torch.testing.assert_close(eye.density, 2 * softplus(densities[:, 0]).mean(1))
    torch.testing.assert_close(mouth.density, softplus(densities[:, 3] + 1).mean(1))
    torch.testing.assert_close(mouth.opacity, through[:, 3] * 10)


def test_terms_pull_only_on_rays_that_see_the_part() -> None:
    distances, weights = random_rays()
    densities = torch.zeros(2, 5, 12, dtype=torch.float64, requires_grad=True)
    weights.requires_grad_()
    mask = torch.zeros(2, 5, dtype=torch.float64)
    mask[:, 2] = 1
    eye, _ = eye_and_mouth_penalties(
        part_rays(distances, weights, densities, 1 - weights.sum(-1)), mask, torch.zeros_like(mask)
    )
    sum(term.sum() for term in eye).backward()
    for gradient in (densities.grad, weights.grad):
        assert gradient[:, 2].any() and not gradient[:, [0, 1, 3, 4]].any()


def test_points_and_neighbours() -> None:
    points = pair_points(torch.tensor([[[0.0, 0.5, 0.75]]]), torch.tensor([[[1.0, -2.0, 0.0]]]), 0.01)
    torch.testing.assert_close(points, torch.tensor([[[-1.0, 0.0, 0.5], [-0.99, -0.02, 0.5]]]))


def test_sampled_points_fill_the_cube_and_repeat() -> None:
    points = sample_point_pairs(3, 0.0052, 4000, torch.Generator().manual_seed(1))
    here, there = points.chunk(2, dim=1)
    assert here.abs().max() <= 1 and here.shape == (3, 4000, 3)
    assert here.std().item() == pytest.approx(math.sqrt(1 / 3), rel=0.02) and abs(here.mean()) < 0.02
    assert (there - here).std().item() == pytest.approx(0.0052, rel=0.02)
    assert torch.equal(points, sample_point_pairs(3, 0.0052, 4000, torch.Generator().manual_seed(1)))
    assert not torch.equal(points, sample_point_pairs(3, 0.0052, 4000, torch.Generator().manual_seed(2)))


def test_roughness_of_linear_fields() -> None:
    points = pair_points(torch.rand(2, 50, 3), torch.ones(2, 50, 3), 0.1)
    fields = [points @ torch.tensor(direction) for direction in ((1.0, 1.0, 1.0), (0.0, -2.0, 0.0), (0.0, 0.0, 0.0))]
    assert density_roughness(fields).item() == pytest.approx((0.3 + 0.2 + 0.0) / 3, rel=1e-4)
    assert density_roughness(fields[:1]).item() == pytest.approx(0.3, rel=1e-4)
    assert density_roughness(fields[2:]).item() == 0


def test_roughness_gradient() -> None:
    fields = [wave(2, 6, frequency=f).double().requires_grad_() for f in (0.7, 1.3)]
    assert torch.autograd.gradcheck(lambda *parts: density_roughness(parts), fields)


def test_roughness_wants_pairs() -> None:
    with pytest.raises(ValueError, match="at least one field"):
        density_roughness([])
    with pytest.raises(ValueError, match=r"expected shape \(B, 2 N\), got \(2, 5\)"):
        density_roughness([torch.zeros(2, 4), torch.zeros(2, 5)])
