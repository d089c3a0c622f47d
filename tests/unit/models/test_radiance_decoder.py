"""Radiance decoder: conformance value, ranges, initial values, gradients."""

import torch

from portrait4d.models.radiance_decoder import RadianceDecoder
from tests.helpers.waves import wave


def test_conformance():
    decoder = RadianceDecoder(4, 64, 2)
    values = {
        "hidden.weight": wave(64, 4),
        "hidden.bias": wave(64),
        "density.weight": wave(1, 64, frequency=0.3),
        "density.bias": torch.tensor([0.2]),
        "features.weight": wave(2, 64, frequency=0.21),
        "features.bias": torch.tensor([-0.1, -0.1]),
    }
    decoder.load_state_dict(values)
    features, density = decoder(wave(1, 3, 2, 4, frequency=0.77).mean(dim=1))
    expected = torch.tensor([[[0.492046, 0.628691], [0.502296, 0.622820]]])
    torch.testing.assert_close(features, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(density, torch.tensor([[[-0.167934], [-0.142891]]]), atol=2e-6, rtol=0)


def test_density_starts_at_zero_and_features_stay_in_range():
    decoder = RadianceDecoder(8, 16)
    features, density = decoder(100 * wave(5, 3, 7, 8))
    assert features.shape == (5, 3, 7, 8)
    assert density.shape == (5, 3, 7, 1)
    assert torch.equal(density, torch.zeros_like(density))
    assert features.min() >= -0.001 - 1e-6
    assert features.max() <= 1.001 + 1e-6


def test_derivatives():
    decoder = RadianceDecoder(3, 4).double()
    decoder.density.weight.data.normal_()
    assert torch.autograd.gradcheck(decoder, (wave(2, 5, 3).double().requires_grad_(),))
