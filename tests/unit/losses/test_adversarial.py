"""Logistic losses, what critics see, and the gradient penalty on critics whose slope is known."""

import math

import pytest
import torch
from torch import Tensor

from portrait4d.config.gan_networks import tiny_discriminator
from portrait4d.losses.adversarial import (
    R1Weights,
    blur_fakes,
    compute_r1,
    fake_verdict_loss,
    real_inputs,
    real_verdict_loss,
)
from portrait4d.models.discriminator import Discriminator, DiscriminatorInput
from tests.helpers.waves import wave

NAMES = ("image_sr", "image", "correspondence", "mask")


def inputs(dtype: torch.dtype = torch.float32) -> DiscriminatorInput:
    """Two samples of small pictures."""
    shapes = ((2, 3, 8, 8), (2, 3, 4, 4), (2, 3, 8, 8), (2, 1, 4, 4))
    return DiscriminatorInput(*(wave(*shape, frequency=0.3 + i).to(dtype) for i, shape in enumerate(shapes)))


class SlopeCritic:
    """logit = sum_k slope_k sum(x_k): |g_k|^2 = slope_k^2 * elements."""

    def __init__(self, *slopes: float, dtype: torch.dtype = torch.float32) -> None:
        self.slopes = torch.tensor(slopes, dtype=dtype, requires_grad=True)

    def __call__(self, seen: DiscriminatorInput) -> Tensor:
        parts = [getattr(seen, name) for name in NAMES]
        sums = [s * p.flatten(1).sum(1) for s, p in zip(self.slopes, parts, strict=True) if p is not None]
        return sum(sums)[:, None]


ELEMENTS = (192, 48, 192, 16)


def test_logistic_losses() -> None:
    logits = torch.tensor([[0.0], [2.0], [-1e4], [1e4]])
    real, fake = real_verdict_loss(logits), fake_verdict_loss(logits)
    expected = [math.log(2), math.log1p(math.exp(-2)), 1e4, 0.0]
    torch.testing.assert_close(real[:, 0], torch.tensor(expected))
    torch.testing.assert_close(fake - real, logits)  # softplus(x) - softplus(-x) = x
    assert real.shape == logits.shape


def test_logistic_gradient_is_the_probability_of_error() -> None:
    logits = torch.tensor([-1.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(real_verdict_loss(logits).sum(), logits)
    torch.testing.assert_close(gradient, -torch.sigmoid(-logits.detach()))
    assert torch.autograd.gradcheck(fake_verdict_loss, logits)


def test_r1_of_known_slopes() -> None:
    penalty = compute_r1(SlopeCritic(0.5, 2.0, 3.0, 4.0), inputs(), R1Weights(1.5, 7.0, 3.0))
    image = 0.25 * 192 + 4 * 48
    torch.testing.assert_close(penalty.image, torch.full((2,), image))
    weighted = 0.75 * image + 3.5 * 9 * 192 + 1.5 * 16 * 16
    torch.testing.assert_close(penalty.weighted, torch.full((2,), weighted))
    torch.testing.assert_close(penalty.logits, SlopeCritic(0.5, 2.0, 3.0, 4.0)(inputs()))


@pytest.mark.parametrize(
    ("absent", "mask_alone", "counted"),
    [
        ((), False, (1, 1, 10, 1)),
        (("mask",), False, (1, 1, 10, 0)),
        (("correspondence",), False, (1, 1, 0, 0)),
        (("correspondence",), True, (1, 1, 0, 1)),
        (("correspondence", "mask"), True, (1, 1, 0, 0)),
        (("image", "correspondence", "mask"), False, (1, 0, 0, 0)),
    ],
)
def test_r1_of_pictures_that_are_not_judged(absent: tuple, mask_alone: bool, counted: tuple) -> None:
    parts = {name: None if name in absent else getattr(inputs(), name) for name in NAMES}
    penalty = compute_r1(SlopeCritic(1, 1, 1, 1), DiscriminatorInput(**parts), R1Weights(mask_alone=mask_alone))
    expected = sum(weight / 2 * elements for weight, elements in zip(counted, ELEMENTS, strict=True))
    torch.testing.assert_close(penalty.weighted, torch.full((2,), expected))


def test_r1_trains_the_critic_and_not_the_pictures() -> None:
    pictures = inputs()
    pictures.image_sr.requires_grad_()
    critic = SlopeCritic(0.5, 2.0, 3.0, 4.0)
    compute_r1(critic, pictures, R1Weights()).weighted.mean().backward()
    expected = [slope * n * w for slope, n, w in zip((0.5, 2, 3, 4), ELEMENTS, (1, 1, 10, 1), strict=True)]
    torch.testing.assert_close(critic.slopes.grad, torch.tensor(expected))  # d/ds (w/2 s^2 n) = w s n
    assert pictures.image_sr.grad is None


def test_r1_is_of_each_sample() -> None:
    def critic(seen: DiscriminatorInput) -> Tensor:
        return (seen.image_sr**2).flatten(1).sum(1, keepdim=True) / 2  # g = x

    pictures = DiscriminatorInput(torch.stack([torch.full((3, 4, 4), 1.0), torch.full((3, 4, 4), 2.0)]))
    with torch.no_grad():  # differentiates by itself
        torch.testing.assert_close(compute_r1(critic, pictures, R1Weights()).image, torch.tensor([48.0, 192.0]))


def test_a_picture_the_critic_ignores_counts_nothing() -> None:
    penalty = compute_r1(lambda seen: seen.image_sr.flatten(1).sum(1, keepdim=True), inputs(), R1Weights())
    torch.testing.assert_close(penalty.weighted, torch.full((2,), 96.0))


def test_r1_second_derivative() -> None:
    pictures = inputs(torch.float64)
    direction = torch.linspace(-0.2, 0.3, 192, dtype=torch.float64)

    def penalty(scale: Tensor, curvature: Tensor) -> Tensor:
        def critic(seen: DiscriminatorInput) -> Tensor:
            along = (seen.image_sr.flatten(1) * direction).sum(1, keepdim=True)
            return torch.tanh(scale * along) + curvature * seen.mask.pow(3).flatten(1).sum(1, keepdim=True)

        return compute_r1(critic, pictures, R1Weights()).weighted

    leaves = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.7, 0.4)]
    assert torch.autograd.gradcheck(penalty, leaves)


def test_inner_scale_saves_half_precision_gradients() -> None:
    def critic(seen: DiscriminatorInput) -> Tensor:
        half = seen.image_sr.half() * 2.0**-13 * 2.0**-13  # slopes of 2^-26 are 0 in float16
        return half.flatten(1).sum(1, keepdim=True)

    pictures = DiscriminatorInput(torch.ones(1, 3, 4, 4))
    assert compute_r1(critic, pictures, R1Weights()).image.item() == 0
    assert compute_r1(critic, pictures, R1Weights(), inner_scale=2.0**12).image.item() == pytest.approx(48 * 2.0**-52)


def test_r1_reaches_every_weight_of_a_discriminator_but_its_last_bias() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(tiny_discriminator())
    camera, size = torch.randn(2, 25), tiny_discriminator().pyramid.resolution
    reals = real_inputs(torch.rand(2, 3, size, size), torch.rand(2, 1, size, size), torch.rand(2, 3, size, size), 16)
    compute_r1(lambda seen: discriminator(seen, camera), reals, R1Weights()).weighted.mean().backward()
    reached = [p.grad is not None and p.grad.any().item() for n, p in discriminator.named_parameters() if "weight" in n]
    assert all(reached)


def test_active_only_with_a_weight_on_the_picture() -> None:
    assert R1Weights().active
    assert not R1Weights(image=0.0, correspondence=10.0).active


def test_real_inputs_have_the_generators_sizes() -> None:
    mask = torch.stack([torch.full((16, 16), value) for value in (-1.0, 0.5, 0.8)])[None]
    uv = wave(1, 3, 16, 16)
    reals = real_inputs(wave(1, 3, 16, 16), mask, uv, resolution=8)
    assert [tuple(getattr(reals, name).shape[1:]) for name in NAMES] == [(3, 16, 16), (3, 8, 8), (3, 16, 16), (1, 8, 8)]
    torch.testing.assert_close(reals.mask, torch.full((1, 1, 8, 8), 0.1))
    assert reals.correspondence is uv
    torch.testing.assert_close(reals.image_sr, wave(1, 3, 16, 16))
    assert real_inputs(wave(1, 3, 16, 16), None, None, 8).mask is None


def test_reals_are_blurred_in_their_own_pixels_and_fakes_only_at_full_size() -> None:
    impulse = torch.zeros(1, 3, 32, 32)
    impulse[..., 16, 16] = 1
    taps = 2.0 ** -(torch.arange(-3.0, 4.0) ** 2)
    peak = (taps / taps.sum())[3] ** 2
    same = real_inputs(impulse, impulse[:, :1], None, resolution=32, blur_sigma=1.0)
    for picture in (same.image_sr, same.image, same.mask):
        torch.testing.assert_close(picture[0, 0, 16, 16], peak)
    raw = real_inputs(torch.ones(1, 3, 64, 64), None, None, resolution=16, blur_sigma=2.0).image
    assert raw[0, 0, 8, 5] < 1 - 1e-4 and raw[0, 0, 8, 8] == pytest.approx(1, abs=1e-6)  # 6 of *its* pixels
    fakes = DiscriminatorInput(impulse.clone().requires_grad_(), impulse, impulse, impulse[:, :1])
    blurred = blur_fakes(fakes, 1.0)
    assert (blurred.image, blurred.correspondence, blurred.mask) == (fakes.image, fakes.correspondence, fakes.mask)
    blurred.image_sr[0, 0, 16, 16].backward()
    torch.testing.assert_close(fakes.image_sr.grad[0, 0, 16, 16], peak)
    assert blur_fakes(fakes, 0.0).image_sr is fakes.image_sr
