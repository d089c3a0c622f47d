"""What a training run is: sections that all trainings share, and GenHead's training (training-genhead.md §2, §3).

Durations are in kimg, thousands of images seen by all processes together. What may change when a run is resumed is in
`FREE_KEYS`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from portrait4d.config.gan_networks import DiscriminatorConfig, GenHeadConfig
from portrait4d.config.networks import require

_FREE_RUN = ("kimg", "gpus", "workers", "device", "image_ticks", "network_ticks", "state_ticks", "keep_states")
_FREE_VALIDATION = ("subjects", "seed", "shown", "clips", "clip_frames")
FREE_KEYS = frozenset(
    [f"run.{key}" for key in (*_FREE_RUN, "keep_networks", "minutes")]
    + [f"validation.{key}" for key in _FREE_VALIDATION]
    + ["data.path", "supervision.workers", "optim.tf32"]
)
"""Dotted keys of a configuration that a resumed run may change: how often to save, what to keep and to measure, where
data is, how many processes share the work; and, although they change what is learnt from there on, the run's length
(`kimg`, `minutes`) and how its device rounds (`device`, `tf32`)."""


@dataclass(frozen=True)
class RunConfig:
    """Length, batches and records of a run.

    Attributes:
        kimg: length of the training.
        batch: images of an iteration, all processes together.
        chunk: images that one process works on at once ("batch_gpu"); None: its whole share.
        gpus: processes, one per GPU, or on a CPU so many processes.
        seed: everything random follows from it.
        device: "auto" takes a GPU if there is one.
        workers: processes that read data ahead, for each training process.
        tick_kimg: between two lines of statistics.
        image_ticks, network_ticks, state_ticks: ticks between two picture grids, networks, and states to resume from.
        keep_states: how many of the newest states stay.
        keep_networks: how many of the newest networks stay; None: all.
        minutes: it also ends after so long in iterations, those before a resumption or set back counted in; start-up,
            validation, pictures and saving come on top. Then the rates' fall at the end depends on the speed so far,
            and a run does not repeat to the bit. None: no limit.
    """

    kimg: float = 25000.0
    batch: int = 32
    chunk: int | None = None
    gpus: int = 1
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = 3
    tick_kimg: float = 4.0
    image_ticks: int = 50
    network_ticks: int = 50
    state_ticks: int = 10
    keep_states: int = 2
    keep_networks: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        for key in ("batch", "gpus", "image_ticks", "network_ticks", "state_ticks", "keep_states"):
            require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
        require(self.workers >= 0, "workers", "at least 0", self.workers)
        require(
            self.keep_networks is None or self.keep_networks >= 1, "keep_networks", "at least 1", self.keep_networks
        )
        require(self.kimg >= 0 and self.tick_kimg > 0, "kimg, tick_kimg", "positive", (self.kimg, self.tick_kimg))
        require(self.minutes is None or self.minutes > 0, "minutes", "a positive number", self.minutes)
        require(self.batch % self.gpus == 0, "batch", f"a multiple of gpus, {self.gpus}", self.batch)
        share = self.batch // self.gpus
        fits = self.chunk is None or (self.chunk >= 1 and share % self.chunk == 0)
        require(fits, "chunk", f"a divisor of batch / gpus, {share}", self.chunk)

    @property
    def chunk_size(self) -> int:
        """Images that one process works on at once."""
        return self.chunk or self.batch // self.gpus


@dataclass(frozen=True)
class OptimConfig:
    """Adam, gradients and precision.

    Attributes:
        generator_lr, discriminator_lr: before the correction for lazy regularisation.
        beta1, beta2, eps: of Adam.
        chunk_reduction: the gradient of a batch is the mean over its chunks, or, as in the reference, their sum.
        precision: of the networks ("float16" with dynamic loss scaling).
        tf32: on GPUs that can, float32 convolutions round their factors to 10 bits, which is several times faster.
        patience: after so many steps in a row without finite gradients the last state is restored.
        average_kimg: half-life of the averaged generator at batch 32; shorter in proportion at smaller batches.
        decay_kimg: learning rates fall linearly to 0 over so long at the end of the run; 0: they stay.
        average_ramp: the half-life is at most this share of the images seen; None: always full.
    """

    generator_lr: float = 0.0025
    discriminator_lr: float = 0.002
    beta1: float = 0.0
    beta2: float = 0.99
    eps: float = 1e-8
    chunk_reduction: Literal["mean", "sum"] = "mean"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    tf32: bool = False
    patience: int = 10
    average_kimg: float = 10.0
    decay_kimg: float = 0.0
    average_ramp: float | None = 0.05

    def __post_init__(self) -> None:
        rates = (self.generator_lr, self.discriminator_lr)
        require(min(rates) >= 0, "generator_lr, discriminator_lr", "at least 0", rates)
        require(self.patience >= 1, "patience", "at least 1", self.patience)


@dataclass(frozen=True)
class StartConfig:
    """What a run begins with.

    Attributes:
        weights: a published .pkl, a network or a state of ours, copied by name where shapes agree; None: random ones.
        kimg: images seen that the schedules begin with.
        keep_blur: keep the fades of blur and conditioning although there are weights to start from.
    """

    weights: Path | None = None
    kimg: float = 0.0
    keep_blur: bool = False


@dataclass(frozen=True)
class DataConfig:
    """Portraits to learn from.

    Attributes:
        path: LMDB database or folder of shards, as generate_lmdb writes it.
        max_size: use so many portraits; None: all.
        mirror: use mirrored copies too (pictures, cameras and coefficients).
    """

    path: Path | None = None
    max_size: int | None = None
    mirror: bool = False

    def __post_init__(self) -> None:
        require(self.max_size is None or self.max_size >= 1, "max_size", "at least 1", self.max_size)


@dataclass(frozen=True)
class AdversarialConfig:
    """R1 penalty of the discriminator, every `interval` iterations: gammas of picture, correspondence map, mask."""

    gamma: float = 1.0
    gamma_uv: float = 10.0
    gamma_seg: float = 1.0
    interval: int = 16

    def __post_init__(self) -> None:
        require(self.interval >= 1, "interval", "at least 1", self.interval)


@dataclass(frozen=True)
class DensityConfig:
    """Density regularisation of the generator, every `interval` iterations.

    `weight` 0 switches it off; `spread` is the distance to neighbours in units of the box.
    """

    weight: float = 0.25
    spread: float = 0.004
    interval: int = 4

    def __post_init__(self) -> None:
        require(self.interval >= 1, "interval", "at least 1", self.interval)


@dataclass(frozen=True)
class ResolutionConfig:
    """Rays per side in the course of a run: `initial`, fading to `final` (None: constant) over `fade_kimg`."""

    initial: int = 64
    final: int | None = None
    fade_kimg: float = 1000.0

    def __post_init__(self) -> None:
        sides = (self.initial, self.initial if self.final is None else self.final)
        require(min(sides) >= 1, "initial, final", "at least 1", sides)
        require(self.fade_kimg >= 0, "fade_kimg", "at least 0", self.fade_kimg)


@dataclass(frozen=True)
class BlurConfig:
    """Blur of what the discriminator sees at first: `sigma` pixels, gone after `fade_kimg` (at batch 32)."""

    sigma: float = 10.0
    fade_kimg: float = 200.0

    def __post_init__(self) -> None:
        require(min(self.sigma, self.fade_kimg) >= 0, "sigma, fade_kimg", "at least 0", (self.sigma, self.fade_kimg))


@dataclass(frozen=True)
class ConditioningConfig:
    """What the mapping network is told of cameras.

    Attributes:
        cameras: condition on the camera at all ("gen_pose_cond").
        swap_probability: of being told another sample's, in the end; 1 at first.
        swap_fade_kimg: length of that fade.
        combine: draw identity, expression, neck, eyes and camera of fakes from different portraits.
    """

    cameras: bool = True
    swap_probability: float = 0.5
    swap_fade_kimg: float = 1000.0
    combine: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.swap_probability <= 1, "swap_probability", "from 0 to 1", self.swap_probability)
        require(self.swap_fade_kimg >= 0, "swap_fade_kimg", "at least 0", self.swap_fade_kimg)


@dataclass(frozen=True)
class AugmentOperations:
    """Which random transformations there are; `training/augmentation.py` says what they do.

    Two are off: `flip` turns heads to the other side, `quarter_turn` lays them down. The camera that the discriminator
    is told with the picture, and the correspondence map's values, would both be false.
    """

    flip: bool = False
    quarter_turn: bool = False
    shift: bool = True
    scale: bool = True
    rotate: bool = True
    stretch: bool = True
    drift: bool = True
    brightness: bool = True
    contrast: bool = True
    luma_flip: bool = True
    hue: bool = True
    saturation: bool = True


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of what the discriminator sees, for small sets.

    Attributes:
        mode: none, with a probability adapted to over-fitting (ADA), or with a fixed one.
        probability: of each transformation, "fixed" mode.
        target: sign of the discriminator's verdict on reals that "ada" aims at.
        speed_kimg: images in which the probability may go from 0 to 1.
        operations: the transformations.
    """

    mode: Literal["none", "ada", "fixed"] = "none"
    probability: float = 0.2
    target: float = 0.6
    speed_kimg: float = 500.0
    operations: AugmentOperations = field(default_factory=AugmentOperations)

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability", "from 0 to 1", self.probability)
        require(-1 <= self.target <= 1, "target", "from -1 to 1", self.target)
        require(self.speed_kimg > 0, "speed_kimg", "a positive number", self.speed_kimg)


@dataclass(frozen=True)
class GenHeadTraining:
    """Training of GenHead. `head` is the head model: the licensed FLAME or the open one."""

    head: Literal["flame", "synthetic"] = "flame"
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    start: StartConfig = field(default_factory=StartConfig)
    network: GenHeadConfig = field(default_factory=GenHeadConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    density: DensityConfig = field(default_factory=DensityConfig)
    resolution: ResolutionConfig = field(default_factory=ResolutionConfig)
    blur: BlurConfig = field(default_factory=BlurConfig)
    conditioning: ConditioningConfig = field(default_factory=ConditioningConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        size, seen = self.network.image_resolution, self.discriminator.pyramid.resolution
        require(size == seen, "discriminator.pyramid.resolution", f"network.image_resolution, {size}", seen)
        group, chunk = self.discriminator.group_size, self.run.chunk_size
        require(chunk % group == 0 or chunk < group, "run.chunk", f"a multiple of group_size, {group}", chunk)
