"""Antialiased resizing: constants, means, identity, half types, gradients."""

import pytest
import torch

from portrait4d.ops.resize import resize_antialiased
from tests.helpers.waves import wave


def test_constants_stay_and_means_are_kept_when_sizes_divide():
    assert torch.allclose(resize_antialiased(torch.full((1, 2, 12, 12), 0.3), 5), torch.tensor(0.3))
    spot = torch.zeros(1, 1, 64, 64)
    spot[:, :, 30:34, 20:40] = 1
    small = resize_antialiased(spot, 16)
    assert small.mean().item() == pytest.approx(spot.mean().item(), rel=1e-5)
    assert 0 < small.max() < 1  # antialiased: every pixel counts


def test_half_pixel_centres():
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    torch.testing.assert_close(resize_antialiased(ramp, 4)[0, 0, 0, 1:3], torch.tensor([5.5, 9.5]))


def test_a_picture_of_the_right_size_is_returned_as_it_is():
    picture = wave(1, 1, 4, 4)
    assert resize_antialiased(picture, 4) is picture


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_full_precision(dtype):
    picture = wave(1, 3, 20, 20).to(dtype)
    expected = resize_antialiased(picture.float(), 7).to(dtype)
    assert torch.equal(resize_antialiased(picture, 7), expected)


def test_gradients():
    picture = wave(1, 1, 6, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resize_antialiased(x, 4), (picture,))
