"""V1's training on a small pool: gradients of each phase, what starts from elsewhere or rests, who makes subjects."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from portrait4d.config.networks import SuperResolutionConfig
from portrait4d.config.recon_training import ReconV1Training
from portrait4d.files.errors import UserError
from portrait4d.models.checkpoints import load_genhead, save_discriminator
from portrait4d.models.discriminator import Discriminator
from portrait4d.synthetic_heads.head_template import build_open_head
from portrait4d.training import recon_v1_task, subject_memory
from portrait4d.training.distributed import Ranks
from portrait4d.training.genhead_supervision import GenHeadSupervision
from portrait4d.training.launch import Launch, launch
from portrait4d.training.recon_v1_task import FROZEN_AT_FIRST, ReconV1Task, build_supervision, initialise_motion
from portrait4d.training.rendered_subjects import RenderedSubjects
from portrait4d.training.subject_frames import ClipSubjects, FolderSubjects
from portrait4d.training.tasks import Moment
from tests.helpers.recon_runs import STATIC, v1_config, write_genhead
from tests.helpers.recon_stubs import phase_gradients
from tests.helpers.supervised_batches import wavy_batch
from tests.helpers.training_runs import final_state

WIDE_STYLE = SuperResolutionConfig(channels=(16, 8), style_dim=32, style="ones")
"""Of a GenHead whose average style is as long as its super-resolution's."""


class QuickTask(ReconV1Task):
    """Without picture grids."""

    def draw_pictures(self) -> dict[str, Tensor]:
        return {}

    def draw_reals(self) -> Tensor:
        return torch.zeros(3, 8, 8)


def build_quick(config: ReconV1Training, ranks: Ranks) -> QuickTask:
    return QuickTask(config, ranks)


@pytest.fixture(scope="module")
def task(portrait_pool: Path) -> ReconV1Task:
    """A task that has not begun. Do not let it step."""
    torch.manual_seed(0)
    return ReconV1Task(v1_config(f"supervision.pool={portrait_pool}"), Ranks())


def test_phases_and_optimisers(task: ReconV1Task) -> None:
    assert [(phase.name, phase.interval) for phase in task.phases] == [
        ("Gmain", 1),
        ("Greg", 16),
        ("Dmain", 1),
        ("Dreg", 16),
    ]
    assert [group["name"] for group in task.optimisers["G"].param_groups] == ["G_cross", "G_base"]
    bare = ReconV1Task(replace(task.config, density=replace(task.config.density, weight=0.0)), Ranks())
    assert [phase.name for phase in bare.phases] == ["Gmain", "Dmain", "Dreg"]


def test_every_phase_gives_its_network_finite_gradients_and_the_other_none(task: ReconV1Task) -> None:
    chunk = task.load_chunks(Moment(10_000))[0]
    for phase in task.phases:
        found = phase_gradients(task, chunk, phase, 10_000)
        other = "D" if phase.network == "G" else "G"
        assert found[phase.network] and not found[other], phase.name
        assert all(bool(gradient.isfinite().all()) for gradient in found[phase.network].values())


def test_persons_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_memory, "worker_pool", lambda workers: ThreadPoolExecutor(1))
    monkeypatch.setattr(recon_v1_task, "GRID_SUBJECTS", 1)
    config = v1_config("supervision.memory=1", "supervision.workers=1")
    with closing(ReconV1Task(config, Ranks())) as task:
        chunks = task.load_chunks(Moment())
        assert [chunk.is_still.tolist() for chunk in chunks] == [[False, True]] * 2
        assert chunks[0].depth is not None
        state, grid = task.extra_state(), task.draw_reals()
        assert state["persons"] >= 1
    with closing(ReconV1Task(config, Ranks())) as resumed:
        resumed.load_extra_state(state)
        assert resumed.extra_state() == state
        assert torch.equal(resumed.draw_reals(), grid), "the same persons as before"


def test_subjects_follow_from_the_iteration(task: ReconV1Task) -> None:
    def sources(moment: Moment) -> list[Tensor]:
        return [chunk.source_motion for chunk in task.load_chunks(moment)]

    first, again, next_ones = sources(Moment()), sources(Moment()), sources(Moment(4, 1))
    assert len(first) == 2 and all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, next_ones))
    assert [chunk.is_still.tolist() for chunk in task.load_chunks(Moment())] == [[False, True]] * 2


def test_workers_begin_with_the_next_subjects_early(task: ReconV1Task, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(task.config, supervision=replace(task.config.supervision, workers=1))
    asked = []

    def request(moment: Moment) -> list:
        asked.append(moment.iteration)
        return [lambda: moment.iteration]

    monkeypatch.setattr(task, "config", config)
    monkeypatch.setattr(task, "_request", request)
    task.skip_batches(3)
    assert [task.load_chunks(Moment(4 * k, k)) for k in (3, 4)] == [[3], [4]] and asked == [3, 4, 5]
    task.skip_batches(3)  # set back: what was asked for is of no use
    assert task.load_chunks(Moment(12, 3)) == [3] and asked[3:] == [3, 4]
    task.skip_batches(0)


@pytest.mark.parametrize(("images_seen", "resting"), [(0, True), (3_999, True), (4_000, False)])
def test_decoder_and_super_resolution_rest_at_first(
    task: ReconV1Task, monkeypatch: pytest.MonkeyPatch, images_seen: int, resting: bool
) -> None:
    monkeypatch.setattr(task, "config", replace(task.config, freeze_kimg=4.0))
    gradients = phase_gradients(task, task.load_chunks(Moment(images_seen))[0], task.phases[0], images_seen)["G"]
    resting_parts = {name.split(".")[0] for name in gradients}
    assert resting_parts.isdisjoint(FROZEN_AT_FIRST) == resting and "plane_generator" in resting_parts


def test_resting_parts_stay_as_they_are_in_a_run(portrait_pool: Path, tmp_path: Path) -> None:
    states = []
    for name, rate in (("still", 0.0), ("learning", 1e-3)):
        config = v1_config(
            f"supervision.pool={portrait_pool}", "run.kimg=0.004", "freeze_kimg=1", f"optim.generator_lr={rate}"
        )
        states.append(final_state(launch(Launch(config, build_quick, name, tmp_path, verbose=False))))
    moved = {
        name.split(".")[1] for name in states[0] if name[:2] == "G." and not states[0][name].equal(states[1][name])
    }
    assert moved.isdisjoint(FROZEN_AT_FIRST) and "plane_generator" in moved


def test_what_genhead_has_can_start_from_there(portrait_pool: Path, tmp_path: Path) -> None:
    write_genhead(tmp_path, super_resolution=WIDE_STYLE)
    file = tmp_path / "genhead.safetensors"
    sizes = ("network.super_resolution.style_dim=32", "network.volume.decoder_hidden=16")
    config = v1_config(f"supervision.pool={portrait_pool}", f"genhead_init={file}", *sizes)
    task, genhead = ReconV1Task(config, Ranks()), load_genhead(file, build_open_head).state_dict()
    for network in (task.generator, task.average):
        own = network.state_dict()
        shared = [name for name in own if name.startswith(("decoder.", "super_resolution."))]
        assert len(shared) > 10 and all(torch.equal(own[name], genhead[name]) for name in shared)
        assert torch.equal(own["average_style"], genhead["mapping.average"])


def test_the_discriminator_starts_from_genhead_s_where_the_file_has_one(
    task: ReconV1Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Discriminator(task.config.discriminator).state_dict()
    given = {"average": {"average_style": torch.ones(16)}, "D": trained}
    monkeypatch.setattr(recon_v1_task, "read_starting_weights", lambda _: given)
    started = ReconV1Task(replace(task.config, genhead_init=Path("genhead.pkl")), Ranks())
    assert all(torch.equal(tensor, trained[name]) for name, tensor in started.networks["D"].state_dict().items())
    assert started.average.average_style.unique().tolist() == [1]


def test_a_file_without_anything_that_fits_is_refused(task: ReconV1Task, tmp_path: Path) -> None:
    save_discriminator(tmp_path / "d.safetensors", Discriminator(task.config.discriminator))
    with pytest.raises(UserError, match=r"d\.safetensors has nothing that fits the reconstructor"):
        ReconV1Task(replace(task.config, genhead_init=tmp_path / "d.safetensors"), Ranks())


def test_where_subjects_come_from(portrait_pool: Path, clip_database: Path, tmp_path: Path) -> None:
    kinds = ((RenderedSubjects, ()), (FolderSubjects, (f"supervision.pool={portrait_pool}",)))
    for kind, pool in (*kinds, (ClipSubjects, (f"supervision.pool={clip_database}",))):
        supervision = build_supervision(v1_config("motion=exact", "network.motion_kind=pdfgc", *pool), Ranks())
        assert isinstance(supervision.source, kind) and supervision.config.half_static
    assert build_supervision(v1_config(*STATIC), Ranks()).config.static
    made = build_supervision(v1_config(*write_genhead(tmp_path), "supervision.truncation_psi=0.7"), Ranks())
    assert isinstance(made, GenHeadSupervision)
    assert (made.config.truncation_psi, made.config.half_static, made.config.resolution) == (0.7, True, 8)


def test_smooth_densities_see_the_motion_scale(task: ReconV1Task) -> None:
    own = ReconV1Task(task.config, Ranks())
    torch.nn.init.normal_(own.generator.decoder.density.weight)  # it starts at zero
    batch = wavy_batch(2, 64, 8, 109)

    def reaches_motion(is_still: bool) -> bool:
        chunk = replace(batch, is_still=torch.tensor([is_still, is_still]))
        gradients = phase_gradients(own, chunk, own.phases[1], 0)["G"]
        return any(bool(gradient.any()) for name, gradient in gradients.items() if ".driving_motion." in name)

    assert reaches_motion(False) and not reaches_motion(True)


def test_motion_enters_as_strongly_as_asked(task: ReconV1Task) -> None:
    networks = [deepcopy(task.generator) for _ in range(2)]
    before = dict(task.generator.named_parameters())
    for network, init in zip(networks, ("published", "fan_in"), strict=True):
        torch.manual_seed(0)
        initialise_motion(network, init, 10.0)
    scaled, narrow = (dict(network.named_parameters()) for network in networks)
    first = "canonical_encoder.driving_motion.hidden.0.weight"
    assert torch.equal(scaled[first], before[first] * 10)
    assert {name for name in before if not torch.equal(scaled[name], before[name])} == {
        first,
        first.replace("driving", "source"),
    }
    value = "canonical_encoder.motion_blocks.0.cross_attention.key_value.weight"
    assert narrow[value].std().item() == pytest.approx(before[value].shape[1] ** -0.5, rel=0.15)
    assert torch.equal(
        narrow["canonical_encoder.motion_blocks.0.mlp.widen.weight"],
        before["canonical_encoder.motion_blocks.0.mlp.widen.weight"],
    )
