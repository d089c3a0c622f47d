"""Canonical encoder: conformance values, its two halves, motion scale, shapes, gradients."""

import pytest
import torch

from portrait4d.config.networks import ReconstructorConfig, tiny_reconstructor
from portrait4d.models.canonical_encoder import CanonicalEncoder
from tests.helpers.hash_fill import fill_plain, hash_tensor
from tests.helpers.published_weights import filled_module, summarise
from tests.helpers.waves import wave


@pytest.fixture(scope="module")
def published() -> CanonicalEncoder:
    return filled_module(lambda: CanonicalEncoder(ReconstructorConfig()), "encoder_canonical", fill_plain)


@pytest.fixture
def tiny() -> CanonicalEncoder:
    torch.manual_seed(0)
    return CanonicalEncoder(tiny_reconstructor())


def tiny_inputs() -> list[torch.Tensor]:
    return [wave(3, 16, 8, 8), wave(3, 109, frequency=0.5), wave(3, 109, frequency=0.9)]


def conformance_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return global features, source motion and driving motion."""
    return hash_tensor(1000, [1, 256, 8, 8]), hash_tensor(1002, [1, 548]), hash_tensor(1001, [1, 548])


def test_conformance(published):
    shuffled = []
    handle = published.upsampler.register_forward_pre_hook(lambda _, inputs: shuffled.append(inputs[0]))
    features = published(*conformance_inputs(), 1.0)
    handle.remove()
    assert shuffled[0].shape == (1, 256, 8, 8)
    expected = [-0.194105, 6.38316, 7.00111, -8.5984, -9.649, -2.38832]
    assert summarise(shuffled[0]) == pytest.approx(expected, abs=4e-5)
    assert features.shape == (1, 96, 32, 32)
    expected = [0.592003, 5.82335, -0.256323, 4.32457, 0.508899, 0.0248581]
    assert summarise(features) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("motion_scale", [0, torch.zeros(1, 1, 1)])
def test_conformance_without_motion(published, motion_scale):
    features = published(*conformance_inputs(), motion_scale)
    expected = [0.45663, 5.64418, 0.34014, 0.762112, -0.116744, -0.427603]
    assert summarise(features) == pytest.approx(expected, abs=2e-5)


def test_the_halves_make_the_whole_for_an_odd_batch(tiny):
    features, source, driving = tiny_inputs()
    scale = torch.tensor([0.0, 0.5, 1.0])[:, None, None]
    tokens = tiny.canonicalise(features, source, scale)
    assert tokens.shape == (3, 16, 32)
    whole = tiny(features, source, driving, scale)
    assert whole.shape == (3, 24, 32, 32)
    assert torch.equal(tiny.reenact(tokens, driving, scale), whole)
    still = tiny(features[:1], source[:1], driving[:1], 0.0)
    torch.testing.assert_close(still, whole[:1])


def test_only_the_second_half_sees_the_driver(tiny):
    features, source, driving = tiny_inputs()
    tokens = tiny.canonicalise(features, source)
    assert not torch.allclose(tiny.reenact(tokens, driving), tiny.reenact(tokens, source))
    assert not torch.allclose(tokens, tiny.canonicalise(features, driving))


def test_memory_format_does_not_change_the_values(tiny):
    inputs = tiny_inputs()
    expected = tiny(*inputs)
    tiny.to(memory_format=torch.channels_last)
    result = tiny(inputs[0].to(memory_format=torch.channels_last), *inputs[1:])
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


def test_tokens_must_fill_a_square(tiny):
    with pytest.raises(ValueError, match="tokens: expected a square number of them, got 15"):
        tiny.reenact(torch.zeros(1, 15, 32), torch.zeros(1, 109))


def test_gradients_reach_every_parameter_and_input(tiny):
    inputs = [tensor.requires_grad_() for tensor in tiny_inputs()]
    tiny(*inputs).square().mean().backward()
    for tensor in (*inputs, *tiny.parameters()):
        assert tensor.grad is not None


def test_initial_values(tiny):
    assert tiny.driving_motion.expansion.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not tiny.upsampler[1].bias.any()
    assert tiny.neutral_blocks[0].cross_attention.output.weight.any()  # not started at zero, as published
