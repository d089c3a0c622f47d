"""Plane generator: conformance value, folded detail, shapes, gradients."""

import pytest
import torch
import torch.nn.functional as F

from portrait4d.config.networks import ReconstructorConfig, tiny_reconstructor
from portrait4d.models.plane_generator import PlaneGenerator
from tests.helpers.hash_fill import fill_plain, hash_tensor
from tests.helpers.published_weights import filled_module, summarise
from tests.helpers.waves import wave


def build_tiny() -> PlaneGenerator:
    torch.manual_seed(0)
    return PlaneGenerator(tiny_reconstructor())


def test_conformance():
    network = filled_module(lambda: PlaneGenerator(ReconstructorConfig()), "generator_triplane", fill_plain)
    canonical, detail = hash_tensor(1000, [1, 96, 16, 16]), hash_tensor(1001, [1, 96, 16, 16])
    planes = network(canonical, network.fold_detail(detail))
    assert planes.shape == (1, 96, 16, 16)
    expected = [0.349373, 2.96567, -0.474076, 0.870954, 1.0889, -1.01546]
    assert summarise(planes) == pytest.approx(expected, abs=1e-5)


def test_folded_detail_and_canonical_features_make_the_first_convolution():
    network = build_tiny()
    torch.nn.init.normal_(network.input_conv.bias)
    canonical, detail = wave(3, 24, 8, 8), wave(3, 24, 8, 8, frequency=0.9)
    seen = []
    network.embedding_conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(canonical, network.fold_detail(detail))
    expected = F.leaky_relu(network.input_conv(torch.cat((canonical, detail), 1)), 0.01)
    torch.testing.assert_close(seen[0], expected)


def test_one_source_serves_a_batch_of_frames_and_is_left_alone():
    network = build_tiny()
    canonical, folded = wave(3, 24, 32, 32), network.fold_detail(wave(1, 24, 32, 32, frequency=0.9))
    before = folded.clone()
    planes = network(canonical, folded)
    assert planes.shape == (3, 24, 32, 32)
    torch.testing.assert_close(planes[2:], network(canonical[2:], folded), atol=1e-5, rtol=1e-4)
    assert torch.equal(folded, before)


def test_memory_format_does_not_change_the_values():
    network = build_tiny()
    canonical, detail = wave(1, 24, 32, 32), wave(1, 24, 32, 32, frequency=0.9)
    expected = network(canonical, network.fold_detail(detail))
    network.to(memory_format=torch.channels_last)
    result = network(canonical.to(memory_format=torch.channels_last), network.fold_detail(detail))
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


def test_sides_must_be_multiples_of_4():
    network = build_tiny()
    with pytest.raises(ValueError, match=r"canonical: expected sides that are multiples of 4, got \(30, 32\)"):
        network(torch.zeros(1, 24, 30, 32), torch.zeros(1, 16, 30, 32))


def test_gradients_reach_every_parameter_and_input():
    network = build_tiny()
    canonical, detail = wave(3, 24, 32, 32).requires_grad_(), wave(3, 24, 32, 32).requires_grad_()
    network(canonical, network.fold_detail(detail)).square().mean().backward()
    for tensor in (canonical, detail, *network.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_initial_values():
    network = build_tiny()
    assert network.output_conv.weight.std().item() == pytest.approx(0.15, rel=0.05)
    assert not network.output_conv.bias.any()
