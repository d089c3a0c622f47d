"""The averaged network: parameters follow, buffers are copied, copies are exact."""

import pytest
import torch
from torch import nn

from portrait4d.training.weight_average import update_weight_average


def networks() -> list[nn.Module]:
    """Two batch normalisations with different weights, averages and counters."""
    made = [nn.BatchNorm1d(3), nn.BatchNorm1d(3)]
    for module, value in zip(made, (1.0, 5.0), strict=True):
        for tensor in module.state_dict().values():
            tensor.fill_(value)
    return made


@pytest.mark.parametrize("beta", [0.25, 0.75])
def test_parameters_follow_and_buffers_are_copied(beta: float) -> None:
    average, network = networks()
    update_weight_average(average, network, beta)
    torch.testing.assert_close(average.weight.detach(), torch.full((3,), 5 - 4 * beta))
    assert average.running_mean.tolist() == [5.0] * 3 and average.num_batches_tracked.item() == 5
    assert network.weight.tolist() == [5.0] * 3


def test_without_memory_it_is_a_copy_and_with_all_memory_it_stays() -> None:
    average, network = networks()
    network.weight.data = torch.tensor([0.1, 1e-30, 3e7])
    update_weight_average(average, network, 0.0)
    assert torch.equal(average.weight, network.weight)
    update_weight_average(average, networks()[0], 1.0)
    assert torch.equal(average.weight, network.weight)


def test_it_needs_no_gradient_and_keeps_the_flag() -> None:
    average, network = networks()
    update_weight_average(average.requires_grad_(False), network, 0.5)
    assert not average.weight.requires_grad and network.weight.requires_grad


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"average: expected the parameters of the network, .*'bias', 'weight'"):
        update_weight_average(nn.Identity(), nn.Linear(2, 2), 0.5)
    with pytest.raises(ValueError, match="the buffers of the network"):
        update_weight_average(nn.BatchNorm1d(3, track_running_stats=False), nn.BatchNorm1d(3), 0.5)
