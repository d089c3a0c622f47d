"""Training of Portrait4D v1 and its static variant from heads with known truth (training-recon-v1.md)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from portrait4d.config.recon_training import ReconV1Training, SupervisionConfig
from portrait4d.data.parameter_bank import ParameterBank
from portrait4d.files.errors import UserError
from portrait4d.geometry.mirroring import HeadMirror
from portrait4d.losses.regularizers import density_roughness, sample_point_pairs
from portrait4d.models.checkpoints import load_genhead
from portrait4d.models.discriminator import Discriminator
from portrait4d.models.pretrained.resnet_trunk import initialise_encoder
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.synthetic_heads.head_template import build_open_head
from portrait4d.training.distributed import Ranks, keyed_generator
from portrait4d.training.genhead_supervision import GenHeadSupervision, GenHeadSupervisionConfig
from portrait4d.training.head_choice import load_head
from portrait4d.training.motion_choice import motion_reader
from portrait4d.training.recon_task import ReconTask, is_cross_layer
from portrait4d.training.rendered_subjects import RenderedSubjects
from portrait4d.training.schedules import lazy_interval
from portrait4d.training.starting_weights import copy_matching, read_starting_weights
from portrait4d.training.subject_frames import ClipSubjects, FolderSubjects, SubjectSource
from portrait4d.training.subject_memory import SubjectMemory, SubjectMemoryConfig
from portrait4d.training.subject_variation import VariedSubjects
from portrait4d.training.supervision import SupervisedBatch, Supervision
from portrait4d.training.synthetic_supervision import SyntheticHeadsSupervision, SyntheticSupervisionConfig
from portrait4d.training.tasks import Moment, Step

GRID_SUBJECTS = 8
GRID_SEED = 1
FROZEN_AT_FIRST = ("decoder", "super_resolution")


class ReconV1Task(ReconTask):
    """Reconstruction of synthetic heads.

    Raises:
        UserError, AssetMissingError: something the configuration names is missing.
    """

    def __init__(self, config: ReconV1Training, ranks: Ranks) -> None:
        density = lazy_interval(config.density.weight, config.density.interval)
        super().__init__(config, ranks, density)
        self.supervision = build_supervision(config, ranks)
        self._grid: SupervisedBatch | None = None
        self._coming: tuple[int, list[Callable[[], SupervisedBatch]]] | None = None

    def prepare_networks(self, generator: Reconstructor, discriminator: Discriminator) -> None:
        """Start the encoder from ImageNet, and what GenHead's training has from there, where that is asked for."""
        initialise_encoder(generator.global_encoder, self.config.encoder_init)
        initialise_motion(generator, self.config.motion_init, self.config.motion_gain)
        if self.config.genhead_init is not None:
            found = read_starting_weights(self.config.genhead_init)
            if not copy_matching(generator, found.get("average", {})):
                raise UserError(f"genhead_init: {self.config.genhead_init} has nothing that fits the reconstructor")
            copy_matching(discriminator, found.get("D", {}))

    def skip_batches(self, count: int) -> None:
        """Nothing is read in order: every iteration's subjects follow from its number."""
        self._coming = None

    def load_chunks(self, moment: Moment) -> list[SupervisedBatch]:
        """Make this iteration's subjects, and let workers begin with the next one's."""
        if self._coming is None or self._coming[0] != moment.iteration:
            self._coming = (moment.iteration, self._request(moment))
        _, waiting = self._coming
        following = Moment(moment.images_seen + self.run.batch, moment.iteration + 1)
        self._coming = (following.iteration, self._request(following)) if self.config.supervision.workers else None
        return [wait() for wait in waiting]

    def _request(self, moment: Moment) -> list[Callable[[], SupervisedBatch]]:
        count = self.run.batch // self.ranks.count // self.run.chunk_size
        requests = []
        for chunk in range(count):
            _, generator = self.chunk_generators(moment, "subjects", chunk)
            if isinstance(self.supervision, SyntheticHeadsSupervision | SubjectMemory):
                judged = self.is_adversarial(moment)
                requests.append(self.supervision.request(self.run.chunk_size, generator, judged))
            else:
                requests.append(lambda generator=generator: self.supervision.sample(self.run.chunk_size, generator))
        return requests

    def compute_gradients(self, chunk: SupervisedBatch, step: Step) -> None:
        """Add a phase's gradients; decoder and super-resolution may rest at first."""
        if step.phase.network == "G" and step.moment.images_seen < self.config.freeze_kimg * 1000:
            for name in FROZEN_AT_FIRST:
                getattr(self.generator, name).requires_grad_(False)
        super().compute_gradients(chunk, step)

    def regularise_generator(self, chunk: SupervisedBatch, step: Step) -> None:
        """Make densities smooth."""
        density, network = self.config.density, self.generator
        scale = chunk.motion_scale(self.motion_strength)
        with self.autocast:
            source = network.encode_source(chunk.source_image, chunk.source_motion, scale)
            planes = network.generate_planes(source, chunk.driving_motion, scale)
        spread = density.spread * network.config.volume.box_warp
        points = sample_point_pairs(len(chunk), spread, generator=step.generator, device=self.ranks.device)
        field = network.radiance_field(planes.float(), network.head_pose_field(chunk.params))
        loss = density.weight * density_roughness([field(points).densities])
        step.record("Loss/G/TVloss", loss)
        step.backward(loss * step.phase.gain)

    def grid_batch(self) -> SupervisedBatch:
        """Return the grid's subjects; they are not drawn from memory, where others are after resuming."""
        if self._grid is None:
            supervision = self.supervision
            if isinstance(supervision, SubjectMemory):
                here = replace(self.config.supervision, memory=0, workers=0)
                supervision = build_supervision(replace(self.config, supervision=here), self.ranks)
            self._grid = supervision.sample(GRID_SUBJECTS, keyed_generator("cpu", GRID_SEED))
        return self._grid

    def extra_state(self) -> dict[str, float]:
        """Return how many persons were rendered, where they are kept."""
        memory = self.supervision
        return {"persons": memory.rendered_before + memory.rendered} if isinstance(memory, SubjectMemory) else {}

    def load_extra_state(self, state: dict[str, float]) -> None:
        """Go on with other persons than those."""
        if isinstance(self.supervision, SubjectMemory):
            self.supervision.go_on_after(int(state["persons"]))

    def close(self) -> None:
        """Stop the workers that make subjects."""
        if isinstance(self.supervision, SyntheticHeadsSupervision | SubjectMemory):
            self.supervision.close()


@torch.no_grad()
def initialise_motion(generator: Reconstructor, motion_init: str, motion_gain: float) -> None:
    """Change what the layers by which motion enters start with, see `ReconV1Training`."""
    if motion_init == "fan_in":
        for name, parameter in generator.named_parameters():
            if is_cross_layer(name) and parameter.ndim == 2:
                nn.init.trunc_normal_(parameter, std=parameter.shape[1] ** -0.5)
    for tokens in (generator.canonical_encoder.source_motion, generator.canonical_encoder.driving_motion):
        tokens.hidden[0].weight.mul_(motion_gain)


def build_recon_v1_task(config: ReconV1Training, ranks: Ranks) -> ReconV1Task:
    """Build the training of v1 or of the static model."""
    return ReconV1Task(config, ranks)


def build_supervision(config: ReconV1Training, ranks: Ranks) -> Supervision:
    """Build what v1 learns from.

    Raises:
        UserError: the configuration does not say where it is, or it does not fit.
    """
    wanted = config.supervision
    if wanted.source == "genhead":
        return _genhead_supervision(config, ranks)
    size = config.network.image_resolution
    if wanted.memory:
        return _memory(config, ranks)
    settings = SyntheticSupervisionConfig(size, config.static, not config.static, wanted.workers)
    motion = motion_reader(config.motion, ranks.device)
    source = _subject_source(wanted, size, config.resolution.initial)
    head = load_head("synthetic")
    if wanted.vary:
        source = VariedSubjects(source, HeadMirror.fit(head))
    return SyntheticHeadsSupervision(source, head.to(ranks.device), settings, motion)


def _memory(config: ReconV1Training, ranks: Ranks) -> SubjectMemory:
    wanted = config.supervision
    settings = SubjectMemoryConfig(
        persons=wanted.memory,
        workers=wanted.workers,
        seed=config.run.seed,
        rank=ranks.rank,
        static=config.static,
        half_static=not config.static,
    )
    source = RenderedSubjects(config.network.image_resolution, config.resolution.initial)
    head, motion = load_head("synthetic").to(ranks.device), motion_reader(config.motion, ranks.device)
    return SubjectMemory(source, head, settings, motion)


def _subject_source(wanted: SupervisionConfig, size: int, rays: int) -> SubjectSource:
    if wanted.pool is None:
        return RenderedSubjects(size, rays, wanted.cross_driving)
    is_folder = (wanted.pool / "manifest.jsonl").is_file()
    return FolderSubjects(wanted.pool) if is_folder else ClipSubjects(wanted.pool)


def _genhead_supervision(config: ReconV1Training, ranks: Ranks) -> GenHeadSupervision:
    wanted = config.supervision
    if wanted.genhead is None or wanted.parameters is None:
        raise UserError(
            "supervision.genhead and supervision.parameters: both are needed, GenHead's file and the folder of the four"
            " published .npy files; or set supervision.source=synthetic_heads, which needs neither"
        )
    network = load_genhead(wanted.genhead, build_open_head).to(ranks.device)
    settings = GenHeadSupervisionConfig(
        static=config.static,
        half_static=not config.static,
        truncation_psi=wanted.truncation_psi,
        resolution=config.resolution.initial,
        chunk=config.run.chunk_size,
        dtype=getattr(torch, config.optim.precision),
        frontal_probability=wanted.frontal_probability,
    )
    return GenHeadSupervision(
        network, ParameterBank.load(wanted.parameters), motion_reader(config.motion, ranks.device), settings
    )
