"""Super-resolution: conformance values, folded weights, sizes, types, errors, gradients."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from portrait4d.config.networks import ReconstructorConfig, tiny_reconstructor
from portrait4d.models.super_resolution import SuperResolution
from tests.helpers.hash_fill import fill_equalised, hash_tensor
from tests.helpers.published_weights import filled_module, summarise
from tests.helpers.waves import wave

PUBLISHED = ReconstructorConfig().super_resolution


def published(style: str) -> SuperResolution:
    config = dataclasses.replace(PUBLISHED, style=style)
    return filled_module(lambda: SuperResolution(config, 32, 512), "superresolution", fill_equalised)


def conformance_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return hash_tensor(1000, [1, 3, 64, 64]), hash_tensor(1001, [1, 32, 64, 64])


def test_conformance_with_the_average_style_and_folding_at_full_size():
    network, inputs, style = published("average"), conformance_inputs(), hash_tensor(1002, [1, 512])
    picture = network(*inputs, style)
    assert picture.shape == (1, 3, 512, 512)
    expected = [0.0233882, 0.568168, 0.405996, -0.0941915, 0.180174, 0.261324]
    assert summarise(picture) == pytest.approx(expected, abs=2e-6, rel=1e-5)
    torch.testing.assert_close(network.forward_folded(network.fold(style[0]), *inputs), picture, atol=1e-5, rtol=0)


def test_conformance_with_ones_as_style_through_folded_weights():
    network = published("ones")
    picture = network.forward_folded(network.fold(None), *conformance_inputs())
    expected = [0.204366, 0.61382, 0.207201, 0.011436, 0.0439646, 0.378401]
    assert summarise(picture) == pytest.approx(expected, abs=5e-6, rel=1e-5)


def tiny(**changes) -> SuperResolution:
    torch.manual_seed(1)
    config = tiny_reconstructor()
    network = SuperResolution(dataclasses.replace(config.super_resolution, **changes), config.plane_features, 64)
    for parameter in network.parameters():  # biases away from 0
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("size", [16, 9, 24])
@pytest.mark.parametrize("clamp", [None, 0.5])
def test_folding_equals_forward_for_odd_batches_and_sizes(size, clamp):
    network = tiny(conv_clamp=clamp)
    rgb, features, style = wave(3, 3, size, size), wave(3, 8, size, size, frequency=0.9), wave(16)
    picture = network(rgb, features, style.expand(3, -1))
    assert picture.shape == (3, 3, 64, 64)
    torch.testing.assert_close(network.forward_folded(network.fold(style), rgb, features), picture, atol=1e-5, rtol=0)


def test_inputs_of_other_sizes_are_resized_without_moving_the_corners():
    network = tiny(antialias=True)
    rgb, features, style = wave(1, 3, 24, 24), wave(1, 8, 24, 24, frequency=0.9), wave(1, 16)
    resized = [F.interpolate(x, (16, 16), mode="bilinear", antialias=True) for x in (rgb, features)]
    torch.testing.assert_close(network(rgb, features, style), network(*resized, style))


@pytest.mark.parametrize("size", [16, 12])
def test_bfloat16(size):
    network = tiny()
    rgb, features, style = wave(2, 3, size, size), wave(2, 8, size, size, frequency=0.9), wave(16)
    expected = network(rgb, features, style[None])
    tolerance = 0.02 * expected.abs().max().item()
    folded = network.fold(style, torch.bfloat16)
    assert folded.blocks[1].conv_weight.dtype == torch.bfloat16
    for result in (
        network(rgb, features.bfloat16(), style[None]),
        network.forward_folded(folded, rgb, features),
        network.forward_folded(folded, rgb.bfloat16(), features.bfloat16()),
    ):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, expected, atol=tolerance, rtol=0)


def test_memory_format_does_not_change_the_picture():
    network = tiny()
    rgb, features, style = wave(2, 3, 16, 16), wave(2, 8, 16, 16, frequency=0.9), wave(1, 16)
    expected = network(rgb, features, style)
    network.to(memory_format=torch.channels_last)
    features = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(rgb, features, style), expected, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter_and_input():
    network = tiny()
    inputs = [wave(3, 3, 16, 16), wave(3, 8, 16, 16), wave(3, 16)]
    for tensor in inputs:
        tensor.requires_grad_()
    network(*inputs).square().mean().backward()
    for tensor in (*inputs, *network.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_errors_name_the_argument():
    network, ones = tiny(), tiny(style="ones")
    rgb, features = wave(1, 3, 16, 16), wave(1, 8, 16, 16)
    with pytest.raises(ValueError, match=r"style: expected shape \(B, 16\), got None"):
        network(rgb, features, None)
    with pytest.raises(ValueError, match=r"style: expected None, got \(1, 16\)"):
        ones(rgb, features, wave(1, 16))
    with pytest.raises(ValueError, match=r"rgb: expected the size \(16, 16\), got \(8, 8\)"):
        network(wave(1, 3, 8, 8), features, wave(1, 16))
