"""The native bfloat16 convolution against exact numbers and PyTorch's, where the processor has bfloat16 products."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.ops.backend import without_native
from portrait4d.ops.dense import convolve3x3
from tests.helpers.native import require_native

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _native(monkeypatch: pytest.MonkeyPatch) -> None:
    require_native(monkeypatch)
    if not torch.ops.portrait4d.convolves_bfloat16():
        pytest.skip("this processor has no bfloat16 products")


def random_inputs(batch: int, inputs: int, outputs: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return bfloat16 pictures, weights and bias."""
    generator = torch.Generator().manual_seed(height)
    sizes = (batch, inputs, height, width), (outputs, inputs, 3, 3), (outputs,)
    return tuple(torch.randn(size, generator=generator).bfloat16() for size in sizes)


@pytest.mark.parametrize(
    "sizes", [(1, 32, 32, 1, 1), (2, 32, 64, 7, 9), (1, 96, 32, 65, 3), (1, 64, 96, 2, 50), (3, 352, 32, 12, 11)]
)
def test_rounding_is_that_of_bfloat16(sizes: tuple[int, ...]) -> None:
    picture, weight, bias = random_inputs(*sizes)
    expected = functional.conv2d(picture.double(), weight.double(), bias.double(), padding=1)
    rounding = (expected.bfloat16().double() - expected).square().mean().sqrt()
    for layout in (torch.contiguous_format, torch.channels_last):
        given = picture.contiguous(memory_format=layout)
        ours = torch.ops.portrait4d.convolve3x3_bfloat16(given, weight, bias)
        assert ours.shape == expected.shape and ours.is_contiguous(memory_format=torch.channels_last)
        assert (ours.double() - expected).square().mean().sqrt() < 3 * rounding


def test_exact_numbers_stay_exact() -> None:
    """Small integers are exact in every step, so a kernel of one is the identity at its place, and zeros surround."""
    picture = torch.randint(-8, 8, (1, 32, 6, 5)).bfloat16()
    weight = torch.zeros(32, 32, 3, 3).bfloat16()
    weight[torch.arange(32), torch.arange(32), 0, 2] = 4  # the pixel above, to the right
    result = torch.ops.portrait4d.convolve3x3_bfloat16(picture, weight, None)
    assert torch.equal(result, 4 * functional.pad(picture, (0, 1, 1, 0))[:, :, :-1, 1:])


def test_nothing_gives_nothing_and_nan_spreads_to_neighbours_at_most_two_pixels_away() -> None:
    picture, weight, bias = random_inputs(1, 32, 32, 8, 8)
    assert torch.ops.portrait4d.convolve3x3_bfloat16(picture[:0], weight, bias).shape == (0, 32, 8, 8)
    picture[0, 3, 4, 4] = torch.nan
    nan = torch.ops.portrait4d.convolve3x3_bfloat16(picture, weight, bias).isnan().any(dim=1)[0]
    assert nan[3:6, 3:6].all() and not nan[:2].any() and not nan[:, :2].any()


def test_it_serves_large_pictures_of_fitting_channels() -> None:
    picture, weight, bias = random_inputs(1, 32, 32, 64, 64)
    with torch.no_grad():
        ours = convolve3x3(picture, weight, bias)
        assert torch.equal(ours, torch.ops.portrait4d.convolve3x3_bfloat16(picture, weight, bias))
        with without_native():
            assert not torch.equal(ours, convolve3x3(picture, weight, bias))


def test_other_types_and_sizes_are_refused() -> None:
    picture, weight, bias = random_inputs(1, 32, 32, 8, 8)
    convolve = torch.ops.portrait4d.convolve3x3_bfloat16
    for wrong in ((picture.float(), weight), (picture[:, :16], weight), (picture, weight[:20])):
        with pytest.raises(RuntimeError, match="expected bfloat16 pictures"):
            convolve(*wrong, None)


def test_registration_is_complete() -> None:
    convolve = torch.ops.portrait4d.convolve3x3_bfloat16.default
    inputs = random_inputs(2, 32, 64, 5, 4)
    torch.library.opcheck(convolve, inputs, test_utils=("test_schema", "test_faketensor"))
