"""What all trainings do with their discriminator: learn from fakes and reals, and the gradient penalty.

Source: training-genhead.md §7, "Dmain" and "Dreg". A task gives the pictures and the verdicts; this adds the gradients.
"""

from collections.abc import Callable

from torch import Tensor

from portrait4d.losses.adversarial import (
    Critic,
    R1Weights,
    compute_r1,
    fake_verdict_loss,
    real_verdict_loss,
)
from portrait4d.models.discriminator import DiscriminatorInput
from portrait4d.training.tasks import Step


def record_scores(kind: str, logits: Tensor, step: Step) -> None:
    """Note verdicts (B, 1) on pictures of a kind, "fake" or "real"."""
    step.record(f"Loss/scores/{kind}", logits)
    step.record(f"Loss/signs/{kind}", logits.sign())


def learn_verdicts(fake_logits: Tensor, judge_reals: Callable[[], Tensor], step: Step) -> Tensor:
    """Add the gradients of the verdicts on fakes, then, when their memory is free, of those on reals.

    Args:
        fake_logits: (B, 1).
        judge_reals: gives the verdicts on reals, (B, 1).
        step: of the phase Dmain.

    Returns:
        The verdicts on reals.
    """
    fake = fake_verdict_loss(fake_logits)
    step.backward(fake.mean() * step.phase.gain)
    logits = judge_reals()
    real = real_verdict_loss(logits)
    record_scores("real", logits, step)
    step.record("Loss/D/loss", fake.detach() + real)
    step.backward(real.mean() * step.phase.gain)
    return logits


def learn_smoothness(critic: Critic, reals: DiscriminatorInput, weights: R1Weights, step: Step) -> None:
    """Add the gradients of the penalty on the critic's slope at real pictures."""
    penalty = compute_r1(critic, reals, weights)
    step.record("Loss/r1_penalty", penalty.image)
    step.record("Loss/D/reg", penalty.weighted)
    step.backward(penalty.weighted.mean() * step.phase.gain)
