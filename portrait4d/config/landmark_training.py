"""What the training of the compact landmark network is."""

from dataclasses import dataclass, field
from typing import Literal

from portrait4d.config.motion_training import DisturbanceConfig, MotionDataConfig
from portrait4d.config.networks import LandmarkNetworkConfig, require
from portrait4d.config.training import OptimConfig, RunConfig, StartConfig


@dataclass(frozen=True)
class ViewConfig:
    """What parts of pictures training shows, and on what ground. Scales are relative to the picture as it is.

    Attributes:
        source_size: pixels a side of the pictures that are kept in memory.
        close: share of views as the second look has them: upright, all faces of one size, about in the middle.
        close_turn_deg, close_octaves, close_shift: how far off these are: largest turn and change of scale, standard
            deviation of shifts in sides of the view.
        smallest, largest: scales of all other views, whose faces lie anywhere.
        turn_deg: their largest turn.
        empty: share of views without a face.
        edge: share of the views with a face beyond whose picture its edge goes on; others lie on a painted ground.
    """

    source_size: int = 128
    close: float = 0.5
    close_turn_deg: float = 12.0
    close_octaves: float = 0.25
    close_shift: float = 0.03
    smallest: float = 0.3
    largest: float = 1.3
    turn_deg: float = 30.0
    empty: float = 0.2
    edge: float = 0.3

    def __post_init__(self) -> None:
        shares = (self.close, self.empty, self.edge)
        require(min(shares) >= 0 and max(shares) <= 1, "close, empty, edge", "from 0 to 1", shares)
        require(0 < self.smallest <= self.largest, "smallest, largest", "positive, in this order", self.smallest)
        require(self.source_size >= 8, "source_size", "at least 8", self.source_size)


@dataclass(frozen=True)
class LandmarkLossConfig:
    """Huber loss of the points in units of the face's size, and logistic loss of the presence.

    Attributes:
        knee: the former is quadratic below, and counts 1 per unit above.
        presence: how much the latter counts.
    """

    knee: float = 0.01
    presence: float = 0.02

    def __post_init__(self) -> None:
        require(self.knee > 0, "knee", "above 0", self.knee)


def _disturb() -> DisturbanceConfig:
    return DisturbanceConfig(landmark_jitter=0.01)


def _optim() -> OptimConfig:
    return OptimConfig(generator_lr=1e-3, beta1=0.9, beta2=0.99, average_kimg=8.0)


@dataclass(frozen=True)
class LandmarkTraining:
    """Training of the compact landmark network. `head`: there is no truth for another head model.

    `disturb.landmark_jitter` moves the points by which views of the second look are aligned.
    """

    head: Literal["synthetic"] = "synthetic"
    run: RunConfig = field(default_factory=lambda: RunConfig(400, 16, workers=0, tick_kimg=10, image_ticks=1))
    start: StartConfig = field(default_factory=StartConfig)
    data: MotionDataConfig = field(default_factory=MotionDataConfig)
    network: LandmarkNetworkConfig = field(default_factory=LandmarkNetworkConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    disturb: DisturbanceConfig = field(default_factory=_disturb)
    loss: LandmarkLossConfig = field(default_factory=LandmarkLossConfig)
    optim: OptimConfig = field(default_factory=_optim)
