"""Bias, activation, gain and clamp as one pure function (networks-stylegan.md §1.2)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F

Activation = Literal["linear", "leaky_relu", "sigmoid"]

LEAKY_SLOPE = 0.2
"""Slope of the StyleGAN leaky ReLU below zero."""

DEFAULT_GAINS: dict[Activation, float] = {"linear": 1.0, "leaky_relu": math.sqrt(2.0), "sigmoid": 1.0}
"""Gain of each activation where the caller gives none; it keeps unit variance."""


def bias_act(
    x: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: Activation = "linear",
    *,
    channel_dim: int = 1,
    gain: float | None = None,
    clamp: float | None = None,
) -> torch.Tensor:
    """Return clamp(gain * activation(x + bias), ±clamp), networks-stylegan.md §1.2.

    Half-precision input is computed in float32 and rounded once at the end.

    Args:
        x: any shape, floating.
        bias: (x.shape[channel_dim],), added along `channel_dim`.
        activation: "linear", "leaky_relu" (slope 0.2) or "sigmoid".
        channel_dim: axis of `x` that `bias` belongs to.
        gain: factor after the activation; None takes 1, √2, 1 in the order above.
        clamp: bound of the absolute value of the result, > 0; None leaves it open.

    Returns:
        A tensor of the shape and type of `x`.

    Raises:
        ValueError: on an unknown activation, a bias of another length or a clamp that is not positive.
    """
    if activation not in DEFAULT_GAINS:
        raise ValueError(f"activation: expected one of {sorted(DEFAULT_GAINS)}, got {activation!r}")
    if clamp is not None and clamp <= 0:
        raise ValueError(f"clamp: expected a positive number, got {clamp}")
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    if bias is not None:
        if bias.shape != (x.shape[channel_dim],):
            raise ValueError(f"bias: expected shape ({x.shape[channel_dim]},), got {tuple(bias.shape)}")
        trailing_axes = x.ndim - 1 - channel_dim % x.ndim
        y = y + bias.to(y.dtype).reshape(-1, *(1,) * trailing_axes)
    if activation == "leaky_relu":
        y = F.leaky_relu(y, LEAKY_SLOPE)
    elif activation == "sigmoid":
        y = torch.sigmoid(y)
    factor = DEFAULT_GAINS[activation] if gain is None else gain
    if factor != 1.0:
        y = y * factor
    if clamp is not None:
        y = y.clamp(-clamp, clamp)
    return y.to(x.dtype)
