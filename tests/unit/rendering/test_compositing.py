"""Ray marching against `rendering.md` section 12 and closed forms."""

import torch

from portrait4d.rendering.compositing import march, sample_weights
from tests.helpers.waves import wave


def test_march_of_the_specification() -> None:
    distances = torch.tensor([1, 1.2, 1.3, 1.7]).expand(1, 2, 4)
    colours = wave(1, 2, 4, 2).abs()
    result = march(8 * wave(1, 2, 4, frequency=1.3) + 2, distances)
    expected = torch.tensor([[[0.656711, 0.166791, 0.034677], [0.056658, 0.438098, 0.457350]]])
    torch.testing.assert_close(result.weights, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(result.depth, torch.tensor([[1.145316, 1.361163]]), atol=2e-6, rtol=0)
    torch.testing.assert_close(result.transmittance, torch.tensor([[0.141821, 0.047895]]), atol=2e-6, rtol=0)
    features = (sample_weights(result.weights)[..., None] * colours).sum(2)
    expected = torch.tensor([[[0.452814, 0.635093], [0.787572, 0.794252]]])
    torch.testing.assert_close(features, expected, atol=2e-6, rtol=0)


def test_sample_weights_equal_averaged_neighbours() -> None:
    weights, colours = torch.rand(3, 5, dtype=torch.float64), torch.rand(3, 6, 2, dtype=torch.float64)
    averaged = (weights[..., None] * (colours[:, 1:] + colours[:, :-1]) / 2).sum(1)
    torch.testing.assert_close((sample_weights(weights)[..., None] * colours).sum(1), averaged)


def test_an_empty_ray_shows_the_background_and_a_finite_depth() -> None:
    distances = torch.linspace(1, 2, 6)[None]
    result = march(torch.full((1, 6), -1e4), distances)
    assert result.transmittance.item() == 1
    assert result.depth.item() == 2


def test_a_wall_stops_the_ray() -> None:
    distances = torch.linspace(1, 2, 11)[None]
    densities = torch.full((1, 11), -100.0)
    densities[:, 5:] = 1e4
    result = march(densities, distances)
    assert result.transmittance.item() < 1e-6
    assert abs(result.depth.item() - 1.45) < 1e-3


def test_march_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    densities = torch.randn(2, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    distances = torch.rand(2, 5, dtype=torch.float64, generator=generator).sort(dim=1).values.requires_grad_()
    assert torch.autograd.gradcheck(lambda d, t: tuple(march(d, t)), (densities, distances))
