"""Bias and activation: formula, order, types, errors, gradients."""

import math

import pytest
import torch

from portrait4d.ops.bias_act import bias_act
from tests.helpers.waves import wave


def test_follows_the_formula_in_the_order_bias_activation_gain_clamp():
    x, bias = 3 * wave(2, 3, 5), wave(3, frequency=0.9)
    shifted = x + bias[:, None]
    expected = (torch.where(shifted > 0, shifted, 0.2 * shifted) * 1.7).clamp(-1.1, 1.1)
    torch.testing.assert_close(bias_act(x, bias, "leaky_relu", gain=1.7, clamp=1.1), expected)


@pytest.mark.parametrize(
    ("activation", "expected"), [("linear", -1.0), ("leaky_relu", -0.2 * math.sqrt(2)), ("sigmoid", 0.2689414)]
)
def test_default_gains(activation, expected):
    assert bias_act(torch.tensor([[-1.0]]), None, activation).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("channel_dim", [0, 1, -1])
def test_bias_belongs_to_the_channel_axis(channel_dim):
    x = torch.zeros(2, 2, 2)
    result = bias_act(x, torch.tensor([1.0, 2.0]), channel_dim=channel_dim)
    assert torch.equal(result.movedim(channel_dim, -1)[0, 0], torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once(dtype):
    x, bias = wave(1, 4, 3, 3).to(dtype), wave(4, frequency=0.8)
    expected = bias_act(x.float(), bias, "leaky_relu").to(dtype)
    assert torch.equal(bias_act(x, bias, "leaky_relu"), expected)


def test_errors_name_the_argument():
    x = torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match=r"activation: expected one of .*, got 'swish'"):
        bias_act(x, None, "swish")
    with pytest.raises(ValueError, match=r"bias: expected shape \(3,\), got \(2,\)"):
        bias_act(x, torch.zeros(2))
    with pytest.raises(ValueError, match="clamp: expected a positive number, got 0"):
        bias_act(x, clamp=0.0)


@pytest.mark.parametrize("activation", ["linear", "leaky_relu", "sigmoid"])
def test_first_and_second_derivatives(activation):
    x = wave(2, 3, 4).double().requires_grad_()
    bias = wave(3, frequency=0.9).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: bias_act(*a, activation, clamp=0.9), (x, bias))
    assert torch.autograd.gradgradcheck(lambda *a: bias_act(*a, activation, clamp=0.9), (x, bias))
