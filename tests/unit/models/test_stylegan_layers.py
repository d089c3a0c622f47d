"""StyleGAN2 layers: conformance values, modulation in both forms, noise, blocks, gradients."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from portrait4d.models.stylegan_layers import (
    FullyConnected,
    SynthesisBlock,
    SynthesisLayer,
    ToRGB,
    modulate_weight,
    modulated_conv2d,
)
from portrait4d.ops.upfirdn2d import build_filter, upsample2d
from tests.helpers.waves import wave


def set_parameters(module: nn.Module, **values: torch.Tensor) -> None:
    parameters = dict(module.named_parameters())
    for name, value in values.items():
        parameters[name.replace("__", ".")].data.copy_(value)


def specified_layer() -> SynthesisLayer:
    layer = SynthesisLayer(2, 3, style_dim=4, resolution=8, up=2, conv_clamp=256)
    weights = {"weight": wave(3, 2, 3, 3), "affine__weight": wave(2, 4, frequency=0.7)}
    set_parameters(layer, bias=0.1 * wave(3), affine__bias=torch.ones(2), **weights)
    return layer.requires_grad_(False)


def test_synthesis_layer_and_picture_conformance():
    style = wave(1, 4, frequency=0.9)
    y = specified_layer()(wave(1, 2, 4, 4, frequency=0.53), style)
    close = {"atol": 2e-6, "rtol": 0}
    torch.testing.assert_close(y[0, :, 3, 4], torch.tensor([-0.158102, -0.264145, -0.327489]), **close)
    row = [0.208980, 0.572093, 1.066504, 1.574498, 1.968751, 2.230136, 2.187018, 1.665938]
    torch.testing.assert_close(y[0, 0, 0], torch.tensor(row), **close)
    assert y.sum().item() == pytest.approx(137.443436, abs=1e-4)

    to_rgb = ToRGB(3, 2, style_dim=4)
    affine = wave(3, 4, frequency=0.7)
    set_parameters(to_rgb, weight=wave(2, 3, 1, 1), bias=wave(2), affine__weight=affine, affine__bias=torch.ones(3))
    picture = to_rgb(y, style).detach()
    torch.testing.assert_close(picture[0, :, 3, 4], torch.tensor([-0.149548, -0.015306]), **close)
    assert picture.sum().item() == pytest.approx(163.030334, abs=1e-4)


def test_fully_connected_formula_and_initial_values():
    torch.manual_seed(0)
    layer = FullyConnected(300, 200, activation="leaky_relu", learning_rate_multiplier=0.01, bias_init=2.0)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.02)
    assert torch.equal(layer.bias, torch.full((200,), 2.0))
    x = wave(2, 3, 300)
    expected = math.sqrt(2) * F.leaky_relu(x @ (layer.weight * 0.01 / math.sqrt(300)).T + 0.02, 0.2)
    torch.testing.assert_close(layer(x), expected)


def test_demodulated_weights_have_unit_norm():
    weights = modulate_weight(wave(4, 3, 3, 3), wave(2, 3, frequency=0.8))
    assert weights.shape == (2, 4, 3, 3, 3)
    torch.testing.assert_close(weights.square().sum((2, 3, 4)), torch.ones(2, 4))


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [True, False])
def test_a_batch_equals_its_samples(up, demodulate):
    x, weight, styles = wave(3, 4, 5, 6).double(), wave(2, 4, 3, 3).double(), wave(3, 4, frequency=0.8).double()
    arguments = {"up": up, "kernel": build_filter(), "demodulate": demodulate}
    together = modulated_conv2d(x, weight, styles, **arguments)
    singly = [modulated_conv2d(x[i : i + 1], weight, styles[i : i + 1], **arguments) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(singly))


def test_doubling_needs_a_kernel():
    with pytest.raises(ValueError, match="up: expected 1, or 2 with a kernel, got 2"):
        modulated_conv2d(torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 3, 3), torch.ones(1, 2), up=2)


def test_one_style_serves_a_batch_but_two_styles_no_single_sample():
    x, weight, styles = wave(3, 4, 5, 6), wave(2, 4, 3, 3), wave(1, 4, frequency=0.8)
    expected = modulated_conv2d(x, weight, styles.expand(3, -1))
    torch.testing.assert_close(modulated_conv2d(x, weight, styles), expected)
    with pytest.raises(ValueError, match="styles: expected a batch of 1 or 3, got 2"):
        modulated_conv2d(x, weight, styles.expand(2, -1))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize("batch", [1, 2])
def test_half_types_neither_overflow_nor_drift(dtype, tolerance, batch):
    x, weight, styles = wave(batch, 4, 6, 6), 300 * wave(2, 4, 3, 3), 3000 * wave(batch, 4, frequency=0.8)
    expected = modulated_conv2d(x, weight, styles, up=2, kernel=build_filter())
    result = modulated_conv2d(x.to(dtype), weight, styles, up=2, kernel=build_filter())
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("up", [1, 2])
def test_modulated_convolution_derivatives(batch, up):
    inputs = (wave(batch, 2, 3, 3), wave(2, 2, 3, 3, frequency=0.6), wave(batch, 2, frequency=0.8))
    inputs = tuple(tensor.double().requires_grad_() for tensor in inputs)
    convolve = functools.partial(modulated_conv2d, up=up, kernel=build_filter())
    assert torch.autograd.gradcheck(convolve, inputs, fast_mode=True)


def test_noise_is_added_before_the_bias():
    layer = specified_layer()
    layer.noise_strength.fill_(0.5)
    x, style = wave(1, 2, 4, 4, frequency=0.53), wave(1, 4, frequency=0.9)
    linear = modulated_conv2d(x, layer.weight, layer.affine(style), up=2, kernel=layer.resample_filter)
    expected = math.sqrt(2) * F.leaky_relu(linear + 0.5 * layer.noise_const + layer.bias[:, None, None], 0.2)
    torch.testing.assert_close(layer(x, style, "const"), expected)


def test_random_noise_repeats_with_its_generator_and_differs_between_samples():
    layer = specified_layer()
    layer.noise_strength.fill_(0.5)
    x, style = wave(1, 2, 4, 4).expand(2, -1, -1, -1), wave(1, 4).expand(2, -1)
    first = layer(x, style, "random", torch.Generator().manual_seed(3))
    assert torch.equal(first, layer(x, style, "random", torch.Generator().manual_seed(3)))
    assert not torch.allclose(first[0], first[1])


def test_noise_errors():
    layer = SynthesisLayer(2, 2, style_dim=3, resolution=4, with_noise=False)
    assert {name.split(".")[0] for name in layer.state_dict()} == {"weight", "bias", "affine"}
    with pytest.raises(ValueError, match="noise_mode: expected 'none' for a layer without noise, got 'const'"):
        layer(wave(1, 2, 4, 4), wave(1, 3), "const")
    with pytest.raises(ValueError, match="noise_mode: expected 'none', 'const' or 'random', got 'loud'"):
        specified_layer()(wave(1, 2, 4, 4), wave(1, 4), "loud")


def test_initial_values():
    layer = SynthesisLayer(2, 3, style_dim=4, resolution=8)
    assert layer.noise_strength.item() == 0
    assert torch.equal(layer.affine.bias, torch.ones(2))
    assert torch.equal(layer.bias, torch.zeros(3))


def test_blocks_pass_features_and_add_up_pictures():
    sizes = {"style_dim": 5, "image_channels": 3}
    first = SynthesisBlock(0, 6, resolution=4, **sizes)
    second = SynthesisBlock(6, 4, resolution=8, **sizes)
    styles = wave(3, 5, 5)
    x4, image4 = first(None, None, styles[:, :2])
    x8, image8 = second(x4, image4, styles[:, 1:4])
    assert x4.shape == (3, 6, 4, 4)
    assert image4.shape == (3, 3, 4, 4)
    assert x8.shape == (3, 4, 8, 8)
    torch.testing.assert_close(image8, upsample2d(image4, build_filter()) + second.to_rgb(x8, styles[:, 3]))
    torch.testing.assert_close(x4, first.conv1(first.const.expand(3, -1, -1, -1), styles[:, 0]))
    torch.testing.assert_close(x8, second.conv1(second.conv0(x4, styles[:, 1]), styles[:, 2]))
    image8.square().mean().backward()
    used = [name for block in (first, second) for name, p in block.named_parameters() if p.grad is None]
    assert {name.split(".")[-1] for name in used} == {"noise_strength"}


def test_pictures_stay_in_full_precision():
    block = SynthesisBlock(6, 4, style_dim=5, resolution=8, image_channels=3)
    x, image = block(wave(1, 6, 4, 4).bfloat16(), wave(1, 3, 4, 4), wave(1, 3, 5))
    assert x.dtype == torch.bfloat16
    assert image.dtype == torch.float32


def test_wrong_number_of_styles():
    block = SynthesisBlock(6, 4, style_dim=5, resolution=8, image_channels=3)
    with pytest.raises(ValueError, match=r"styles: expected shape \(B, 3, style_dim\), got \(1, 2, 5\)"):
        block(wave(1, 6, 4, 4), None, wave(1, 2, 5))
