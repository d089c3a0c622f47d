"""Smooth periodic noise in space with its gradient, from a seeded table; the same on every machine and device."""

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

PERIOD = 32


@cache
def _table(device: torch.device) -> Tensor:
    """Return (1, 4, 33, 33, 33): values of unit deviation and their gradient along x, y, z."""
    number = torch.arange(PERIOD**3, dtype=torch.int64)
    mixed = (number * 2654435761 + 12345) % 2**32
    mixed = (mixed ^ (mixed >> 15)) * 2246822519 % 2**32
    mixed = (mixed ^ (mixed >> 13)) * 3266489917 % 2**32
    value = (mixed.double() / 2**32 - 0.5).view(PERIOD, PERIOD, PERIOD) * 12**0.5
    for axis in range(3):
        value = 0.25 * value.roll(1, axis) + 0.5 * value + 0.25 * value.roll(-1, axis)
    value = value / value.std()
    gradient = [0.5 * (value.roll(-1, axis) - value.roll(1, axis)) for axis in (2, 1, 0)]
    table = torch.stack([value, *gradient])
    for axis in (1, 2, 3):
        table = torch.cat([table, table.narrow(axis, 0, 1)], dim=axis)
    return table[None].float().to(device)


def smooth_noise(points: Tensor) -> Tensor:
    """Return noise at points (N, 3), one cell per unit: (N, 4) = value | gradient; deviation of the value about 1."""
    wrapped = torch.remainder(points, PERIOD) / PERIOD * 2 - 1
    values = grid_sample(_table(points.device), wrapped[None, None, None], align_corners=True)
    return values[0, :, 0, 0].T


def fractal_noise(points: Tensor, octaves: int) -> Tensor:
    """Return a sum (N,) of `octaves` of noise at points (N, 3), each twice as fine and half as strong."""
    total = points.new_zeros(len(points))
    for octave in range(octaves):
        total = total + 0.5**octave * smooth_noise(points * 2.03**octave + 7.3 * octave)[:, 0]
    return total
