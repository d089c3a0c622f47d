"""What a reconstructor's training is: v1 and static (training-recon-v1.md), v2 (training-recon-v2.md)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from portrait4d.config.gan_networks import DiscriminatorConfig
from portrait4d.config.networks import ReconstructorConfig, require
from portrait4d.config.training import (
    AdversarialConfig,
    DensityConfig,
    OptimConfig,
    ResolutionConfig,
    RunConfig,
    StartConfig,
)

MotionSource = Literal["pdfgc", "synthetic", "flame", "exact"]
"""Where motion vectors come from: the published encoder (548), our encoder of the open head world (548), the head
model's parameters (109), or, in the open head world only, the vectors stored with its pictures (548)."""


@dataclass(frozen=True)
class ReconLossConfig:
    """Terms of the reconstructor's loss.

    Attributes:
        perceptual: learned distance: published LPIPS, VGG with random weights (offline), or none.
        identity: face embedding: published ArcFace, or none.
        perceptual_weight, absolute_weight, identity_weight, mask_weight, depth_weight, feature_weight, triplane_weight,
            adversarial_weight: factors.
        identity_start_kimg: from when on identity counts.
        extras_end_kimg: until when depth, features and planes of the synthetic scene count.
        adversarial_start_kimg: from when on there is a discriminator.
        face_weight: how much more a pixel of eyes and mouth counts in the absolute difference of the full picture (0 as
            published); what moves a face covers few pixels.
    """

    perceptual: Literal["lpips", "random_vgg", "none"] = "lpips"
    identity: Literal["arcface", "none"] = "arcface"
    perceptual_weight: float = 1.0
    absolute_weight: float = 1.0
    identity_weight: float = 1.0
    mask_weight: float = 0.3
    depth_weight: float = 1.0
    feature_weight: float = 1.0
    triplane_weight: float = 0.1
    adversarial_weight: float = 0.01
    identity_start_kimg: float = 400.0
    extras_end_kimg: float = 400.0
    adversarial_start_kimg: float = 1000.0
    face_weight: float = 0.0


@dataclass(frozen=True)
class ValidationConfig:
    """Held-out heads of the open head world, with exact truth, measured with every picture grid.

    Attributes:
        subjects: how many; 0: no validation.
        seed: of persons, motions and cameras; never that of training data.
        shown: how many of them the picture shows.
        clips: how many more persons, each in a short clip, reenacted by themselves, by another person, and seen from
            the side, which also tells how results tremble; with `subjects` only, and not of static models.
        clip_frames: consecutive frames of each.
    """

    subjects: int = 0
    seed: int = 990_000
    shown: int = 6
    clips: int = 0
    clip_frames: int = 4

    def __post_init__(self) -> None:
        require(self.clip_frames >= 3, "validation.clip_frames", "at least 3", self.clip_frames)


@dataclass(frozen=True)
class SupervisionConfig:
    """What v1 learns from.

    Attributes:
        source: heads that a frozen GenHead makes up, as in the paper, or the open head world with exact truth.
        genhead: network file of the first.
        parameters: folder with the four published .npy files, for the first.
        truncation_psi: of GenHead's styles.
        frontal_probability: of telling GenHead a frontal camera instead of the source's (0 as published).
        pool: for the second: a database of clips or a folder of write_synthetic_portraits; None: rendered on line.
        workers: processes that render or load subjects.
        cross_driving: rendered on line: the driving picture shows another person.
        vary: open head world: a subject's pictures change colour together, and half of the subjects are mirrored.
        memory: rendered on line: so many persons stay in the training device's memory (0.6 MB each at 128 pixels)
            and subjects are drawn from them while the workers render new ones; 0: every subject is another person.
    """

    source: Literal["genhead", "synthetic_heads"] = "genhead"
    genhead: Path | None = None
    parameters: Path | None = None
    truncation_psi: float = 0.95
    frontal_probability: float = 0.0
    pool: Path | None = None
    workers: int = 0
    cross_driving: bool = False
    vary: bool = False
    memory: int = 0

    def __post_init__(self) -> None:
        require(self.memory >= 0, "supervision.memory", "at least 0", self.memory)
        renders = self.source == "synthetic_heads" and self.pool is None and not (self.vary or self.cross_driving)
        need = "0 unless heads are rendered on line, neither varied nor driven by others"
        require(self.memory == 0 or renders, "supervision.memory", need, self.memory)


def _recon_optim() -> OptimConfig:
    return OptimConfig(generator_lr=1e-4, discriminator_lr=1e-4, beta1=0.9, beta2=0.999, eps=1e-5)


@dataclass(frozen=True)
class ReconV1Training:
    """Training of Portrait4D v1, or with `static` of its variant without motion.

    Attributes:
        motion: where motion vectors come from.
        cross_lr_scale: factor on the learning rate of the layers that motion enters by.
        plane_lr_scale: factor on that of the last convolution before the planes; too fast, it makes features so large
            that the decoder's sigmoids stand still.
        encoder_init: of the global encoder's trunk: ImageNet's ResNet-34, or random numbers.
        motion_init: standard deviation that the linear layers by which motion enters start with: 0.02 as published,
            which suits a thousand inputs, or "fan_in", 1 / sqrt(inputs): in narrow networks motion else enters so
            weakly that they learn for long to ignore it.
        motion_gain: factor on what the first layer that reads motion starts with; the open head world's vectors are
            about a tenth as long as PD-FGC's.
        genhead_init: also start decoder, super-resolution, discriminator and average style from GenHead's.
        freeze_kimg: keep decoder and super-resolution as they are for so long.
    """

    head: Literal["flame", "synthetic"] = "flame"
    static: bool = False
    motion: MotionSource = "pdfgc"
    cross_lr_scale: float = 1.0
    plane_lr_scale: float = 1.0
    encoder_init: Literal["imagenet", "random"] = "imagenet"
    motion_init: Literal["published", "fan_in"] = "published"
    motion_gain: float = 1.0
    genhead_init: Path | None = None
    freeze_kimg: float = 0.0
    run: RunConfig = field(default_factory=lambda: RunConfig(15000, 32, gpus=8, image_ticks=10, network_ticks=100))
    start: StartConfig = field(default_factory=StartConfig)
    network: ReconstructorConfig = field(default_factory=ReconstructorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optim: OptimConfig = field(default_factory=_recon_optim)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)
    loss: ReconLossConfig = field(default_factory=ReconLossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    density: DensityConfig = field(default_factory=lambda: DensityConfig(interval=16))
    resolution: ResolutionConfig = field(default_factory=lambda: ResolutionConfig(64, 128))
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        require_matching_motion(self.motion, self.network)


@dataclass(frozen=True)
class ClipDataConfig:
    """Clips to learn from: LMDB database or shards of generate_lmdb/vfhq; `max_size` of them (None: all)."""

    path: Path | None = None
    max_size: int | None = None


@dataclass(frozen=True)
class PseudoViewConfig:
    """What the frozen static model adds to real clips (training-recon-v2.md §4, §5).

    Attributes:
        network: its file ("resume_fix"); None: no pseudo views.
        motion_probability: of reading the driving motion from a pseudo view.
        novel_view_weight: of the loss between its novel views and ours, 0: none; every `interval` iterations.
        interval: iterations between two.
        scale_by_eyes: let its head shrink with closed eyes, as it makes those too large.
        share: make pseudo views once for all phases of an iteration; false: anew in each, as the reference does.
    """

    network: Path | None = None
    motion_probability: float = 0.9
    novel_view_weight: float = 1.0
    interval: int = 4
    scale_by_eyes: bool = True
    share: bool = True


@dataclass(frozen=True)
class ReconV2Training:
    """Training of Portrait4D-v2 on clips. Fields as in `ReconV1Training`."""

    head: Literal["flame", "synthetic"] = "flame"
    motion: MotionSource = "pdfgc"
    cross_lr_scale: float = 2.5
    plane_lr_scale: float = 1.0
    run: RunConfig = field(default_factory=lambda: RunConfig(18000, 32, gpus=8, image_ticks=10, network_ticks=100))
    start: StartConfig = field(default_factory=lambda: StartConfig(kimg=10000))
    network: ReconstructorConfig = field(default_factory=ReconstructorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optim: OptimConfig = field(default_factory=_recon_optim)
    data: ClipDataConfig = field(default_factory=ClipDataConfig)
    pseudo: PseudoViewConfig = field(default_factory=PseudoViewConfig)
    loss: ReconLossConfig = field(default_factory=ReconLossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    resolution: ResolutionConfig = field(default_factory=lambda: ResolutionConfig(128))
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        require_matching_motion(self.motion, self.network)
        mixed = self.motion == "flame" and self.pseudo.motion_probability > 0
        require(not mixed, "pseudo.motion_probability", "0 with motion: flame", self.pseudo.motion_probability)
        alone = self.pseudo.network is None and self.pseudo.motion_probability > 0 and self.data.path is not None
        require(not alone, "pseudo.network", "the static model's file, or pseudo.motion_probability=0", None)


def require_matching_motion(motion: MotionSource, network: ReconstructorConfig) -> None:
    """Check that a network takes vectors of the length of a motion source.

    Raises:
        ValueError: if not.
    """
    kind = "flame" if motion == "flame" else "pdfgc"
    require(network.motion_kind == kind, "network.motion_kind", f"{kind}, for motion: {motion}", network.motion_kind)
