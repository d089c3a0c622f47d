"""All that changes in a run besides weights and optimisers: counters, loss scales, and the watch over bad steps."""

from dataclasses import asdict, dataclass, field

from portrait4d.training.tasks import Moment

GROWTH_STEPS = 2000
LARGEST_SCALE = 2.0**24
FIRST_FP16_SCALE = 2.0**16


class GradientsLostError(Exception):
    """Too many steps in a row without finite gradients."""


@dataclass
class LossScale:
    """Dynamic factor on a network's losses, so that gradients do not vanish in float16; 1 in other precisions.

    Attributes:
        value: the factor; halved after a step without finite gradients, doubled after many with.
        good_steps: with finite gradients, since the last change.
        bad_steps: without, in a row, that no smaller factor explains.
        skipped: all steps ever skipped.
    """

    value: float = 1.0
    good_steps: int = 0
    bad_steps: int = 0
    skipped: int = 0

    def note(self, finite: bool, patience: int, phase: str) -> None:
        """Take note of a step.

        Raises:
            GradientsLostError: after `patience` bad steps in a row.
        """
        if finite:
            self.bad_steps = 0
            self.good_steps += 1
            if self.value > 1 and self.good_steps >= GROWTH_STEPS:
                self.value, self.good_steps = min(2 * self.value, LARGEST_SCALE), 0
            return
        self.good_steps = 0
        self.skipped += 1
        if self.value > 1:
            self.value /= 2
            return
        self.bad_steps += 1
        if self.bad_steps >= patience:
            raise GradientsLostError(f"{phase}: no finite gradients in {self.bad_steps} steps in a row")


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        images_seen: by all processes, the beginning of the schedules included.
        iteration: done in this run.
        tick: lines of statistics written.
        tick_start, tick_seconds: images seen and seconds of training at the last of them.
        attempt: how often the run was set back because of bad steps; changes all randomness.
        seconds: of iterations so far.
        scales: loss scale of each network.
        extra: numbers of the task.
        ended_at: images seen when the run last came to its end; -1: it never did.
    """

    images_seen: int = 0
    iteration: int = 0
    tick: int = 0
    tick_start: int = 0
    tick_seconds: float = 0.0
    attempt: int = 0
    seconds: float = 0.0
    scales: dict[str, LossScale] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)
    ended_at: int = -1

    @property
    def moment(self) -> Moment:
        """Images and iterations."""
        return Moment(self.images_seen, self.iteration)

    def expected_end(self, first_image: float, last_image: float, limit_s: float) -> float:
        """Return how many images the run will have seen in the end: `last_image`, or fewer if `limit_s` comes first.

        Args:
            first_image, last_image: images that it began with and may go to.
            limit_s: seconds of iterations.
        """
        if self.seconds >= limit_s:
            return min(last_image, self.images_seen)
        if self.tick < 2:  # no speed is known yet
            return last_image
        speed = (self.images_seen - first_image) / self.seconds
        return min(last_image, self.images_seen + speed * (limit_s - self.seconds))

    def as_dict(self) -> dict:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "RunState":
        """Build a state from `as_dict`."""
        scales = {name: LossScale(**scale) for name, scale in values["scales"].items()}
        return cls(**{**values, "scales": scales})
