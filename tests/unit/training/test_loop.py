"""The loop on a toy training: gradients of a batch, ticks, going on exactly, and the guard against bad gradients."""

import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from portrait4d.config.training import GenHeadTraining
from portrait4d.files.errors import UserError
from portrait4d.training.distributed import Ranks
from portrait4d.training.loop import MAX_ATTEMPTS, train
from portrait4d.training.run_log import RunLog
from portrait4d.training.run_state import FIRST_FP16_SCALE, RunState
from portrait4d.training.snapshots import Snapshots, newest_state, read_state
from portrait4d.training.tasks import Moment, Step
from tests.helpers.toy_training import OPTIM, RUN, Pair, ToyTask, toy_config
from tests.helpers.training_runs import assert_close, assert_same_bits, final_state, stats, ticks

IMPATIENT = replace(OPTIM, patience=2)


class KilledError(Exception):
    """Ends a run as a kill would: nothing more is written."""


class KilledTask(ToyTask):
    """Ends in iteration 4, in the middle of the third tick (iterations 3 and 4)."""

    def load_chunks(self, moment: Moment) -> list[Pair]:
        if moment.iteration == 4:
            raise KilledError
        return super().load_chunks(moment)


class TerminatedTask(ToyTask):
    """Is told to stop in iteration 3, in the middle of the third tick."""

    def load_chunks(self, moment: Moment) -> list[Pair]:
        if moment.iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().load_chunks(moment)


class QuietTask(ToyTask):
    """Has no randomness of its own, so it does not matter how its batch is split; notes its phases."""

    def __init__(self, config: GenHeadTraining, ranks: Ranks) -> None:
        super().__init__(config, ranks)
        self.seen: list[tuple[int, str]] = []

    def compute_gradients(self, chunk: Pair, step: Step) -> None:
        self.seen.append((step.moment.iteration, step.phase.name))
        network = self.networks[step.phase.network]
        step.backward((network(chunk.given) - chunk.wanted).square().mean() * step.phase.gain)


def run(
    folder: Path, config: GenHeadTraining | None = None, kind: type[ToyTask] = ToyTask, **disturbance: int
) -> ToyTask:
    """Train in this process, or go on with what is in the folder."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    task, state = kind(config or toy_config(), Ranks(), **disturbance), RunState()
    log, snapshots = RunLog(folder, task.ranks, verbose=False), Snapshots(folder)
    snapshots.load_state(task, state)
    log.resume(state.tick)
    try:
        train(task, state, log, snapshots)
    finally:
        log.close()
    return task


def final_counters(folder: Path) -> dict:
    return read_state(newest_state(folder))[1]


def test_ticks_and_files(tmp_path: Path) -> None:
    task = run(tmp_path, toy_config(network_ticks=2, keep_networks=1))
    assert ticks(tmp_path) == [0, 1, 2, 3, 4]
    assert [line["Progress/kimg"]["mean"] for line in stats(tmp_path)] == [0.008, 0.024, 0.04, 0.056, 0.064]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("events.")) == [
        "fakes000000_sr.png",
        "log.txt",
        "network-snapshot-000000.safetensors",
        "reals.png",
        "state-0000000056.safetensors",
        "state-0000000064.safetensors",
        "stats.jsonl",
    ]
    assert task.finished_iterations == 8
    assert not any(p.requires_grad for network in task.networks.values() for p in network.parameters())


def test_a_lazy_phase_comes_in_the_first_iteration_and_every_so_often(tmp_path: Path) -> None:
    seen = run(tmp_path, toy_config(chunk=8), QuietTask).seen
    assert [i for i, name in seen if name == "Greg"] == [0, 4]
    assert [i for i, name in seen if name == "Dreg"] == [0, 3, 6]
    assert [name for i, name in seen if i == 0] == ["Gmain", "Greg", "Dmain", "Dreg"]
    assert [i for i, name in seen if name == "Gmain"] == list(range(8))


def test_a_run_learns(tmp_path: Path) -> None:
    run(tmp_path, toy_config(kimg=0.8, tick_kimg=0.2))
    losses = [line["Loss/G/loss"]["mean"] for line in stats(tmp_path)]
    assert losses[-1] < 0.25 * losses[0]


def first_gradients(folder: Path, config: GenHeadTraining) -> dict[str, torch.Tensor]:
    """Return the last gradients of a run of one iteration, which Adam keeps when beta1 is 0."""
    run(folder, config, QuietTask)
    return {name: tensor for name, tensor in final_state(folder).items() if name.endswith("exp_avg")}


def test_a_batch_s_gradient_is_the_mean_over_its_chunks_or_their_sum(tmp_path: Path) -> None:
    whole = first_gradients(tmp_path / "whole", toy_config(kimg=0.008, chunk=8))
    mean = first_gradients(tmp_path / "mean", toy_config(kimg=0.008, chunk=2))
    assert len(whole) == 4
    assert_close(mean, whole)
    summed = replace(OPTIM, chunk_reduction="sum")
    total = first_gradients(tmp_path / "sum", toy_config(summed, kimg=0.008, chunk=2))
    assert_close(total, {name: 4 * tensor for name, tensor in mean.items()}, 1e-4)


def test_the_average_is_a_copy_at_first_and_lags_behind_later(tmp_path: Path) -> None:
    task = run(tmp_path / "first", toy_config(kimg=0.008))
    assert_same_bits(task.average.state_dict(), task.networks["G"].state_dict())
    task = run(tmp_path / "later")
    assert not torch.equal(task.average.weight, task.networks["G"].weight)


def test_a_killed_run_goes_on_exactly(tmp_path: Path) -> None:
    run(tmp_path / "straight")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", kind=KilledTask)
    assert newest_state(tmp_path / "killed").name == "state-0000000024.safetensors"
    run(tmp_path / "killed")
    assert_same_bits(final_state(tmp_path / "killed"), final_state(tmp_path / "straight"))
    assert ticks(tmp_path / "killed") == ticks(tmp_path / "straight") == [0, 1, 2, 3, 4]
    for one, other in zip(stats(tmp_path / "killed"), stats(tmp_path / "straight"), strict=True):
        assert one["Loss/G/loss"] == other["Loss/G/loss"]


def test_a_run_that_was_told_to_stop_goes_on_exactly(tmp_path: Path) -> None:
    run(tmp_path / "straight")
    run(tmp_path / "stopped", kind=TerminatedTask)
    assert newest_state(tmp_path / "stopped").name == "state-0000000032.safetensors"
    assert final_counters(tmp_path / "stopped")["extra"] == {"finished": 4.0}
    assert "stopped at 32 images; the same command goes on from there" in (tmp_path / "stopped/log.txt").read_text()
    task = run(tmp_path / "stopped")
    assert task.finished_iterations == 8
    assert_same_bits(final_state(tmp_path / "stopped"), final_state(tmp_path / "straight"))
    assert ticks(tmp_path / "stopped") == [0, 1, 2, 3, 4]


def test_a_finished_run_has_nothing_to_do(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("st*")}
    run(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("st*")} == before


def test_a_scale_for_float16_leaves_the_gradients_as_they_are(tmp_path: Path) -> None:
    run(tmp_path / "plain")
    run(tmp_path / "scaled", toy_config(replace(OPTIM, precision="float16")))
    assert_same_bits(final_state(tmp_path / "scaled"), final_state(tmp_path / "plain"))
    assert final_counters(tmp_path / "scaled")["scales"]["G"]["value"] == FIRST_FP16_SCALE


def test_a_step_without_finite_gradients_is_skipped_and_counted(tmp_path: Path) -> None:
    run(tmp_path, bad=1)  # one chunk of the first iteration spoils its step
    assert all(bool(tensor.isfinite().all()) for tensor in final_state(tmp_path).values())
    assert [line["Guard/G_skipped"]["mean"] for line in stats(tmp_path)] == [1.0] * 5
    assert stats(tmp_path)[0]["Guard/D_skipped"]["mean"] == 0.0
    assert final_state(tmp_path)["adam.G.0.step"] == 9 and final_state(tmp_path)["adam.D.0.step"] == 11
    assert (tmp_path / "log.txt").read_text().count("Gmain: gradients are not finite at 0 images, step skipped") == 1


def test_in_float16_a_skipped_step_halves_the_scale(tmp_path: Path) -> None:
    run(tmp_path, toy_config(replace(OPTIM, precision="float16")), bad=1)
    scales = final_counters(tmp_path)["scales"]
    assert scales["G"]["value"] == FIRST_FP16_SCALE / 2 and scales["D"]["value"] == FIRST_FP16_SCALE
    assert "not finite" not in (tmp_path / "log.txt").read_text()  # that is how a scale is found


def test_after_several_bad_steps_the_run_is_set_back_and_takes_other_random_numbers(tmp_path: Path) -> None:
    config = toy_config(IMPATIENT, state_ticks=2)
    run(tmp_path / "good", config)
    run(tmp_path / "bad", config, bad=2 * 4, bad_from=3)  # two iterations of four chunks
    text = (tmp_path / "bad/log.txt").read_text()
    assert "Gmain: no finite gradients in 2 steps in a row: set back to 8 images (attempt 1 of 3)" in text
    assert ticks(tmp_path / "bad") == [0, 1, 2, 3, 4]
    counters = final_counters(tmp_path / "bad")
    assert counters["scales"]["G"]["skipped"] == 2 and counters["iteration"] == 8
    assert counters["attempt"] == 0  # a later state has the bad steps behind it: all attempts are there again
    last = final_state(tmp_path / "bad")
    assert all(bool(tensor.isfinite().all()) for tensor in last.values())
    assert not torch.equal(last["G.weight"], final_state(tmp_path / "good")["G.weight"])


def test_gradients_that_stay_bad_end_the_run_with_advice(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        run(tmp_path, toy_config(IMPATIENT), bad=10**6, bad_from=3)
    assert str(error.value) == (
        "Gmain: no finite gradients in 2 steps in a row; lower the learning rates or look at the data, "
        f"then run again with --resume {tmp_path}"
    )
    assert (tmp_path / "log.txt").read_text().count("set back to 24 images") == MAX_ATTEMPTS
    assert ticks(tmp_path) == [0, 1]


def test_without_a_state_there_is_nothing_to_be_set_back_to(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finite gradients in 1 steps in a row"):
        run(tmp_path, toy_config(replace(OPTIM, patience=1)), bad=1)
    assert not list(tmp_path.glob("state-*"))


def test_a_disk_that_runs_full_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def fail(*arguments: object, **options: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("portrait4d.training.snapshots.save_file", fail)
    with pytest.raises(UserError, match=r"cannot be written \(.*No space left.*\); free space, then run again"):
        run(tmp_path)
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.fixture
def _steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every iteration take 0.2 s, two readings of a clock of the test's own: its machine may be slow."""
    readings = itertools.count(step=0.1)
    monkeypatch.setattr("portrait4d.training.loop.time", SimpleNamespace(perf_counter=lambda: next(readings)))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is written, and at how many images."""
    noted = []

    def note(name: str) -> Callable[[Snapshots, ToyTask, RunState], None]:
        save = getattr(Snapshots, name)

        def noting(self: Snapshots, task: ToyTask, state: RunState) -> None:
            noted.append((name.removeprefix("save_"), state.images_seen))
            save(self, task, state)

        return noting

    for name in ("save_pictures", "save_network", "save_state"):
        monkeypatch.setattr(Snapshots, name, note(name))
    return noted


def everything(images: int) -> list[tuple[str, int]]:
    return [("pictures", images), ("network", images), ("state", images)]


@pytest.mark.usefixtures("_steady_clock")
@pytest.mark.parametrize("iterations", [1, 2, 6, 7, 11, 12, 13])
def test_whenever_time_is_up_everything_is_written_once(
    iterations: int, tmp_path: Path, written: list[tuple[str, int]]
) -> None:
    images = RUN.batch * iterations
    config = toy_config(kimg=1000, minutes=0.2 * (iterations - 0.5) / 60, tick_kimg=0.04, state_ticks=99)  # ticks of 5
    run(tmp_path, config)
    assert written[-3:] == everything(images) and len(written) == (3 if iterations == 1 else 6)
    run(tmp_path, config)
    assert len(written) == (3 if iterations == 1 else 6), "nothing is left to be done"


def test_a_run_that_is_made_shorter_than_it_is_writes_everything_once(
    tmp_path: Path, written: list[tuple[str, int]]
) -> None:
    run(tmp_path, kind=TerminatedTask)
    assert written[-2:] == [("network", 32), ("state", 32)]
    for shorter in (toy_config(minutes=1e-9), toy_config(kimg=0.016)):
        run(tmp_path, shorter)
    assert written[-5:] == [("network", 32), ("state", 32), *everything(32)]
    assert ticks(tmp_path) == [0, 1, 2]
    run(tmp_path)
    assert written[-3:] == everything(64)


@pytest.mark.usefixtures("_steady_clock")
def test_time_does_not_come_back_when_a_run_is_set_back(tmp_path: Path) -> None:
    config = toy_config(IMPATIENT, kimg=1000, minutes=0.1, tick_kimg=0.08, state_ticks=99)
    run(tmp_path, config, bad=2 * 4, bad_from=13)  # 14 iterations, 2.8 s, after which there is a state of one
    text = (tmp_path / "log.txt").read_text()
    assert "set back to 8 images (attempt 1 of 3)" in text
    lines = stats(tmp_path)
    assert lines[-1]["Progress/kimg"]["mean"] == pytest.approx((1 + 16) * RUN.batch / 1000, abs=0.0081)
    assert lines[-1]["Timing/total_sec"]["mean"] == pytest.approx(6, abs=0.3)
    assert max(line["Timing/sec_per_tick"]["mean"] for line in lines) < 2.1, "of the iterations of the tick"


@pytest.mark.usefixtures("_steady_clock")
def test_time_ends_a_run_with_its_rates_at_nothing(tmp_path: Path) -> None:
    optim = replace(OPTIM, decay_kimg=0.4)
    task = run(tmp_path, toy_config(optim, kimg=1000, minutes=0.5, tick_kimg=0.08))
    lines = stats(tmp_path)
    assert lines[-1]["Timing/total_sec"]["mean"] == pytest.approx(30, abs=0.3)  # an iteration takes two readings
    assert lines[-1]["Progress/kimg"]["mean"] == pytest.approx(150 * RUN.batch / 1000, abs=0.01)
    rates = [group["lr"] / group["full_lr"] for group in task.optimisers["G"].param_groups]
    assert 0 <= max(rates) < 0.05
    assert list(tmp_path.glob("network-snapshot-*.safetensors"))
