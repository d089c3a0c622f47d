"""Discriminator: conformance, minibatch statistic, inputs, gradients to every parameter and of gradients."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from portrait4d.config.gan_networks import DiscriminatorConfig, tiny_discriminator
from portrait4d.models.discriminator import Discriminator, DiscriminatorInput
from portrait4d.models.discriminator_layers import EqualisedConv2d, ResidualBlock, append_minibatch_std
from portrait4d.models.upstream_gan_names import rename_discriminator
from tests.helpers.hash_fill import fill_equalised, hash_tensor
from tests.helpers.published_weights import filled_state, load_filled
from tests.helpers.waves import wave


def test_equalised_convolution_conformance():
    layer = EqualisedConv2d(2, 3, 3, activation="leaky_relu", down=2).requires_grad_(False)
    layer.weight.copy_(wave(3, 2, 3, 3))
    layer.bias.copy_(0.1 * wave(3))
    expected = [
        [[0.271954, 0.303073], [-0.034317, -0.005567]],
        [[0.316289, 0.416884], [-0.021428, -0.011302]],
        [[0.316468, 0.472423], [-0.005488, -0.015406]],
    ]
    y = layer(wave(1, 2, 4, 4, frequency=0.53), gain=math.sqrt(0.5))
    torch.testing.assert_close(y[0], torch.tensor(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("kernel", [1, 3])
def test_equalised_convolution_without_resampling(size, kernel):
    layer = EqualisedConv2d(4, 6, kernel, activation="leaky_relu", conv_clamp=0.5)
    x = wave(2, 4, size, size)
    plain = F.conv2d(x, layer.weight / math.sqrt(4 * kernel**2), layer.bias, padding=kernel // 2)
    expected = (math.sqrt(2) * 0.7 * F.leaky_relu(plain, 0.2)).clamp(-0.35, 0.35)
    torch.testing.assert_close(layer(x, gain=0.7), expected)
    with pytest.raises(ValueError, match="kernel_size, down: expected 1 or 3, and 1 or 2, got 5, 1"):
        EqualisedConv2d(1, 1, 5)


def test_residual_block_halves_the_size_and_its_skip_is_not_clamped():
    torch.manual_seed(0)
    block = ResidualBlock(3, 4, conv_clamp=1e-6)
    x = 100 * torch.rand(2, 3, 8, 8)
    y = block(x)
    assert y.shape == (2, 4, 4, 4)
    torch.testing.assert_close(y, block.skip(x, gain=math.sqrt(0.5)), atol=1e-6, rtol=0)


def test_minibatch_statistic_conformance():
    joined = append_minibatch_std(wave(2, 2, 2, 2), 2)
    assert torch.equal(joined[:, :2], wave(2, 2, 2, 2))
    torch.testing.assert_close(joined[:, 2], torch.full((2, 2, 2), 0.650150), atol=1e-6, rtol=0)


def test_minibatch_statistic_pairs_samples_half_a_batch_apart():
    x = wave(6, 3, 2, 2)
    joined = append_minibatch_std(x, 2)[:, 3, 0, 0]
    for n in range(3):
        pair = torch.stack([x[n], x[n + 3]])
        expected = ((pair - pair.mean(0)).square().mean(0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(joined[[n, n + 3]], expected.expand(2))
    assert append_minibatch_std(x[:1], 2)[0, 3, 0, 0].item() == pytest.approx(1e-4, rel=1e-3)
    with pytest.raises(ValueError, match="batch: expected a multiple of the group size 2, got 3"):
        append_minibatch_std(x[:3], 2)


def tiny_case(batch: int = 2, **changes: object) -> tuple[Discriminator, DiscriminatorInput, torch.Tensor]:
    torch.manual_seed(0)
    network = Discriminator(replace(tiny_discriminator(), **changes))
    pictures = torch.randn(batch, 3, 64, 64), torch.randn(batch, 3, 16, 16), torch.randn(batch, 3, 64, 64)
    return network, DiscriminatorInput(*pictures, torch.randn(batch, 1, 16, 16)), torch.randn(batch, 25)


def test_inputs_are_joined_in_order_at_one_size():
    network, inputs, camera = tiny_case()
    joined = network.join_inputs(inputs)
    up = [F.interpolate(x, (64, 64), mode="bilinear", antialias=True) for x in (inputs.image, inputs.mask)]
    torch.testing.assert_close(joined, torch.cat([inputs.image_sr, up[0], inputs.correspondence, up[1]], dim=1))
    assert network(inputs, camera).shape == (2, 1)


def test_inputs_by_configuration():
    network, inputs, camera = tiny_case(with_correspondence=False, with_mask=False)
    assert network.join_inputs(inputs).shape == (2, 6, 64, 64)
    assert network(DiscriminatorInput(inputs.image_sr, inputs.image), camera).shape == (2, 1)
    full = tiny_case()[0]
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 1, H, W\), got None"):
        full(replace(inputs, mask=None), camera)
    with pytest.raises(ValueError, match=r"image_sr: expected shape \(B, 3, 64, 64\), got \(2, 3, 16, 16\)"):
        full(replace(inputs, image_sr=inputs.image), camera)


def test_gradients_reach_every_parameter_and_input():
    network, inputs, camera = tiny_case()
    leaves = [getattr(inputs, name).requires_grad_() for name in ("image_sr", "image", "correspondence", "mask")]
    F.softplus(network(inputs, camera)).mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)


def test_gradient_penalty_is_differentiable():
    network, inputs, camera = tiny_case()
    inputs.image_sr.requires_grad_()
    (slope,) = torch.autograd.grad(network(inputs, camera).sum(), inputs.image_sr, create_graph=True)
    slope.square().sum().backward()
    assert network.from_rgb.weight.grad.isfinite().all()
    assert network.blocks["32"].conv0.weight.grad.abs().sum() > 0


def test_camera_noise_follows_the_generator():
    network, inputs, camera = tiny_case(camera_noise=0.5)
    logits = [network(inputs, camera, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_parameter_count_is_the_published_one():
    with torch.device("meta"):
        network = Discriminator(DiscriminatorConfig())
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_360_000


@pytest.mark.slow
def test_conformance_at_full_size():
    state = filled_state("discriminator", "", fill_equalised, rename_discriminator)
    network = load_filled(lambda: Discriminator(DiscriminatorConfig()), state)
    inputs = DiscriminatorInput(
        hash_tensor(1000, [2, 3, 512, 512]),
        hash_tensor(1001, [2, 3, 128, 128]),
        hash_tensor(1002, [2, 3, 512, 512]),
        hash_tensor(1003, [2, 1, 128, 128]),
    )
    logits = network(inputs, hash_tensor(1004, [2, 25]))
    torch.testing.assert_close(logits, torch.tensor([[0.528618], [0.533559]]), atol=5e-6, rtol=0)
