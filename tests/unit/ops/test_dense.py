"""The fast routes of dense layers give PyTorch's own results, and stand aside for gradients and other types."""

import pytest
import torch
from torch.nn import functional

from portrait4d.ops.backend import keep_freed_memory, textbook_forms
from portrait4d.ops.dense import Conv3x3, DepthwiseConv3x3, Linear, convolve3x3, convolve_depthwise, linear
from tests.helpers.native import DEVICES


@pytest.mark.parametrize(("batch", "i", "o", "h", "w"), [(1, 32, 48, 64, 64), (2, 33, 35, 67, 71), (1, 3, 8, 9, 7)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution_equals_the_reference(
    batch: int, i: int, o: int, h: int, w: int, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, i, h, w, generator=generator).contiguous(memory_format=layout)
    weight, bias = torch.randn(o, i, 3, 3, generator=generator), torch.randn(o, generator=generator)
    for b in (bias, None):
        expected = functional.conv2d(x.double(), weight.double(), None if b is None else b.double(), padding=1)
        error = (convolve3x3(x, weight, b).double() - expected).abs().max() / expected.abs().max()
        assert error < 3e-5


def test_shapes_that_do_not_fit_are_named() -> None:
    x, weight = torch.randn(1, 32, 64, 64), torch.randn(32, 32, 3, 3)
    for wrong in ((x, torch.randn(32, 32, 5, 5)), (x[:, :16], weight), (x[0], weight), (x, weight, torch.zeros(16))):
        with pytest.raises(ValueError, match=r"x, weight and bias: expected \(B, I, H, W\), \(O, I, 3, 3\) and \(O,\)"):
            convolve3x3(*wrong)


@pytest.mark.parametrize("channels", [32, 48])
def test_a_bias_alone_may_want_gradients_and_batches_may_be_empty(channels: int) -> None:
    x, weight = torch.randn(1, channels, 64, 64), torch.randn(channels, channels, 3, 3)
    bias = torch.zeros(channels, requires_grad=True)
    convolve3x3(x, weight, bias).sum().backward()
    assert torch.equal(bias.grad, torch.full((channels,), 64.0 * 64))
    assert convolve3x3(x[:0], weight).shape == (0, channels, 64, 64)


@pytest.mark.parametrize(("batch", "n"), [(1, 1024), (2, 1500), (1, 5)])
def test_linear_equals_the_reference(batch: int, n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, n, 40, generator=generator)
    weight, bias = torch.randn(56, 40, generator=generator), torch.randn(56, generator=generator)
    torch.testing.assert_close(linear(x, weight, bias), functional.linear(x, weight, bias), atol=1e-4, rtol=1e-5)
    strided = torch.randn(batch, 40, n, generator=generator).transpose(1, 2)
    torch.testing.assert_close(linear(strided, weight), functional.linear(strided, weight), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("sizes", "padding"), [((1, 32, 9, 7, 3), 1), ((2, 8, 12, 12, 4), 1), ((1, 5, 6, 6, 3), 0)])
def test_depthwise_convolution_equals_the_reference(
    sizes: tuple[int, ...], padding: int, layout: torch.memory_format, device: str
) -> None:
    batch, channels, height, width, taps = sizes
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, height, width, generator=generator).to(device, memory_format=layout)
    weight, bias = torch.randn(channels, 1, taps, taps, generator=generator), torch.randn(channels, generator=generator)
    weight, bias = weight.to(device, memory_format=layout), bias.to(device)
    for b in (bias, None):
        offset = None if b is None else b.cpu().double()
        expected = functional.conv2d(x.cpu().double(), weight.cpu().double(), offset, padding=padding, groups=channels)
        ours = convolve_depthwise(x, weight, b, padding)
        torch.testing.assert_close(ours.cpu().double(), expected, atol=1e-5, rtol=0)
        half = convolve_depthwise(x.bfloat16(), weight.bfloat16(), None if b is None else b.bfloat16(), padding)
        assert (half.cpu().double() - expected).abs().max() < 0.03 * expected.abs().max()
    layer = DepthwiseConv3x3(channels).to(device)
    assert torch.equal(layer(x), convolve_depthwise(x, layer.weight, layer.bias))


def test_modules_train_and_work_in_half_precision() -> None:
    convolution, layer = Conv3x3(32, 32), Linear(32, 32)
    x = torch.randn(1, 32, 64, 64)
    layer(convolution(x).flatten(2).transpose(1, 2)).sum().backward()
    assert convolution.weight.grad.abs().sum() > 0 and layer.weight.grad.abs().sum() > 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert convolution(x).dtype == torch.bfloat16
        assert layer(torch.randn(1, 2048, 32)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("batch", "i", "o", "h", "w"), [(1, 32, 64, 64, 64), (2, 96, 32, 65, 71), (1, 64, 160, 97, 64), (1, 48, 32, 64, 64)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_bfloat16_convolution_rounds_little_more_than_the_reference(
    batch: int, i: int, o: int, h: int, w: int, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, i, h, w, generator=generator).bfloat16().contiguous(memory_format=layout)
    weight = torch.randn(o, i, 3, 3, generator=generator).bfloat16()
    for bias in (torch.randn(o, generator=generator).bfloat16(), None):
        ours = convolve3x3(x, weight, bias)
        expected = functional.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)
        assert ours.dtype == torch.bfloat16 and ours.shape == expected.shape
        rounding = expected.bfloat16().double() - expected
        assert 0 < (ours.double() - expected).square().mean().sqrt() < 4.5 * rounding.square().mean().sqrt()


def test_textbook_forms_are_pytorchs_own() -> None:
    x, weight = torch.randn(1, 32, 64, 64), torch.randn(32, 32, 3, 3)
    with torch.no_grad(), textbook_forms():
        assert torch.equal(convolve3x3(x, weight), functional.conv2d(x, weight, padding=1))
        tokens = x.flatten(2).transpose(1, 2).contiguous()
        assert torch.equal(linear(tokens, weight[:, :, 0, 0]), functional.linear(tokens, weight[:, :, 0, 0]))


def test_memory_setting_reports_whether_it_took_effect() -> None:
    assert keep_freed_memory() in (True, False)
