"""Records of a run: statistics of all processes, lines dropped when a run goes on, TensorBoard events."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from portrait4d.training.distributed import Ranks
from portrait4d.training.run_log import RunLog
from portrait4d.training.run_state import LossScale, RunState
from tests.helpers.toy_training import ToyTask, toy_config
from tests.helpers.training_runs import stats


class OneOfTwo(Ranks):
    """One of two processes; the other one has recorded the values 10 and 20 of the first statistic by name."""

    def sum(self, values: Tensor) -> Tensor:
        values[0] += torch.tensor([2.0, 30.0, 500.0], dtype=values.dtype)
        return values


def write(log: RunLog, ranks: Ranks | None = None, measured: dict[str, float] | None = None, **state: object) -> None:
    log.write_tick(ToyTask(toy_config(), ranks or Ranks()), RunState(**state), measured or {}, 0.25)


def test_count_mean_and_standard_deviation(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Ranks(), verbose=False)
    log.record("Loss/G/loss", torch.tensor([[1.0], [2.0]]))
    log.record("Loss/G/loss", torch.tensor(6.0))
    log.record("Loss/D/loss", 5)
    write(log)
    line = stats(tmp_path)[0]
    assert line["Loss/G/loss"] == {"num": 3, "mean": 3.0, "std": pytest.approx(math.sqrt(14 / 3))}
    assert line["Loss/D/loss"] == {"num": 1, "mean": 5.0, "std": 0.0}
    log.close()


def test_statistics_are_of_all_processes(tmp_path: Path) -> None:
    log = RunLog(tmp_path, OneOfTwo(), verbose=False)
    log.record("Loss/a", torch.tensor([0.0, 30.0]))
    write(log)
    values = torch.tensor([0.0, 30.0, 10.0, 20.0])
    expected = {"num": 4, "mean": 15.0, "std": pytest.approx(float(values.std(correction=0)))}
    assert stats(tmp_path)[0]["Loss/a"] == expected
    log.close()


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Ranks(rank=1), verbose=True)
    log.record("Loss/a", 1.0)
    log.line("nothing")
    write(log)
    log.resume(1)
    assert not list(tmp_path.iterdir()) and not log.values


def test_a_tick_starts_anew_and_keeps_what_did_not_come_up_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Ranks(), verbose=False)
    log.record("Loss/often", 1.0)
    log.record("Loss/rare", 7.0)
    write(log, tick=0)
    log.record("Loss/often", 3.0)
    write(log, tick=1)
    second = stats(tmp_path)[1]
    assert second["Loss/often"] == {"num": 1, "mean": 3.0, "std": 0.0} and second["Loss/rare"]["mean"] == 7.0
    log.close()


def test_what_a_tick_says_about_the_run(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Ranks(), verbose=False)
    scales = {"G": LossScale(4.0, skipped=2)}
    state = {"images_seen": 6000, "tick": 3, "tick_start": 2000, "seconds": 100.0, "tick_seconds": 20.0}
    write(log, measured={"Valid/psnr": 21.5}, scales=scales, **state)
    line = {name: value["mean"] for name, value in stats(tmp_path)[0].items() if isinstance(value, dict)}
    wanted = {
        "Progress/tick": 3.0,
        "Progress/kimg": 6.0,
        "Timing/total_sec": 100.0,
        "Timing/sec_per_tick": 80.0,
        "Timing/sec_per_kimg": 20.0,
        "Timing/maintenance_sec": 0.25,
        "Guard/G_skipped": 2.0,
        "Guard/G_scale": 4.0,
        "Valid/psnr": 21.5,
    }
    assert line | wanted == line
    text = (tmp_path / "log.txt").read_text()
    assert "tick 3  kimg 6.000  time 100s  sec/tick 80.0  sec/kimg 20.0" in text and "Valid/psnr 21.5" in text
    log.close()


def test_durations_are_in_milliseconds(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Ranks(), verbose=False)
    log.time("data", 0.125)
    with log.timed("Gmain", torch.device("cpu")):
        pass
    write(log)
    line = stats(tmp_path)[0]
    assert line["Timing/data"]["mean"] == 125.0 and 0 <= line["Timing/Gmain"]["mean"] < 100
    log.close()


def test_lines_behind_the_state_are_dropped(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Ranks(), verbose=False)
    for tick in range(4):
        log.record("Loss/a", float(tick))
        write(log, tick=tick)
    log.close()
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"Loss/a": {"nu')  # the line that was being written
    log = RunLog(tmp_path, Ranks(), verbose=False)
    log.record("Loss/a", 9.0)
    log.resume(2)
    assert [line["Progress/tick"]["mean"] for line in stats(tmp_path)] == [0.0, 1.0]
    assert log.last["Loss/a"]["mean"] == 1.0 and "timestamp" not in log.last and not log.values
    log.resume(5)  # someone has shortened the file
    assert len(stats(tmp_path)) == 2
    log.resume(0)
    assert (tmp_path / "stats.jsonl").read_text() == ""


def test_lines_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunLog(tmp_path, Ranks(), verbose=False).line("quiet")
    RunLog(tmp_path, Ranks(), verbose=True).line("going on")
    assert capsys.readouterr().out.strip() == "going on"
    assert [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["quiet", "going on"]


def test_tensorboard_events(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = RunLog(tmp_path, Ranks(), verbose=False)
    for kimg in (1, 2):
        log.record("Loss/a", 0.5 * kimg)
        write(log, images_seen=kimg * 1000)
    log.close()
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload().Scalars("Loss/a")
    assert [(event.step, event.value) for event in events] == [(1, 0.5), (2, 1.0)]
