"""Convolutional encoders: conformance values, coordinates, folded pooling, shapes, gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from portrait4d.config.networks import GlobalEncoderConfig, ReconstructorConfig, tiny_reconstructor
from portrait4d.models.reconstructor_encoders import (
    BackgroundEncoder,
    DetailEncoder,
    GlobalEncoder,
    SpatialPyramid,
    with_coordinates,
)
from tests.helpers.hash_fill import fill_plain, hash_tensor
from tests.helpers.published_weights import filled_module, summarise
from tests.helpers.waves import wave

PUBLISHED = ReconstructorConfig()
TINY = tiny_reconstructor()


def test_global_encoder_conformance():
    network = filled_module(lambda: GlobalEncoder(PUBLISHED.global_encoder), "encoder_global", fill_plain)
    features = network(hash_tensor(1000, [1, 3, 64, 64]))
    assert features.shape == (1, 256, 8, 8)
    assert summarise(features) == pytest.approx([28.3366, 42.309, 62.06, 47.7407, 0, 0], rel=5e-6)


def test_detail_encoder_conformance():
    network = filled_module(lambda: DetailEncoder(64, 96), "encoder_detail", fill_plain)
    features = network(hash_tensor(1000, [1, 3, 32, 32]))
    assert features.shape == (1, 96, 16, 16)
    expected = [0.392672, 0.552481, -0.000997727, -0.00343201, -0.00510131, 0.0953886]
    assert summarise(features) == pytest.approx(expected, rel=1e-5)


def test_background_encoder_conformance():
    network = filled_module(lambda: BackgroundEncoder(PUBLISHED.background_widths, 32), "background", fill_plain)
    logits = network(hash_tensor(1000, [1, 3, 64, 64]))
    assert logits.shape == (1, 32, 64, 64)
    expected = [-0.0847058, 3.14264, 0.405626, 1.16156, 0.110545, -0.815607]
    assert summarise(logits) == pytest.approx(expected, rel=1e-5)


def test_coordinates_are_column_ramp_then_row_ramp():
    image = wave(2, 3, 3, 5)
    result = with_coordinates(image)
    assert torch.equal(result[:, :3], image)
    assert torch.equal(result[1, 3, 2], torch.tensor([-1, -0.5, 0, 0.5, 1]))
    assert torch.equal(result[1, 4, :, 3], torch.tensor([-1.0, 0, 1]))


def test_folded_pooling_equals_the_published_form():
    torch.manual_seed(0)
    pyramid = SpatialPyramid(6, 4, (1, 2, 3))
    x = wave(3, 6, 7, 9)
    maps = [F.relu(branch(x)) for branch in pyramid.branches]
    pooled = F.relu(pyramid.pooled(F.adaptive_avg_pool2d(x, 1)))
    maps.append(F.interpolate(pooled, (7, 9), mode="bilinear"))
    torch.testing.assert_close(pyramid(x), F.relu(pyramid.projection(torch.cat(maps, 1))))


def build_tiny() -> list[tuple[torch.nn.Module, tuple[int, int]]]:
    torch.manual_seed(0)
    return [
        (GlobalEncoder(TINY.global_encoder), (16, 8)),
        (DetailEncoder(TINY.detail_channels, TINY.plane_channels), (TINY.plane_channels, 32)),
        (BackgroundEncoder(TINY.background_widths, TINY.plane_features), (TINY.plane_features, 64)),
    ]


@pytest.mark.parametrize("index", range(3))
def test_tiny_shapes_layouts_and_gradients_for_an_odd_batch(index):
    network, (channels, size) = build_tiny()[index]
    image = wave(3, 3, 64, 64).requires_grad_()
    output = network(image)
    assert output.shape == (3, channels, size, size)
    output.square().mean().backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    network.to(memory_format=torch.channels_last)
    again = network(image)
    assert again.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(again, output, atol=5e-6 * output.abs().max().item(), rtol=0)


def test_background_needs_multiples_of_16():
    with pytest.raises(ValueError, match=r"image: expected sides that are multiples of 16, got \(64, 40\)"):
        build_tiny()[2][0](torch.zeros(1, 3, 64, 40))


def test_trunk_starts_from_resnet_weights():
    config = GlobalEncoderConfig((4, 4, 6, 6), (1, 2, 1, 1), 4, (1, 2, 3))
    network = GlobalEncoder(config)
    names = {"conv1.weight": (4, 3, 7, 7), "fc.weight": (10, 6), "bn1.weight": (4,)}
    names |= {"layer1.0.conv1.weight": (4, 4, 3, 3), "layer1.0.conv2.weight": (4, 4, 3, 3)}
    names |= {f"layer2.{i}.conv{j}.weight": (4, 4, 3, 3) for i in (0, 1) for j in (1, 2)}
    names |= {"layer2.0.downsample.0.weight": (4, 4, 1, 1)}
    names |= {"layer3.0.conv1.weight": (6, 4, 3, 3), "layer3.0.conv2.weight": (6, 6, 3, 3)}
    names |= {"layer3.0.downsample.0.weight": (6, 4, 1, 1)}
    names |= {"layer4.0.conv1.weight": (6, 6, 3, 3), "layer4.0.conv2.weight": (6, 6, 3, 3)}
    weights = {name: hash_tensor(i, shape) for i, (name, shape) in enumerate(names.items())}
    network.load_resnet_trunk(weights)
    expected = weights["conv1.weight"][:, [0, 1, 2, 0, 1]] * 0.6
    torch.testing.assert_close(network.stem.weight.detach(), expected)
    assert torch.equal(network.stage3[0].shortcut.weight, weights["layer3.0.downsample.0.weight"])
    assert torch.equal(network.stage2[1].conv2.weight, weights["layer2.1.conv2.weight"])
    del weights["layer4.0.conv2.weight"]
    with pytest.raises(KeyError, match="layer4.0.conv2.weight"):
        network.load_resnet_trunk(weights)


def test_initial_values():
    torch.manual_seed(0)
    network = DetailEncoder(16, 32)
    assert network.layers[2].weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.05)
