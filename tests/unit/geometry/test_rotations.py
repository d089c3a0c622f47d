"""Rotations against matrix exponentials and known turns."""

import math

import torch
from torch.func import jacrev, vmap

from portrait4d.geometry.rotations import (
    axis_angle_derivatives,
    axis_angle_to_matrix,
    rotation_about_x,
    rotation_about_y,
)


def test_axis_angle_is_the_matrix_exponential() -> None:
    vectors = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    skew = torch.zeros(50, 3, 3, dtype=torch.float64)
    for (row, column), (axis, sign) in {(0, 1): (2, -1), (0, 2): (1, 1), (1, 2): (0, -1)}.items():
        skew[:, row, column] = sign * vectors[:, axis]
        skew[:, column, row] = -sign * vectors[:, axis]
    torch.testing.assert_close(axis_angle_to_matrix(vectors), torch.linalg.matrix_exp(skew), atol=1e-7, rtol=0)


def test_zero_is_exactly_the_identity() -> None:
    assert torch.equal(axis_angle_to_matrix(torch.zeros(2, 3)), torch.eye(3).expand(2, 3, 3))


def test_leading_axes_are_kept() -> None:
    assert axis_angle_to_matrix(torch.zeros(2, 5, 3)).shape == (2, 5, 3, 3)


def test_quarter_turns() -> None:
    quarter = torch.tensor(math.pi / 2)
    turned = rotation_about_y(quarter) @ torch.tensor([0.0, 0, 1])
    torch.testing.assert_close(turned, torch.tensor([1.0, 0, 0]), atol=1e-6, rtol=0)
    turned = rotation_about_x(quarter) @ torch.tensor([0.0, 1, 0])
    torch.testing.assert_close(turned, torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0)


def test_derivatives_are_those_of_the_matrices() -> None:
    vectors = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    vectors[0] *= 1e-3
    automatic = vmap(jacrev(axis_angle_to_matrix))(vectors)
    torch.testing.assert_close(axis_angle_derivatives(vectors), automatic, atol=1e-5, rtol=0)


def test_derivatives_at_rest_are_the_axes() -> None:
    expected = torch.zeros(3, 3, 3)
    for axis, (first, second) in enumerate(((1, 2), (2, 0), (0, 1))):
        expected[second, first, axis], expected[first, second, axis] = 1, -1
    assert torch.equal(axis_angle_derivatives(torch.zeros(3)), expected)
