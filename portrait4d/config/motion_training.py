"""What the training of the compact motion encoder is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from portrait4d.config.networks import MotionEncoderConfig, require
from portrait4d.config.training import OptimConfig, RunConfig, StartConfig


@dataclass(frozen=True)
class MotionDataConfig:
    """Heads of the open head world, as databases of generate_lmdb; all are kept in memory, reduced to `picture_size`.

    Attributes:
        path: database of stills.
        clips: database of clips, every frame counts like a still; None: only stills.
        held_out: database of stills, of other persons, that are only measured.
    """

    path: Path | None = None
    clips: Path | None = None
    held_out: Path | None = None


@dataclass(frozen=True)
class DisturbanceConfig:
    """Random changes of pictures and landmarks in training.

    Attributes:
        mirror: mirror half of the faces, with their motions.
        lowest_size: pictures lose detail as if they had from so many pixels a side upwards.
        landmark_jitter: standard deviation of each coordinate of each landmark, in sides of the picture; what aligns
            the crop are means over six landmarks and more.
        brightness, contrast, tint: largest changes: of colours in [-1, 1], of their factor, of each channel's factor.
        grey: largest share of its own grey picture mixed in.
        noise: largest standard deviation of noise.
    """

    mirror: bool = True
    lowest_size: int = 56
    landmark_jitter: float = 0.02
    brightness: float = 0.2
    contrast: float = 0.25
    tint: float = 0.1
    grey: float = 0.8
    noise: float = 0.04

    def __post_init__(self) -> None:
        require(self.lowest_size >= 8, "lowest_size", "at least 8", self.lowest_size)
        require(0 <= self.grey <= 1, "grey", "from 0 to 1", self.grey)
        least = min(self.landmark_jitter, self.brightness, self.contrast, self.tint, self.noise)
        require(least >= 0, "landmark_jitter, brightness, contrast, tint, noise", "at least 0", least)


@dataclass(frozen=True)
class MotionLossConfig:
    """Huber loss of the inputs, each in units of its standard deviation in the data.

    Attributes:
        knee: the loss is quadratic below. Most expressions are rare: with a loss that is linear near 0 it would pay to
            leave them out.
        least_deviation: taken for inputs that vary less.
        blink, gaze, jaw: how much these count, the others 1.
    """

    knee: float = 1.0
    least_deviation: float = 0.05
    blink: float = 3.0
    gaze: float = 3.0
    jaw: float = 3.0

    def __post_init__(self) -> None:
        require(min(self.knee, self.least_deviation) > 0, "knee, least_deviation", "above 0", self.least_deviation)


def _optim() -> OptimConfig:
    return OptimConfig(generator_lr=1e-3, beta1=0.9, beta2=0.99, average_kimg=8.0)


@dataclass(frozen=True)
class MotionEncoderTraining:
    """Training of the compact motion encoder. `head`: there is no truth for another head model."""

    head: Literal["synthetic"] = "synthetic"
    run: RunConfig = field(default_factory=lambda: RunConfig(300, 16, workers=0, tick_kimg=5, image_ticks=1))
    start: StartConfig = field(default_factory=StartConfig)
    data: MotionDataConfig = field(default_factory=MotionDataConfig)
    network: MotionEncoderConfig = field(default_factory=MotionEncoderConfig)
    disturb: DisturbanceConfig = field(default_factory=DisturbanceConfig)
    loss: MotionLossConfig = field(default_factory=MotionLossConfig)
    optim: OptimConfig = field(default_factory=_optim)
