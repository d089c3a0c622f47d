"""Gaussian blur of training pictures: taps, borders, and nothing where the blur is too narrow to matter."""

import pytest
import torch

from portrait4d.ops.upfirdn2d import blur2d


def test_an_impulse_becomes_the_product_of_base_two_bells() -> None:
    picture = torch.zeros(1, 2, 15, 15)
    picture[0, 1, 7, 7] = 1
    blurred = blur2d(picture, 2.0)
    taps = 2.0 ** -((torch.arange(-6, 7) / 2.0) ** 2)
    expected = torch.zeros(15)
    expected[1:14] = taps / taps.sum()
    torch.testing.assert_close(blurred[0, 1], torch.outer(expected, expected))
    assert not blurred[0, 0].any()


def test_zeros_lie_beyond_the_border() -> None:
    blurred = blur2d(torch.ones(1, 1, 40, 40), 1.0)
    taps = 2.0 ** -(torch.arange(-3.0, 4.0) ** 2)
    inside = taps[3:].sum() / taps.sum()
    torch.testing.assert_close(blurred[0, 0, 0, 0], inside**2)
    torch.testing.assert_close(blurred[0, 0, 20, 20], torch.tensor(1.0))


@pytest.mark.parametrize("sigma", [0.0, 0.33])
def test_a_narrow_blur_returns_the_picture_itself(sigma: float) -> None:
    picture = torch.rand(1, 3, 4, 4)
    assert blur2d(picture, sigma) is picture
    assert blur2d(picture, 0.34) is not picture


def test_a_negative_width_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma: expected at least 0"):
        blur2d(torch.rand(1, 3, 4, 4), -1.0)
