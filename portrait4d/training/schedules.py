"""What changes in the course of a training, as functions of the number of images seen (all processes together).

Source: training-genhead.md §3 to §6. A kimg is a thousand images.
"""

from dataclasses import dataclass, replace

REFERENCE_BATCH = 32
"""Batch size that published durations in kimg are meant for."""


def scale_kimg(kimg: float, batch: int) -> float:
    """Return a duration that is as many iterations at this batch size as `kimg` at 32 (§3: blur, weight average)."""
    return batch * kimg / REFERENCE_BATCH


def ramp(images_seen: int, length_kimg: float, start_kimg: float = 0.0) -> float:
    """Return how much of a linear ramp is done, in [0, 1]; a ramp without length is done from its start on.

    Raises:
        ValueError: on a negative length.
    """
    if length_kimg < 0:
        raise ValueError(f"length_kimg: expected at least 0, got {length_kimg}")
    since = images_seen - start_kimg * 1000
    if length_kimg == 0:
        return float(since >= 0)
    return min(max(since / (length_kimg * 1000), 0.0), 1.0)


def blur_sigma(images_seen: int, fade_kimg: float, initial_sigma: float = 10.0) -> float:
    """Return the width in pixels of the blur of what the discriminator sees (§6), falling to 0 over `fade_kimg`."""
    return initial_sigma * (1 - ramp(images_seen, fade_kimg))


def swap_probability(images_seen: int, final: float | None, fade_kimg: float) -> float | None:
    """Return how probable it is that a sample is conditioned on another one's camera (§6), 1 falling to `final`.

    None (no conditioning on cameras) stays None.
    """
    if final is None:
        return None
    done = ramp(images_seen, fade_kimg)
    return (1 - done) + done * final


def render_resolution(
    images_seen: int, initial: int, final: int | None = None, fade_kimg: float = 1000.0, start_kimg: float = 0.0
) -> int:
    """Return the rays per side (§6; training-recon-v1.md §7): `initial`, and on the way to `final` if that is given."""
    if final is None:
        return initial
    done = ramp(images_seen, fade_kimg, start_kimg)
    return round(initial * (1 - done) + final * done)


def average_beta(images_seen: int, batch: int, half_life_kimg: float, ramp_up: float | None = 0.05) -> float:
    """Return the share of the averaged weights that an update keeps (§5, last paragraph).

    beta = 0.5 ^ (batch / n), n the half-life in images.

    Args:
        images_seen: before the iteration that is averaged in.
        batch: images of an iteration.
        half_life_kimg: 10 at batch 32, see `scale_kimg`.
        ramp_up: the half-life is at most this share of the images seen, so the average begins as a copy; None: always
            the full half-life (resumed trainings).
    """
    half_life = half_life_kimg * 1000
    if ramp_up is not None:
        half_life = min(half_life, images_seen * ramp_up)
    return 0.5 ** (batch / max(half_life, 1e-8))


def rate_factor(images_seen: int, end_kimg: float, decay_kimg: float) -> float:
    """Return the factor on learning rates, 1 falling to 0 over the last `decay_kimg` of a run."""
    return 1 - ramp(images_seen, decay_kimg, end_kimg - decay_kimg) if decay_kimg else 1.0


def has_started(images_seen: int, start_kimg: float) -> bool:
    """Return whether what begins at `start_kimg` has begun (training-recon-v1.md §7)."""
    return images_seen >= start_kimg * 1000


@dataclass(frozen=True)
class AdamSettings:
    """Learning rate and momenta of Adam."""

    learning_rate: float
    beta1: float = 0.0
    beta2: float = 0.99
    eps: float = 1e-8


def lazy_interval(weight: float, interval: int) -> int | None:
    """Return the iterations between two regularisations, or None if their `weight` is 0 (§3: generator only)."""
    return interval if weight > 0 else None


def lazy_settings(settings: AdamSettings, interval: int | None) -> AdamSettings:
    """Correct Adam for regularising only in every `interval`-th iteration, in a step of its own (§4.6).

    In `interval` iterations Adam makes one step more, so with m = interval / (interval + 1) the rate is multiplied by m
    and the momenta are raised to it. Without an interval nothing changes.

    Raises:
        ValueError: on an interval below 1.
    """
    if interval is None:
        return settings
    if interval < 1:
        raise ValueError(f"interval: expected at least 1, got {interval}")
    share = interval / (interval + 1)
    return replace(
        settings,
        learning_rate=settings.learning_rate * share,
        beta1=settings.beta1**share,
        beta2=settings.beta2**share,
    )
