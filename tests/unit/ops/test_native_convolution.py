"""The native convolutions against exact numbers and PyTorch's, where the processor has the instructions."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.ops.backend import without_native
from portrait4d.ops.dense import convolve3x3
from tests.helpers.native import relative_error, require_native

pytestmark = pytest.mark.slow

NO_ACTIVATION = (1.0, math.inf)
"""Slope and limit."""

SIZES = [(1, 32, 32, 1, 1), (2, 32, 64, 7, 9), (1, 96, 32, 65, 3), (1, 64, 96, 2, 50), (3, 352, 32, 12, 11)]


@pytest.fixture(autouse=True)
def _native(monkeypatch: pytest.MonkeyPatch) -> None:
    require_native(monkeypatch)
    if not (torch.ops.portrait4d.convolves_bfloat16() and torch.ops.portrait4d.convolves_float32()):
        pytest.skip("this processor has no AVX-512 or no bfloat16 products")


def random_inputs(
    batch: int, inputs: int, outputs: int, height: int, width: int, dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pictures, weights and bias."""
    generator = torch.Generator().manual_seed(height)
    sizes = (batch, inputs, height, width), (outputs, inputs, 3, 3), (outputs,)
    return tuple(torch.randn(size, generator=generator).to(dtype) for size in sizes)


@pytest.mark.parametrize("sizes", SIZES)
def test_rounding_is_that_of_bfloat16(sizes: tuple[int, ...]) -> None:
    picture, weight, bias = random_inputs(*sizes)
    expected = functional.conv2d(picture.double(), weight.double(), bias.double(), padding=1)
    rounding = (expected.bfloat16().double() - expected).square().mean().sqrt()
    for layout in (torch.contiguous_format, torch.channels_last):
        given = picture.contiguous(memory_format=layout)
        ours = torch.ops.portrait4d.convolve3x3(given, weight, bias, *NO_ACTIVATION)
        assert ours.shape == expected.shape and ours.is_contiguous(memory_format=torch.channels_last)
        assert (ours.double() - expected).square().mean().sqrt() < 4.5 * rounding


@pytest.mark.parametrize("sizes", SIZES)
def test_float32_is_exact_to_the_rounding_of_its_transforms(sizes: tuple[int, ...]) -> None:
    picture, weight, bias = random_inputs(*sizes, dtype=torch.float32)
    expected = functional.conv2d(picture.double(), weight.double(), bias.double(), padding=1)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = picture.contiguous(memory_format=layout)
        ours = torch.ops.portrait4d.convolve3x3(given, weight, bias, *NO_ACTIVATION)
        assert ours.is_contiguous(memory_format=torch.channels_last)
        assert relative_error(ours.double(), expected) < 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activation_follows(dtype: torch.dtype) -> None:
    picture, weight, bias = random_inputs(1, 32, 32, 9, 7, dtype=dtype)
    plain = torch.ops.portrait4d.convolve3x3(picture, weight, bias, *NO_ACTIVATION)
    expected = functional.leaky_relu(plain, 0.25).clamp(-3, 3)  # a power of two and few digits: exact in both types
    assert torch.equal(torch.ops.portrait4d.convolve3x3(picture, weight, bias, 0.25, 3.0), expected)


def test_a_kernel_of_one_number_moves_the_picture_and_zeros_surround_it() -> None:
    picture = torch.randint(-8, 8, (1, 32, 6, 5)).bfloat16()
    weight = torch.zeros(32, 32, 3, 3).bfloat16()
    weight[torch.arange(32), torch.arange(32), 0, 2] = 4  # the pixel above, to the right
    result = torch.ops.portrait4d.convolve3x3(picture, weight, None, *NO_ACTIVATION)
    expected = 4 * functional.pad(picture, (0, 1, 1, 0))[:, :, :-1, 1:]
    torch.testing.assert_close(result, expected, atol=1, rtol=0)  # a step of the picture is 4


def test_nothing_gives_nothing_and_nan_spreads_no_further_than_a_tile() -> None:
    picture, weight, bias = random_inputs(1, 32, 32, 8, 16)
    assert torch.ops.portrait4d.convolve3x3(picture[:0], weight, bias, *NO_ACTIVATION).shape == (0, 32, 8, 16)
    picture[0, 3, 4, 8] = torch.nan
    nan = torch.ops.portrait4d.convolve3x3(picture, weight, bias, *NO_ACTIVATION).isnan().any(dim=1)[0]
    assert nan[3:6, 7:10].all()
    assert not nan[:2].any() and not nan[:, :4].any() and not nan[:, 12:].any()


def test_it_serves_large_pictures_of_fitting_channels() -> None:
    picture, weight, bias = random_inputs(1, 32, 32, 64, 64)
    with torch.no_grad():
        ours = convolve3x3(picture, weight, bias)
        assert torch.equal(ours, torch.ops.portrait4d.convolve3x3(picture, weight, bias, *NO_ACTIVATION))
        with without_native():
            assert not torch.equal(ours, convolve3x3(picture, weight, bias))


def test_other_types_and_sizes_are_refused() -> None:
    picture, weight, bias = random_inputs(1, 32, 32, 8, 8)
    convolve = torch.ops.portrait4d.convolve3x3
    with pytest.raises(RuntimeError, match="expected float32 or bfloat16"):
        convolve(picture.half(), weight.half(), None, *NO_ACTIVATION)
    for wrong in ((picture[:, :16], weight), (picture, weight[:20])):
        with pytest.raises(RuntimeError, match="expected pictures of"):
            convolve(*wrong, None, *NO_ACTIVATION)


def test_registration_is_complete() -> None:
    utilities = ("test_schema", "test_faketensor")
    inputs = random_inputs(2, 32, 64, 5, 4)
    torch.library.opcheck(torch.ops.portrait4d.convolve3x3.default, (*inputs, *NO_ACTIVATION), test_utils=utilities)
    scores = torch.randn(3, 32)
    torch.library.opcheck(torch.ops.portrait4d.softmax_rows_.default, (scores, 0.5), test_utils=utilities)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_softmax_of_rows(dtype: torch.dtype, tolerance: float) -> None:
    scores = 40 * torch.randn(5, 3, 48, generator=torch.Generator().manual_seed(0)).to(dtype)
    scores[1, 1, 7], scores[2, 2] = torch.nan, -200.0
    expected = torch.softmax(scores.double() * 0.25, dim=2)
    ours = torch.ops.portrait4d.softmax_rows_(scores, 0.25)
    assert ours.data_ptr() == scores.data_ptr()
    assert relative_error(ours.double(), expected) < tolerance
    with pytest.raises(RuntimeError, match="expected contiguous rows of a multiple of 16 numbers"):
        torch.ops.portrait4d.softmax_rows_(torch.zeros(2, 20), 1.0)
