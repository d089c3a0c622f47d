"""Up-sampling, FIR filtering, down-sampling: conformance values, a literal reference, types, gradients."""

import pytest
import torch

from portrait4d.ops.upfirdn2d import build_blur_filter, build_filter, downsample2d, filter2d, upfirdn2d, upsample2d
from tests.helpers.waves import wave


def literal_upfirdn(x, kernel, up, down, padding, gain):
    """Follow networks-stylegan.md §1.1 step by step, one output sample at a time."""
    batch, channels, height, width = x.shape
    left, right, top, bottom = padding
    spread = x.new_zeros(batch, channels, height * up, width * up)
    spread[:, :, ::up, ::up] = x
    spread = torch.nn.functional.pad(spread, (left, right, top, bottom))
    flipped = kernel.flip(0, 1)
    rows, columns = kernel.shape
    out_height, out_width = spread.shape[2] - rows + 1, spread.shape[3] - columns + 1
    result = x.new_zeros(batch, channels, out_height, out_width)
    for i in range(out_height):
        for j in range(out_width):
            result[:, :, i, j] = (spread[:, :, i : i + rows, j : j + columns] * flipped).sum((2, 3)) * gain
    return result[:, :, ::down, ::down]


def test_upsample_conformance():
    expected = [
        [0.056156, 0.141072, 0.273467, 0.394369, 0.503778, 0.418862],
        [0.231584, 0.378998, 0.519435, 0.639921, 0.740455, 0.593042],
        [0.545003, 0.760800, 0.829060, 0.868113, 0.877958, 0.662160],
        [0.526284, 0.713776, 0.737904, 0.736656, 0.710032, 0.522540],
    ]
    result = upsample2d(wave(1, 1, 2, 3), build_filter())
    torch.testing.assert_close(result[0, 0], torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("down", [1, 2, 3])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 1, 2, 1), (1, 1, 2, 2), (5, 7, 4, 6), (-1, 3, 2, -2)])
def test_equals_the_literal_definition(up, down, padding):
    x = wave(3, 2, 5, 7).double()
    kernel = wave(3, 4, frequency=1.3).double()  # asymmetric, so that flips show
    expected = literal_upfirdn(x, kernel, up, down, padding, 1.5)
    result = upfirdn2d(x, kernel, up=up, down=down, padding=padding, gain=1.5)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_separable_kernel_runs_along_x_then_y(up, down):
    x, taps = wave(1, 2, 6, 5).double(), wave(9, frequency=0.6).double()
    arguments = {"up": up, "down": down, "padding": (4, 3, 5, 4), "gain": 4.0}
    expected = upfirdn2d(x, torch.outer(taps, taps), **arguments)
    torch.testing.assert_close(upfirdn2d(x, taps, **arguments), expected)


def test_filter_builder():
    kernel = build_filter()
    assert kernel.shape == (4, 4)
    assert kernel.dtype == torch.float32
    assert torch.equal(kernel[1], torch.tensor([3, 9, 9, 3]) / 64)
    assert build_filter([1.0] * 8).shape == (8,)
    assert build_filter([1.0] * 8).sum() == 1
    with pytest.raises(ValueError, match="taps: expected a list of numbers"):
        build_filter([])


def test_filter2d_keeps_the_size_and_darkens_the_border():
    taps = build_filter([2.0 ** -((i / 2) ** 2) for i in range(-6, 7)])  # the blur of §1.1 with sigma 2
    torch.testing.assert_close(
        taps[:7],
        torch.tensor([0.000459, 0.003086, 0.014680, 0.049378, 0.117442, 0.197513, 0.234884]),
        atol=1e-6,
        rtol=0,
    )
    blurred = filter2d(torch.ones(1, 1, 17, 15), taps)
    assert blurred.shape == (1, 1, 17, 15)
    assert blurred[0, 0, 8, 7].item() == pytest.approx(1, abs=1e-6)
    assert blurred[0, 0, 0, 0].item() == pytest.approx((0.5 + 0.234884 / 2) ** 2, abs=1e-5)


def test_downsample_halves_and_keeps_the_mean_inside():
    result = downsample2d(torch.ones(2, 3, 8, 12), build_filter())
    assert result.shape == (2, 3, 4, 6)
    torch.testing.assert_close(result[:, :, 1:-1, 1:-1], torch.ones(2, 3, 2, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once(dtype):
    x = wave(1, 3, 7, 6).to(dtype)
    assert torch.equal(upsample2d(x, build_filter()), upsample2d(x.float(), build_filter()).to(dtype))


def test_memory_format_does_not_change_the_values():
    x = wave(2, 5, 6, 7)
    expected = upsample2d(x, build_filter())
    torch.testing.assert_close(upsample2d(x.to(memory_format=torch.channels_last), build_filter()), expected)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"x: expected 4 axes \(B, C, H, W\), got 3"):
        upfirdn2d(torch.zeros(1, 4, 4), build_filter())
    with pytest.raises(ValueError, match="kernel: expected 1 or 2 axes, got 3"):
        upfirdn2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="up, down: expected at least 1, got 0, 1"):
        upfirdn2d(torch.zeros(1, 1, 4, 4), build_filter(), up=0)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_first_and_second_derivatives(up, down):
    x = wave(2, 2, 4, 3).double().requires_grad_()
    kernel = wave(4, 4, frequency=0.7).double()

    def filtered(picture):
        return upfirdn2d(picture, kernel, up=up, down=down, padding=(2, 1, 2, 1)).square()

    assert torch.autograd.gradcheck(filtered, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(filtered, (x,), fast_mode=True)


def test_blur_filter_conformance():
    expected = [0.000917, 0.029358, 0.234862, 0.469725, 0.234862, 0.029358, 0.000917]
    torch.testing.assert_close(build_blur_filter(1.0), torch.tensor(expected), atol=1e-6, rtol=0)
    expected = [0.000459, 0.003086, 0.014680, 0.049378, 0.117442, 0.197513, 0.234884]
    taps = build_blur_filter(2.0)
    torch.testing.assert_close(taps[:7], torch.tensor(expected), atol=1e-6, rtol=0)
    assert taps.equal(taps.flip(0)) and len(taps) == 13
    assert build_blur_filter(10.0).shape == (61,)
    assert build_blur_filter(0.3).tolist() == [1.0] == build_blur_filter(0.0).tolist()
    with pytest.raises(ValueError, match="sigma: expected at least 0 pixels, got -1"):
        build_blur_filter(-1)
