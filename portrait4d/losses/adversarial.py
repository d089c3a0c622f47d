"""The game of generator and discriminator: logistic losses, gradient penalty, and the pictures that are judged.

Source: training-genhead.md §7. A critic is any function of the pictures; whoever calls binds the camera to it, as in
`lambda inputs: discriminator(inputs, camera)`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.models.discriminator import DiscriminatorInput
from portrait4d.ops.resize import resize_antialiased
from portrait4d.ops.upfirdn2d import blur2d

Critic = Callable[[DiscriminatorInput], Tensor]
"""Pictures to logits (B, 1), positive for real."""


@dataclass(frozen=True)
class R1Weights:
    """How much each picture's gradient is punished (gamma; the penalty is gamma / 2 |g|^2).

    Attributes:
        image: of super-resolved and raw picture; 0 switches the whole penalty off.
        correspondence, mask: of these two.
        mask_alone: whether the mask counts where there is no correspondence map (it does not in GenHead's training).
    """

    image: float = 1.0
    correspondence: float = 10.0
    mask: float = 1.0
    mask_alone: bool = False

    @property
    def active(self) -> bool:
        """Whether there is a penalty at all."""
        return self.image != 0


class R1Penalty(NamedTuple):
    """Gradient penalty of each sample.

    Attributes:
        weighted: (B,) gamma / 2 |g|^2, all pictures together.
        image: (B,) |g|^2 of super-resolved and raw picture, without factor.
        logits: (B, 1) of the reals, from the same evaluation; they carry gradients to the critic.
    """

    weighted: Tensor
    image: Tensor
    logits: Tensor


def real_verdict_loss(logits: Tensor) -> Tensor:
    """Return softplus(-logits), of their shape: small where they say "real" (D on reals, and G on fakes)."""
    return functional.softplus(-logits)


def fake_verdict_loss(logits: Tensor) -> Tensor:
    """Return softplus(logits), of their shape: small where they say "fake" (D on fakes)."""
    return functional.softplus(logits)


def real_inputs(
    image: Tensor, mask: Tensor | None, correspondence: Tensor | None, resolution: int, blur_sigma: float = 0.0
) -> DiscriminatorInput:
    """Prepare real pictures for a critic (§7): picture, raw picture and mask are blurred by `blur_sigma` own pixels.

    Args:
        image: (B, 3, S, S) in [-1, 1].
        mask: (B, 1 or 3, H, W) in [-1, 1], or None; its channels are averaged.
        correspondence: (B, 3, S, S), or None; left as it is.
        resolution: pixels R a side of the raw picture and the mask that the generator makes at present.
        blur_sigma: width of the blur in pixels, see `build_blur_filter`.

    Returns:
        Pictures of the sides S, R, S, R.
    """
    raw = blur2d(resize_antialiased(image, resolution), blur_sigma)
    if mask is not None:
        mask = blur2d(resize_antialiased(mask.mean(dim=1, keepdim=True), resolution), blur_sigma)
    return DiscriminatorInput(blur2d(image, blur_sigma), raw, correspondence, mask)


def blur_fakes(fakes: DiscriminatorInput, blur_sigma: float) -> DiscriminatorInput:
    """Blur the super-resolved picture of fakes as that of reals is, and nothing else (§7). Gradients flow through."""
    return replace(fakes, image_sr=blur2d(fakes.image_sr, blur_sigma))


def compute_r1(critic: Critic, reals: DiscriminatorInput, weights: R1Weights, inner_scale: float = 1.0) -> R1Penalty:
    """Punish the slope of a critic at real pictures (R1, §7, "Dreg").

    g is the gradient of the sum of logits with respect to each picture as given, so a blur done before does not weaken
    it; |g|^2 is summed over channels, rows and columns. Parameters of the critic get gradients of the result (it is
    twice differentiated), pictures do not. A picture that the critic does not look at counts nothing.

    Args:
        critic: to be judged.
        reals: of `real_inputs`; None for pictures that the critic does not take.
        weights: of the pictures.
        inner_scale: factor on the logits that is taken out of the gradients again, against underflow in float16.
    """
    names = [name for name in ("image_sr", "image", "correspondence", "mask") if getattr(reals, name) is not None]
    leaves = {name: getattr(reals, name).detach().requires_grad_() for name in names}
    with torch.enable_grad():
        logits = critic(DiscriminatorInput(**leaves))
        gradients = torch.autograd.grad(
            _precise(logits).sum() * inner_scale,
            list(leaves.values()),
            create_graph=True,
            materialize_grads=True,
        )
        squares = {
            name: (_precise(gradient) / inner_scale).square().flatten(1).sum(dim=1)
            for name, gradient in zip(names, gradients, strict=True)
        }
        image = squares["image_sr"] + squares.get("image", 0)
        weighted = weights.image / 2 * image
        if "correspondence" in squares:
            weighted = weighted + weights.correspondence / 2 * squares["correspondence"]
        if "mask" in squares and ("correspondence" in squares or weights.mask_alone):
            weighted = weighted + weights.mask / 2 * squares["mask"]
    return R1Penalty(weighted, image, logits)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
