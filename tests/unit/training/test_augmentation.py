"""Augmentation of the discriminator's pictures: what is drawn, that all pictures agree, and how strength adapts."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from portrait4d.config.training import AugmentConfig, AugmentOperations
from portrait4d.losses.adversarial import R1Weights, compute_r1
from portrait4d.models.discriminator import DiscriminatorInput
from portrait4d.training.augmentation import (
    ADAPT_INTERVAL,
    Augmentation,
    AugmentController,
    apply_augmentation,
    augment_inputs,
    compose_colour,
    draw_augmentation,
)
from tests.helpers.waves import wave

NOTHING = AugmentOperations(**{part.name: False for part in fields(AugmentOperations)})
ALL = AugmentOperations(**{part.name: True for part in fields(AugmentOperations)})
DEFAULT = AugmentOperations()
GREY = torch.ones(3) / math.sqrt(3)


def only(*names: str) -> AugmentOperations:
    return replace(NOTHING, **dict.fromkeys(names, True))


def draw(operations: AugmentOperations, probability: float = 1.0, batch: int = 4000, side: int = 64) -> Augmentation:
    return draw_augmentation(batch, probability, operations, side, torch.Generator().manual_seed(3))


def inputs(batch: int = 3, side: int = 32, raw: int = 16) -> DiscriminatorInput:
    return DiscriminatorInput(
        image_sr=wave(batch, 3, side, side),
        image=wave(batch, 3, raw, raw),
        correspondence=wave(batch, 3, side, side, frequency=0.2),
        mask=wave(batch, 1, raw, raw, frequency=0.1),
    )


def changed(augmentation: Augmentation) -> Tensor:
    """Return which samples are moved or recoloured at all."""
    still = (augmentation.inverse == torch.eye(3)).all(dim=(1, 2))
    return ~(still & (augmentation.colour == torch.eye(3, 4)).all(dim=(1, 2)))


def test_probability_0_is_the_identity() -> None:
    pictures = inputs()
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert augment_inputs(pictures, 0.0, ALL, generator) is pictures
    assert torch.equal(generator.get_state(), before)
    for drawn in (draw(ALL, 0.0, 3), draw(NOTHING, 1.0, 3)):  # the whole way, with nothing to do
        assert not changed(drawn).any()
        result = apply_augmentation(pictures, drawn)
        assert all(torch.equal(value, getattr(pictures, name)) for name, value in vars(result).items())


def test_default_leaves_heads_upright_and_on_their_side() -> None:
    off = {part.name for part in fields(AugmentOperations) if not getattr(DEFAULT, part.name)}
    assert off == {"flip", "quarter_turn"}
    assert (torch.linalg.det(draw(DEFAULT).inverse) > 0).all()
    assert (torch.linalg.det(draw(replace(DEFAULT, flip=True)).inverse) < 0).float().mean() == pytest.approx(
        0.5, abs=0.03
    )


@pytest.mark.parametrize("probability", [0.2, 0.7])
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("flip", 1 / 2),
        ("quarter_turn", 3 / 4),
        ("scale", 1),
        ("rotate", 1),
        ("drift", 1),
        ("luma_flip", 1 / 2),
        ("hue", 1),
    ],
)
def test_each_happens_as_often_as_it_should(name: str, share: float, probability: float) -> None:
    """Flips and turns by nothing are among their values; of the two rotations at least one has the probability."""
    drawn = draw(only(name), probability)
    assert changed(drawn).float().mean().item() == pytest.approx(share * probability, abs=0.03)


def test_ranges_are_those_of_the_paper() -> None:
    def deviation(values: Tensor) -> float:
        return values.std().item()

    scale = draw(only("scale")).inverse
    torch.testing.assert_close(scale[:, 0, 0], scale[:, 1, 1])
    assert deviation(scale[:, 0, 0].log2()) == pytest.approx(0.2, rel=0.05)
    stretch = draw(only("stretch")).inverse
    torch.testing.assert_close(stretch[:, 0, 0] * stretch[:, 1, 1], torch.ones(4000))
    assert deviation(stretch[:, 0, 0].log2()) == pytest.approx(0.2, rel=0.05)
    drift = draw(only("drift")).inverse[:, :2, 2] / 2  # fractions of the width
    assert deviation(drift) == pytest.approx(0.125, rel=0.05)
    brightness = draw(only("brightness")).colour[:, :, 3]
    assert deviation(brightness) == pytest.approx(0.2, rel=0.05)
    for name, octaves, direction in (("contrast", 0.5, GREY), ("saturation", 1.0, torch.tensor([1.0, -1, 0]) / 2**0.5)):
        factor = direction @ draw(only(name)).colour[:, :, :3] @ direction
        assert deviation(factor.log2()) == pytest.approx(octaves, rel=0.05)


def test_shifts_are_whole_pixels_of_the_coarsest_picture() -> None:
    drawn = draw(only("shift"), side=64)
    pixels = drawn.inverse[:, :2, 2] / 2 * 64
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-5)
    assert pixels.abs().max() == 8
    assert not drawn.between_pixels.any()
    assert not draw(only("flip", "quarter_turn", "shift")).between_pixels.any()
    assert draw(only("scale")).between_pixels.all()


def test_one_operation_does_not_change_the_draws_of_others() -> None:
    rotated = draw(only("rotate")).inverse
    torch.testing.assert_close(draw(only("rotate", "hue", "brightness")).inverse, rotated)
    assert torch.equal(draw(only("hue")).colour, draw(only("hue", "rotate", "flip")).colour)


def test_colours_keep_the_grey_axis() -> None:
    for names in (("contrast", "luma_flip"), ("hue",), ("saturation",), ("luma_flip", "hue", "saturation", "contrast")):
        matrix = draw(only(*names)).colour
        assert torch.equal(matrix[..., 3], torch.zeros(4000, 3))
        onto = matrix[..., :3] @ GREY
        torch.testing.assert_close(onto, (onto @ GREY)[:, None] * GREY, rtol=0, atol=1e-4)
    for name in ("hue", "saturation"):
        torch.testing.assert_close(draw(only(name)).colour[..., :3] @ GREY, GREY.expand(4000, 3), rtol=0, atol=1e-5)
    hue = draw(only("hue")).colour[..., :3]
    torch.testing.assert_close(hue @ hue.mT, torch.eye(3).expand(4000, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(hue), torch.ones(4000))


def test_composed_colours_are_the_products_of_the_single_ones() -> None:
    one, zero = torch.ones(1), torch.zeros(1)
    hue = compose_colour(zero, one, one, torch.tensor([2 * math.pi / 3]), one)[0, :, :3]
    torch.testing.assert_close(hue, torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), rtol=0, atol=1e-6)  # r to g
    luma = compose_colour(zero, -one, one, zero, one)[0, :, :3]
    torch.testing.assert_close(luma, torch.eye(3) - 2 * torch.outer(GREY, GREY))
    grey = compose_colour(zero, one, one, zero, zero)[0, :, :3]  # no saturation
    torch.testing.assert_close(grey, torch.full((3, 3), 1 / 3))
    angle = torch.tensor([0.4])
    turn, dull = compose_colour(zero, one, one, angle, one), compose_colour(zero, one, one, zero, 0.3 * one)
    matrix = dull[0, :, :3] @ turn[0, :, :3] @ luma * 1.5
    offset = (matrix @ torch.full((3,), 0.2))[:, None]  # brightness comes first
    composed = compose_colour(0.2 * one, -1.5 * one, 1.5 * one, angle, 0.3 * one)[0]
    torch.testing.assert_close(composed, torch.cat([matrix, offset], dim=1))


def test_all_pictures_of_a_sample_move_alike_and_only_rgb_is_recoloured() -> None:
    """A soft spot lies at the same place in pictures of 64 and of 128 pixels, in all of them."""

    def spot(side: int) -> Tensor:
        axis = (2 * torch.arange(side) + 1) / side - 1
        return torch.exp(-((axis - 0.2).square() + (axis[:, None] + 0.1).square()) / (2 * 0.1**2))[None, None]

    def centre(picture: Tensor) -> Tensor:
        weight = (picture[:, :1] - picture[:, :1].amin(dim=(2, 3), keepdim=True)).square()
        axis = (2 * torch.arange(picture.shape[-1]) + 1) / picture.shape[-1] - 1
        total = weight.sum(dim=(1, 2, 3))
        return torch.stack([(weight.sum(dim=(1, d)) * axis).sum(dim=1) / total for d in (2, 3)], dim=1)

    count = 20
    fine, coarse = (spot(side).repeat(count, 3, 1, 1) for side in (128, 64))
    pictures = DiscriminatorInput(fine, coarse, fine, coarse[:, :1])
    drawn = draw(replace(ALL, luma_flip=False), 0.8, count)
    result = apply_augmentation(pictures, drawn)
    places = centre(result.correspondence)
    whole = (places.abs() < 0.6).all(dim=1)  # not cut by an edge, nor beside its mirror image
    assert whole.sum() > 5 and places[whole].std() > 0.2
    torch.testing.assert_close(centre(result.mask)[whole], places[whole], rtol=0, atol=1e-3)
    plain = apply_augmentation(pictures, drawn._replace(colour=torch.eye(3, 4).expand(count, 3, 4)))
    assert torch.equal(plain.image_sr, result.correspondence)
    torch.testing.assert_close(plain.image[:, :1], result.mask)
    recoloured = torch.einsum("bij,bjhw->bihw", drawn.colour[..., :3], plain.image) + drawn.colour[..., 3, None, None]
    torch.testing.assert_close(result.image, recoloured)


def test_samples_differ_and_draws_repeat() -> None:
    pictures = DiscriminatorInput(wave(1, 3, 16, 16).repeat(3, 1, 1, 1))
    first, again, other = (
        augment_inputs(pictures, 1.0, DEFAULT, torch.Generator().manual_seed(seed)).image_sr for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert augment_inputs(pictures, 1.0, DEFAULT).mask is None


def test_gradients_flow_to_all_pictures_and_through_the_penalty() -> None:
    pictures = inputs()
    leaves = {name: value.requires_grad_() for name, value in vars(pictures).items()}
    result = augment_inputs(pictures, 1.0, DEFAULT, torch.Generator().manual_seed(0))
    sum(value.square().sum() for value in vars(result).values()).backward()
    assert all(leaf.grad.isfinite().all() and leaf.grad.abs().sum() > 0 for leaf in leaves.values())
    gain = torch.ones((), requires_grad=True)

    def critic(seen: DiscriminatorInput) -> Tensor:
        seen = augment_inputs(seen, 1.0, DEFAULT, torch.Generator().manual_seed(0))
        return sum((gain * value).sin().mean(dim=(1, 2, 3)) for value in vars(seen).values())[:, None]

    compute_r1(critic, inputs(), R1Weights()).weighted.mean().backward()
    assert gain.grad.isfinite() and gain.grad != 0


def iterate(controller: AugmentController, share_real: float, iterations: int, images: int = 32) -> None:
    """Let the discriminator call a share of 16 reals real, for some iterations."""
    logits = torch.where(torch.arange(16) < 16 * share_real, 2.5, -0.1)[:, None]
    for _ in range(iterations):
        controller.note(logits)
        controller.adapt(images)


def test_probability_follows_the_verdicts() -> None:
    controller = AugmentController(AugmentConfig(mode="ada", target=0.6, speed_kimg=100))
    step = ADAPT_INTERVAL * 32 / 100_000
    iterate(controller, 1.0, ADAPT_INTERVAL - 1)
    assert controller.probability == 0
    iterate(controller, 1.0, 1)
    assert controller.probability == pytest.approx(step)
    iterate(controller, 1.0, 5 * ADAPT_INTERVAL)
    assert controller.probability == pytest.approx(6 * step)
    iterate(controller, 0.75, 2 * ADAPT_INTERVAL)  # mean sign 0.5
    assert controller.probability == pytest.approx(4 * step)
    iterate(controller, 0.0, 10 * ADAPT_INTERVAL)
    assert controller.probability == 0
    iterate(controller, 1.0, ADAPT_INTERVAL * 5, images=10_000)
    assert controller.probability == 1


def test_probability_stays_at_the_target_and_without_verdicts() -> None:
    controller = AugmentController(AugmentConfig(mode="ada", target=0.5))
    iterate(controller, 1.0, 2 * ADAPT_INTERVAL)
    before = controller.probability
    iterate(controller, 0.75, ADAPT_INTERVAL)
    for _ in range(ADAPT_INTERVAL):
        controller.adapt(32, lambda values: pytest.fail("nothing to sum"))
    assert controller.probability == before > 0


def test_rising_from_0_to_1_takes_the_given_images() -> None:
    controller = AugmentController(AugmentConfig(mode="ada", speed_kimg=4))
    iterate(controller, 1.0, 124)
    assert controller.probability == pytest.approx(124 * 32 / 4000) and controller.probability < 1
    iterate(controller, 1.0, 4)
    assert controller.probability == 1


def test_processes_are_summed_up() -> None:
    """One process sees only reals called real, three others only reals called fake: mean sign -0.5."""
    controller = AugmentController(AugmentConfig(mode="ada", target=-0.6, speed_kimg=100))
    others = torch.tensor([-48.0, 48.0])
    for _ in range(ADAPT_INTERVAL):
        controller.note(torch.ones(16, 1))
        controller.adapt(32, lambda values: values.add_(others))
    assert controller.probability == pytest.approx(ADAPT_INTERVAL * 32 / 100_000)
    controller = AugmentController(AugmentConfig(mode="ada", target=-0.4, speed_kimg=100))
    controller.probability = 0.5
    for _ in range(ADAPT_INTERVAL):
        controller.note(torch.ones(16, 1))
        controller.adapt(32, lambda values: values.add_(others))
    assert controller.probability == pytest.approx(0.5 - ADAPT_INTERVAL * 32 / 100_000)


@pytest.mark.parametrize("before", [3, ADAPT_INTERVAL, 6])
def test_state_goes_on_exactly(before: int) -> None:
    config = AugmentConfig(mode="ada", speed_kimg=10)
    whole, first, second = (AugmentController(config) for _ in range(3))
    for controller in (whole, first):
        iterate(controller, 1.0, before)
    second.load_state_dict(first.state_dict())
    for controller in (whole, second):
        iterate(controller, 0.9, 7)
    assert whole.state_dict() == second.state_dict()
    assert all(isinstance(value, float) for value in whole.state_dict().values())
    with pytest.raises(KeyError):
        second.load_state_dict({})


def test_other_modes_do_not_adapt() -> None:
    for config, expected in ((AugmentConfig("none"), 0.0), (AugmentConfig("fixed", probability=0.3), 0.3)):
        controller = AugmentController(config)
        iterate(controller, 1.0, 3 * ADAPT_INTERVAL)
        controller.load_state_dict(controller.state_dict() | {"probability": 0.9})
        assert controller.probability == expected
    pictures = inputs()
    assert AugmentController(AugmentConfig("none")).augment(pictures) is pictures
    generator = torch.Generator().manual_seed(0)
    assert AugmentController(AugmentConfig("fixed", 1.0)).augment(pictures, generator) is not pictures


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probability": 1.5}, "probability: expected from 0 to 1, got 1.5"),
        ({"target": 2.0}, "target: expected from -1 to 1, got 2.0"),
        ({"speed_kimg": 0.0}, "speed_kimg: expected a positive number, got 0.0"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**values)
