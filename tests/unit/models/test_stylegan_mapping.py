"""Mapping network: conformance values, truncation, running average, errors, gradients."""

import pytest
import torch

from portrait4d.config.gan_networks import MappingConfig
from portrait4d.models.stylegan_mapping import MappingNetwork, Truncation
from tests.helpers.waves import wave

ROW = [-0.002529, 0.895975, -0.321482]


def specified_network() -> MappingNetwork:
    network = MappingNetwork(MappingConfig(3, 2, 3, 2, 0.998), num_styles=2).requires_grad_(False)
    network.embedding.weight.copy_(wave(3, 2))
    network.embedding.bias.copy_(0.1 * wave(3))
    network.layers[0].weight.copy_(100 * wave(3, 6))
    network.layers[0].bias.copy_(50 * wave(3))
    network.layers[1].weight.copy_(100 * wave(3, 3, frequency=0.9))
    network.average.copy_(wave(3, frequency=1.1))
    return network


def specified_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return wave(1, 3, frequency=0.5), wave(1, 2, frequency=2.0)


def test_conformance():
    styles = specified_network()(*specified_inputs())
    torch.testing.assert_close(styles[0], torch.tensor([ROW, ROW]), atol=2e-6, rtol=0)


def test_truncation_conformance_reaches_the_first_rows_only():
    styles = specified_network()(*specified_inputs(), Truncation(0.7, 1))
    expected = torch.tensor([[0.028180, 0.906794, -0.001326], ROW])
    torch.testing.assert_close(styles[0], expected, atol=2e-6, rtol=0)


def test_truncation_extremes():
    network = specified_network()
    plain = network(*specified_inputs())
    assert torch.equal(network(*specified_inputs(), Truncation(1.0, 1)), plain)
    average = network(*specified_inputs(), Truncation(0.0))
    assert torch.equal(average, network.average.expand(1, 2, 3))
    assert torch.equal(network(*specified_inputs(), Truncation(0.5, 99)), network(*specified_inputs(), Truncation(0.5)))


def test_the_average_follows_the_batch_only_when_asked():
    network = specified_network()
    before = network.average.clone()
    latent, condition = wave(4, 3), wave(4, 2)
    styles = network(latent, condition)
    assert torch.equal(network.average, before)
    network(latent, condition, update_average=True)
    mean = styles[:, 0].mean(0)
    torch.testing.assert_close(network.average, mean + 0.998 * (before - mean))


def test_latent_and_condition_are_normalised():
    network = specified_network()
    latent, condition = specified_inputs()
    torch.testing.assert_close(network(5 * latent, condition), network(latent, condition), atol=1e-5, rtol=0)


def test_networks_of_one_input():
    only_condition = MappingNetwork(MappingConfig(0, 25, 8, 2))
    assert only_condition(None, wave(2, 25)).shape == (2, 1, 8)
    assert "average" not in only_condition.state_dict()
    assert MappingNetwork(MappingConfig(6, 0, 8, 3), 5)(wave(2, 6)).shape == (2, 5, 8)


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = MappingNetwork(MappingConfig(3, 2, 4, 2, 0.998), 2)
    network(wave(2, 3), wave(2, 2), update_average=True).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert not network.average.requires_grad


def test_errors_name_the_argument():
    network = specified_network()
    with pytest.raises(ValueError, match=r"latent: expected shape \(B, 3\), got None"):
        network(None, wave(1, 2))
    with pytest.raises(ValueError, match=r"condition: expected shape \(B, 2\), got \(1, 5\)"):
        network(wave(1, 3), wave(1, 5))
    plain = MappingNetwork(MappingConfig(3, 0, 4, 1))
    with pytest.raises(ValueError, match=r"condition: expected None, got \(1, 2\)"):
        plain(wave(1, 3), wave(1, 2))
    with pytest.raises(ValueError, match="truncation: expected none for a network that keeps no average"):
        plain(wave(1, 3), None, Truncation(0.5))
    with pytest.raises(ValueError, match="update_average: expected none for a network that keeps no average"):
        plain(wave(1, 3), update_average=True)
