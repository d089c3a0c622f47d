"""Adaptive discriminator augmentation (ADA): disturb what the discriminator sees, so that it cannot learn it by heart.

Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section 3 and the appendix on
augmentations, from which ranges and order are taken. Each transformation happens with the same probability, to each
sample by itself. All pictures of a sample (picture, raw picture, correspondence map, mask) are moved alike, whatever
their sizes; colours change in picture and raw picture alone.

Flips and quarter turns are off unless asked for. A flipped head that is seen from its left would be told to be seen
from its right, and its correspondence map would belong to no head, so the discriminator would learn to trust neither
camera nor map, which it is given to check heads against; heads that lie occur in no aligned data. The general
transformations disagree with the camera too, in roll, focal length and centre, but not in which side of the head is
seen.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.config.training import AugmentConfig, AugmentOperations
from portrait4d.models.discriminator import DiscriminatorInput
from portrait4d.training.picture_warp import recolour_pictures, warp_pictures

LARGEST_SHIFT = 0.125
"""Of whole pixels, in picture widths; also the standard deviation of the drift."""
SCALE_OCTAVES = 0.2
"""Standard deviation of log2 of scale and stretch."""
BRIGHTNESS_SPREAD = 0.2
CONTRAST_OCTAVES = 0.5
SATURATION_OCTAVES = 1.0

ADAPT_INTERVAL = 4
"""Iterations between two adaptations."""


class Augmentation(NamedTuple):
    """What happens to each sample.

    Attributes:
        inverse: (B, 3, 3) normalised positions in the result to those in the picture, see `warp_pictures`.
        between_pixels: (B,) bool, whether any but a flip, a quarter turn or a shift by whole pixels happens.
        colour: (B, 3, 4) matrix and offset.
    """

    inverse: Tensor
    between_pixels: Tensor
    colour: Tensor


class _Dice:
    """Draws one number for each sample of a batch; `probability` is that of a transformation."""

    def __init__(self, batch: int, probability: float, generator: torch.Generator | None) -> None:
        self.batch, self.probability, self.generator = batch, probability, generator
        self.device = generator.device if generator is not None else torch.device("cpu")

    def happens(self, allowed: bool, probability: float | None = None) -> Tensor:
        """Return (B,) bool."""
        chance = self.probability if probability is None else probability
        return self.uniform(0, 1) < (chance if allowed else 0.0)

    def uniform(self, low: float, high: float) -> Tensor:
        """Return (B,) uniform in [low, high)."""
        return low + (high - low) * torch.rand(self.batch, generator=self.generator, device=self.device)

    def normal(self, spread: float) -> Tensor:
        """Return (B,) of standard deviation `spread`."""
        return spread * torch.randn(self.batch, generator=self.generator, device=self.device)


def draw_augmentation(
    batch: int,
    probability: float,
    operations: AugmentOperations,
    side: int,
    generator: torch.Generator | None = None,
) -> Augmentation:
    """Draw what happens to each of `batch` samples, on the generator's device (without one: the CPU).

    Args:
        batch: B.
        probability: of each transformation.
        operations: those that are not in it never happen; the draws of the others do not depend on it.
        side: pixels of the coarsest picture, by whole ones of which "shift" moves.
        generator: source of the draws.
    """
    dice = _Dice(batch, probability, generator)
    inverse = _draw_copies(dice, operations, side)
    general, between_pixels = _draw_moves(dice, operations)
    return Augmentation(inverse @ general, between_pixels, _draw_colours(dice, operations))


def apply_augmentation(inputs: DiscriminatorInput, augmentation: Augmentation) -> DiscriminatorInput:
    """Move all pictures of a sample and recolour its RGB pictures. Gradients flow to them, twice if need be.

    Raises:
        ValueError: if pictures are not square, or of another number of samples or channels.
    """
    pictures = {name: value for name, value in vars(inputs).items() if value is not None}
    moved = {n: warp_pictures(p, augmentation.inverse, augmentation.between_pixels) for n, p in pictures.items()}
    for name in ("image_sr", "image"):
        if name in moved:
            moved[name] = recolour_pictures(moved[name], augmentation.colour)
    return replace(inputs, **moved)


def augment_inputs(
    inputs: DiscriminatorInput,
    probability: float,
    operations: AugmentOperations,
    generator: torch.Generator | None = None,
) -> DiscriminatorInput:
    """Disturb what a discriminator sees; with probability 0 the very same pictures come back and nothing is drawn."""
    if probability == 0:
        return inputs
    device = inputs.image_sr.device
    side = min(value.shape[-1] for value in vars(inputs).values() if value is not None)
    drawn = draw_augmentation(len(inputs.image_sr), probability, operations, side, generator)
    return apply_augmentation(inputs, Augmentation(*(part.to(device) for part in drawn)))


class AugmentController:
    """How probable augmentations are, and in mode "ada" the rule that adapts it to over-fitting.

    The over-fitting heuristic is r = mean sign(D(real)): 0 if the discriminator knows nothing, 1 if it knows every
    real picture. Every `ADAPT_INTERVAL` iterations the probability goes up if r is above the target, else down, by as
    many images as were seen over `speed_kimg`, and stays within 0 and 1.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        self.probability = config.probability if config.mode == "fixed" else 0.0
        self._noted: Tensor | None = None  # in this process and iteration: sum of signs, and their number
        self._signs, self._count, self._images, self._iterations = 0.0, 0.0, 0.0, 0.0

    def augment(self, inputs: DiscriminatorInput, generator: torch.Generator | None = None) -> DiscriminatorInput:
        """Disturb what the discriminator sees, reals and fakes alike, at the present probability."""
        return augment_inputs(inputs, self.probability, self.config.operations, generator)

    def note(self, real_logits: Tensor) -> None:
        """Take note of a verdict on augmented reals, logits of any shape; all processes do in the same iterations."""
        if self.config.mode != "ada":
            return
        signs = real_logits.detach().float().sign()
        seen = torch.stack([signs.sum(), signs.new_tensor(float(signs.numel()))])
        self._noted = seen if self._noted is None else self._noted + seen

    def adapt(self, images: int, sum_over_processes: Callable[[Tensor], Tensor] | None = None) -> None:
        """End an iteration of `images` images, all processes together, and adapt the probability if it is time.

        Args:
            images: seen in the iteration.
            sum_over_processes: adds a tensor up over all processes; None: there is one.
        """
        if self.config.mode != "ada":
            return
        if self._noted is not None:
            noted = self._noted if sum_over_processes is None else sum_over_processes(self._noted)
            signs, count = noted.tolist()
            self._signs, self._count, self._noted = self._signs + signs, self._count + count, None
        self._images, self._iterations = self._images + images, self._iterations + 1
        if self._iterations < ADAPT_INTERVAL:
            return
        if self._count:
            excess = self._signs / self._count - self.config.target
            step = self._images / (self.config.speed_kimg * 1000)
            moved = self.probability + (math.copysign(step, excess) if excess else 0.0)
            self.probability = min(max(moved, 0.0), 1.0)
        self._signs, self._count, self._images, self._iterations = 0.0, 0.0, 0.0, 0.0

    def state_dict(self) -> dict[str, float]:
        """Return all that changes, as it is after `adapt`; the same in all processes."""
        return {
            "probability": self.probability,
            "signs": self._signs,
            "count": self._count,
            "images": self._images,
            "iterations": self._iterations,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take `state_dict` back; a fixed probability stays the configuration's.

        Raises:
            KeyError: if one of its entries is missing.
        """
        if self.config.mode == "ada":
            self.probability, self._noted = state["probability"], None
            self._signs, self._count = state["signs"], state["count"]
            self._images, self._iterations = state["images"], state["iterations"]


def _draw_copies(dice: _Dice, operations: AugmentOperations, side: int) -> Tensor:
    """Draw what maps pixels onto pixels (the paper's "pixel blitting"): (B, 3, 3)."""
    flip = torch.where(dice.happens(operations.flip), 1 - 2 * dice.uniform(0, 2).floor(), 1.0)
    turns = torch.where(dice.happens(operations.quarter_turn), dice.uniform(0, 4).floor(), 0.0)
    whole = [(dice.uniform(-LARGEST_SHIFT, LARGEST_SHIFT) * side).round() / side for _ in range(2)]
    shifts = dice.happens(operations.shift)
    x, y = (torch.where(shifts, fraction, 0.0) for fraction in whole)
    cosine = torch.where(turns == 0, 1.0, torch.where(turns == 2, -1.0, 0.0))  # exact, unlike cos(turns pi / 2)
    sine = torch.where(turns == 1, 1.0, torch.where(turns == 3, -1.0, 0.0))
    return _scaling(flip, torch.ones_like(flip)) @ _rotation(cosine, sine) @ _translation(x, y)


def _draw_moves(dice: _Dice, operations: AugmentOperations) -> tuple[Tensor, Tensor]:
    """Draw the general geometric transformations: (B, 3, 3), and (B,) whether there are any."""
    scales, stretches, drifts = (
        dice.happens(allowed) for allowed in (operations.scale, operations.stretch, operations.drift)
    )
    # Two rotations around the stretch; that either happens has the asked probability.
    once = 1 - math.sqrt(1 - dice.probability)
    rotates = [dice.happens(operations.rotate, once) for _ in range(2)]
    scale, stretch = (torch.where(happens, dice.normal(SCALE_OCTAVES).exp2(), 1.0) for happens in (scales, stretches))
    angles_rad = [torch.where(happens, dice.uniform(-math.pi, math.pi), 0.0) for happens in rotates]
    before, after = (_rotation(angle.cos(), angle.sin()) for angle in angles_rad)
    x, y = (torch.where(drifts, dice.normal(LARGEST_SHIFT), 0.0) for _ in range(2))
    inverse = _scaling(1 / scale, 1 / scale) @ before @ _scaling(1 / stretch, stretch) @ after @ _translation(x, y)
    return inverse, scales | stretches | drifts | rotates[0] | rotates[1]


def _draw_colours(dice: _Dice, operations: AugmentOperations) -> Tensor:
    """Draw the colour transformations: (B, 3, 4)."""
    brightness = torch.where(dice.happens(operations.brightness), dice.normal(BRIGHTNESS_SPREAD), 0.0)
    contrast = torch.where(dice.happens(operations.contrast), dice.normal(CONTRAST_OCTAVES).exp2(), 1.0)
    flip = torch.where(dice.happens(operations.luma_flip), 1 - 2 * dice.uniform(0, 2).floor(), 1.0)
    hue_rad = torch.where(dice.happens(operations.hue), dice.uniform(-math.pi, math.pi), 0.0)
    saturation = torch.where(dice.happens(operations.saturation), dice.normal(SATURATION_OCTAVES).exp2(), 1.0)
    return compose_colour(brightness, contrast * flip, contrast, hue_rad, saturation)


def compose_colour(brightness: Tensor, luma: Tensor, chroma: Tensor, hue_rad: Tensor, saturation: Tensor) -> Tensor:
    """Compose x -> A (x + brightness) of colours, where A scales the grey axis and turns and scales what is across it.

    Contrast, luma flip, hue and saturation all keep the grey axis and the plane across it, so that
    A = luma g g' + chroma saturation R(hue) (1 - g g'), with g = (1, 1, 1) / sqrt 3.

    Args:
        brightness: (B,) added to every channel.
        luma: (B,) factor along the grey axis: contrast, negative if luma is flipped.
        chroma: (B,) factor across it: contrast.
        hue_rad: (B,) angle of the rotation around it.
        saturation: (B,) further factor across it.

    Returns:
        (B, 3, 4) matrix and offset.
    """
    identity = torch.eye(3, device=luma.device)
    grey = torch.full((3, 3), 1 / 3, device=luma.device)  # g g'
    turn = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=luma.device) / math.sqrt(3)  # v -> g x v
    across = chroma * saturation * hue_rad.cos()
    factors = torch.stack([across, luma - across, chroma * saturation * hue_rad.sin()], dim=1)
    matrix = torch.einsum("bk,kij->bij", factors, torch.stack([identity, grey, turn]))
    return torch.cat([matrix, matrix @ brightness[:, None, None].expand(-1, 3, 1)], dim=2)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=1))


def _rotation(cosine: Tensor, sine: Tensor) -> Tensor:
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    return torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1).unflatten(1, (3, 3))


def _translation(x: Tensor, y: Tensor) -> Tensor:
    """Of fractions of a width; normalised positions are two widths wide. The inverse moves against it."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([one, zero, -2 * x, zero, one, -2 * y, zero, zero, one], dim=1).unflatten(1, (3, 3))
