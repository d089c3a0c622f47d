"""GenHead's training on a small database: phases, processes that agree, going on exactly, and bad data."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from portrait4d.config.load import load_config
from portrait4d.config.training import DensityConfig, GenHeadTraining, StartConfig
from portrait4d.files.errors import AssetMissingError, InputFileError, UserError
from portrait4d.training.distributed import Ranks
from portrait4d.training.genhead_task import GenHeadChunk, GenHeadTask
from portrait4d.training.head_choice import load_head
from portrait4d.training.launch import Launch, launch
from portrait4d.training.mesh_memory import MeshMemory
from portrait4d.training.snapshots import newest_state
from portrait4d.training.tasks import Moment, Phase, Step
from tests.helpers.training_runs import QUICK, assert_same_bits, final_state, ticks

PERSONAL = ("G.mapping.average", "average.mapping.average")
"""The average style: every process follows the styles of its own fakes, and the first one's is kept."""


class QuickTask(GenHeadTask):
    """Without the picture grids, which take most of a short run."""

    def draw_pictures(self) -> dict[str, Tensor]:
        return {}

    def draw_reals(self) -> Tensor:
        return torch.zeros(3, 8, 8)


class KilledTask(QuickTask):
    """Ends in iteration 3, in the middle of the third tick (iterations 3 and 4, of 4 images each)."""

    def load_chunks(self, moment: Moment) -> list[GenHeadChunk]:
        if moment.iteration == 4:
            raise KeyboardInterrupt
        return super().load_chunks(moment)


def build_quick(config: GenHeadTraining, ranks: Ranks) -> QuickTask:
    return QuickTask(config, ranks)


def build_killed(config: GenHeadTraining, ranks: Ranks) -> KilledTask:
    return KilledTask(config, ranks)


def quick_config(database: Path, *overrides: str) -> GenHeadTraining:
    return load_config(GenHeadTraining, "genhead-smoke.yaml", [f"data.path={database}", *QUICK, *overrides])


@pytest.fixture(scope="module")
def task(portrait_database: Path) -> GenHeadTask:
    """A task that has not begun. Do not let it step."""
    torch.manual_seed(0)
    task = GenHeadTask(quick_config(portrait_database), Ranks())
    task.skip_batches(0)
    return task


def gradients(task: GenHeadTask, phase: Phase) -> dict[str, list[bool]]:
    """Compute a phase's gradients for one chunk; return whether each parameter of each network has a finite one."""
    chunk = task.load_chunks(Moment())[0]
    recorded = []
    generators = task.chunk_generators(Moment(), phase.name, 0)
    step = Step(phase, Moment(), *generators, lambda loss: loss.backward(), lambda name, _: recorded.append(name))
    for network in task.networks.values():
        network.zero_grad(set_to_none=True)
    task.networks[phase.network].requires_grad_(True)
    task.compute_gradients(chunk, step)
    task.networks[phase.network].requires_grad_(False)
    assert recorded, "nothing was recorded"
    return {
        key: [bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None]
        for key, network in task.networks.items()
    }


def test_every_phase_gives_its_network_finite_gradients_and_the_other_none(task: GenHeadTask) -> None:
    assert [phase.name for phase in task.phases] == ["Gmain", "Greg", "Dmain", "Dreg"]
    assert [phase.interval for phase in task.phases] == [1, 4, 1, 16]
    for phase in task.phases:
        found = gradients(task, phase)
        other = "D" if phase.network == "G" else "G"
        assert found[phase.network] and all(found[phase.network]), phase.name
        assert not found[other], phase.name


def test_the_density_term_can_be_left_out(portrait_database: Path) -> None:
    config = replace(quick_config(portrait_database), density=DensityConfig(weight=0.0))
    task = GenHeadTask(config, Ranks())
    assert [phase.name for phase in task.phases] == ["Gmain", "Dmain", "Dreg"]
    assert task.optimisers["G"].param_groups[0]["lr"] == config.optim.generator_lr


def test_starting_weights_end_blur_and_ramp(portrait_database: Path) -> None:
    fresh = quick_config(portrait_database)
    started = replace(fresh, start=StartConfig(weights=Path("network.safetensors")))
    keeping = replace(fresh, start=StartConfig(weights=Path("network.safetensors"), keep_blur=True))
    tasks = [GenHeadTask(config, Ranks()) for config in (fresh, started, keeping)]
    assert [task.blur(Moment()) for task in tasks] == [10.0, 0.0, 10.0]
    assert [task.average_start() for task in tasks] == [0.05, None, None]


def test_what_the_discriminator_is_shown_of_reals(task: GenHeadTask) -> None:
    chunks = task.load_chunks(Moment())
    assert len(chunks) == 2 and chunks[0].camera.shape == (2, 25)
    shapes = {name: tuple(value.shape) for name, value in vars(chunks[0].reals).items()}
    assert shapes == {
        "image_sr": (2, 3, 64, 64),
        "image": (2, 3, 8, 8),
        "correspondence": (2, 3, 64, 64),
        "mask": (2, 1, 8, 8),
    }


def test_remembered_meshes_change_nothing(task: GenHeadTask) -> None:
    phase = task.phases[0]
    step = Step(phase, Moment(), *task.chunk_generators(Moment(), phase.name, 0), lambda loss: None, lambda *_: None)
    fakes = task.sample_fakes(2, step)
    assert fakes.rows is not None and fakes.rows.shape == (2,)
    memory = MeshMemory(len(task.dataset), task.config.network.image_resolution, torch.device("cpu"))
    renders = []
    for task.meshes in (None, memory, memory, None):
        step.generator.manual_seed(0)
        renders.append(task.make_heads(task.generator, fakes, step))
    assert memory.is_known.sum() == len(set(fakes.rows.tolist()))
    for render in renders[1:]:
        assert torch.equal(render.image_sr, renders[0].image_sr)
        assert torch.equal(render.correspondence, renders[0].correspondence)


def test_the_pictures_of_the_grid(task: GenHeadTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portrait4d.training.genhead_task.grid_size", lambda size: (2, 1))
    pictures = task.draw_pictures()
    assert pictures.keys() == {"", "_sr", "_uv", "_seg", "_depth", "_eye_mask", "_mouth_mask"}
    assert pictures["_sr"].shape == task.draw_reals().shape == (3, 64, 128)
    assert all(float(p.abs().max()) <= 1 for p in pictures.values())
    assert all(torch.equal(first, task.draw_pictures()[name]) for name, first in pictures.items())


def test_two_processes_compute_the_gradients_of_one(
    portrait_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam with beta1 = 0 keeps the last gradient of every parameter, and in exp_avg_sq the squares of both phases'.

    Nothing is learnt, so that the second phase of a network begins with the same weights to the bit.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    states = []
    for count in (1, 2):
        overrides = ("run.kimg=0.004", f"run.gpus={count}", "optim.generator_lr=0", "optim.discriminator_lr=0")
        job = Launch(quick_config(portrait_database, *overrides), build_quick, f"on-{count}", tmp_path, verbose=False)
        states.append(final_state(launch(job)))
    one, two = ({name: t for name, t in state.items() if name not in PERSONAL} for state in states)
    for kind in ("exp_avg", "exp_avg_sq"):
        moments = {name: tensor for name, tensor in one.items() if name.endswith(f".{kind}")}
        largest = max(float(tensor.abs().max()) for tensor in moments.values())
        assert len(moments) > 90 and largest > 0
        worst = max((float((two[name] - tensor).abs().max()) / largest, name) for name, tensor in moments.items())
        assert worst[0] <= 1e-5, worst
    assert_same_bits(*({name: t for name, t in state.items() if "exp_avg" not in name} for state in (one, two)))


def test_a_killed_run_goes_on_exactly(portrait_database: Path, tmp_path: Path) -> None:
    config = quick_config(portrait_database, "run.kimg=0.02", "augment.mode=ada")
    straight = launch(Launch(config, build_quick, "straight", tmp_path, verbose=False))
    job = Launch(config, build_killed, "killed", tmp_path, verbose=False)
    with pytest.raises(KeyboardInterrupt):
        launch(job)
    killed = launch(replace(job, build=build_quick))
    assert "going on at 12 images" in (killed / "log.txt").read_text()
    assert ticks(killed) == ticks(straight) == [0, 1, 2]
    assert_same_bits(final_state(killed), final_state(straight))
    assert newest_state(killed).name == "state-0000000020.safetensors"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"path": None}, UserError, "data.path: no data; give data.path=FOLDER"),
        ({"path": Path("nowhere")}, InputFileError, "^nowhere: "),
    ],
)
def test_data_that_is_not_there(portrait_database: Path, changes: dict, error: type, message: str) -> None:
    config = quick_config(portrait_database)
    with pytest.raises(error, match=message):
        GenHeadTask(replace(config, data=replace(config.data, **changes)), Ranks())


def test_pictures_smaller_than_the_network_s_are_refused(portrait_database: Path) -> None:
    size = ("network.image_resolution=128", "discriminator.pyramid.resolution=128", "network.backbone.resolution=64")
    config = quick_config(portrait_database, *size, "network.background.resolution=16")
    with pytest.raises(InputFileError, match="has pictures of 64 pixels, the network makes 128; pack larger pictures"):
        GenHeadTask(config, Ranks())


def test_the_licensed_head_is_asked_for_and_never_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("portrait4d.training.head_choice.find_flame_folder", lambda: tmp_path)
    with pytest.raises(AssetMissingError, match="is missing: put it at"):
        load_head("flame")
    first, second = load_head("synthetic"), load_head("synthetic")
    assert first.open_head is not None and first is not second
