"""Moved and recoloured pictures: exact copies, resampling against closed forms, gradients of both orders."""

import math

import pytest
import torch
from torch import Tensor

from portrait4d.training.picture_warp import SYM6, recolour_pictures, warp_pictures
from tests.helpers.waves import wave


def rotation(angle_rad: float, x: float = 0.0, y: float = 0.0, scale: float = 1.0) -> Tensor:
    """A homogeneous 3 x 3: scaled rotation, then a shift in normalised units."""
    cosine, sine = scale * math.cos(angle_rad), scale * math.sin(angle_rad)
    return torch.tensor([[cosine, -sine, x], [sine, cosine, y], [0, 0, 1]], dtype=torch.float64)


def warp(pictures: Tensor, *matrices: Tensor, between: bool = True) -> Tensor:
    """Warp each picture by its transform."""
    return warp_pictures(pictures, torch.stack(matrices), torch.full((len(matrices),), between))


def blob(side: int, x: float, y: float, spread: float = 0.15) -> Tensor:
    """A smooth spot (1, 1, side, side) at a normalised position."""
    axis = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1
    return torch.exp(-((axis - x).square() + (axis[:, None] - y).square()) / (2 * spread**2))[None, None]


def test_taps_are_those_of_the_wavelet() -> None:
    """Sum sqrt 2, orthogonal to their shifts by two, six vanishing moments of the high-pass twin."""
    taps = torch.tensor(SYM6, dtype=torch.float64)
    assert taps.sum().item() == pytest.approx(math.sqrt(2), abs=1e-12)
    for shift in range(6):
        assert (taps[2 * shift :] * taps[: 12 - 2 * shift]).sum().item() == pytest.approx(float(shift == 0), abs=1e-10)
    index = torch.arange(12, dtype=torch.float64)
    for power in range(6):
        assert ((-1.0) ** index * (index - 5.5) ** power * taps).sum().item() == pytest.approx(0, abs=1e-8)


def test_whole_pixels_are_copied_exactly() -> None:
    picture = wave(2, 3, 8, 8)
    assert torch.equal(warp(picture, *[torch.eye(3)] * 2, between=False), picture)
    right = rotation(0, x=-2 * 3 / 8)  # what is at 0 in the result was at -3 pixels
    expected = torch.cat([picture[..., :3].flip(-1), picture[..., :5]], dim=-1)  # mirrored at the edge
    assert torch.equal(warp(picture, right, right, between=False), expected)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    flip = torch.diag(torch.tensor([-1.0, 1, 1]))
    turned = warp(picture, quarter, flip, between=False)
    assert torch.equal(turned[0], picture[0].rot90(1, (1, 2)))
    assert torch.equal(turned[1], picture[1].flip(-1))


def test_resampling_without_movement_changes_nothing_but_the_edges() -> None:
    picture = wave(1, 2, 17, 17).double()
    result = warp(picture, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(result[..., 3:-3, 3:-3], picture[..., 3:-3, 3:-3], rtol=0, atol=1e-6)
    torch.testing.assert_close(result, picture, rtol=0, atol=0.01)


@pytest.mark.parametrize("side", [1, 2, 5, 32])
def test_even_pictures_stay_even_wherever_they_are_moved(side: int) -> None:
    picture = torch.full((1, 1, side, side), 0.75)
    moved = warp(picture, rotation(0.7, 1.3, -5.1, 0.8))
    torch.testing.assert_close(moved, picture, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [64, 128])
def test_a_spot_goes_where_it_should(side: int) -> None:
    """A spot at q is seen at p where inverse p = q, at every resolution, and is as much larger."""
    inverse = rotation(0.5, 0.1, -0.05, 0.8)  # the spot's mirror images stay out of sight
    target = torch.linalg.inv(inverse) @ torch.tensor([0.3, 0.2, 1.0], dtype=torch.float64)
    moved = warp(blob(side, 0.3, 0.2), inverse)
    expected = blob(side, target[0].item(), target[1].item(), 0.15 / 0.8)
    torch.testing.assert_close(moved, expected, rtol=0, atol=0.2 / side)
    axis = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1
    centre = [(moved[0, 0].sum(dim=d) * axis).sum() / moved.sum() for d in (0, 1)]
    torch.testing.assert_close(torch.stack(centre), target[:2], rtol=0, atol=3e-4)


def test_there_and_back() -> None:
    picture = blob(64, 0.2, -0.1) - 0.5 * blob(64, -0.3, 0.1)
    inverse = rotation(0.6, 0.05, 0.1, 1.1)
    back = warp(warp(picture, inverse), torch.linalg.inv(inverse))
    torch.testing.assert_close(back[..., 12:-12, 12:-12], picture[..., 12:-12, 12:-12], rtol=0, atol=0.005)


def test_is_linear() -> None:
    first, second = wave(1, 2, 16, 16, frequency=0.3).double(), wave(1, 2, 16, 16, frequency=0.7).double()
    inverse = rotation(0.4, 0.2)
    combined = warp(2 * first - 3 * second, inverse)
    torch.testing.assert_close(combined, 2 * warp(first, inverse) - 3 * warp(second, inverse))


@pytest.mark.parametrize("between", [False, True])
def test_gradients_of_both_orders(between: bool) -> None:
    picture = wave(1, 1, 5, 5).double().requires_grad_()
    inverse = rotation(0.4, 0.2)

    def compute(x: Tensor) -> Tensor:
        return warp(x, inverse, between=between).square()

    assert torch.autograd.gradcheck(compute, picture)
    assert torch.autograd.gradgradcheck(compute, picture)


def test_samples_are_moved_each_by_its_own_transform_and_keep_their_type() -> None:
    pictures = wave(2, 1, 16, 16)
    matrices = torch.eye(3), rotation(0.3).float()
    moved = warp_pictures(pictures, torch.stack(matrices), torch.tensor([False, True]))
    assert torch.equal(moved[0], pictures[0])
    assert not torch.equal(moved[1], pictures[1])
    half = warp_pictures(pictures.half(), torch.stack(matrices), torch.tensor([False, True]))
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), moved, rtol=0, atol=2e-3)


def test_colours() -> None:
    picture = wave(2, 3, 4, 5)
    matrix = torch.tensor([[0.0, 1, 0, 0.5], [0, 0, 2, 0], [1, 0, 0, -1]])
    result = recolour_pictures(picture, torch.stack([matrix, torch.eye(3, 4)]))
    red, green, blue = picture[0]
    torch.testing.assert_close(result[0], torch.stack([green + 0.5, 2 * blue, red - 1]))
    assert torch.equal(result[1], picture[1])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pictures: expected shape \(B, C, S, S\), got \(1, 3, 4, 5\)"):
        warp(torch.zeros(1, 3, 4, 5), torch.eye(3))
    with pytest.raises(ValueError, match=r"inverse: expected 2 transforms 3 x 3, got \(1, 3, 3\)"):
        warp(torch.zeros(2, 3, 4, 4), torch.eye(3))
    with pytest.raises(ValueError, match=r"pictures: expected shape \(B, 3, H, W\), got \(1, 1, 4, 4\)"):
        recolour_pictures(torch.zeros(1, 1, 4, 4), torch.eye(3, 4)[None])
