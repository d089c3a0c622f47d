"""States to go on from: complete, strict, the newest ones kept, and what is said about those that cannot be used."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from portrait4d.files.errors import InputFileError, UserError
from portrait4d.models.checkpoints import read_safetensors
from portrait4d.training.distributed import Ranks
from portrait4d.training.run_state import LossScale, RunState
from portrait4d.training.snapshots import Snapshots, newest_state, own_tensors, read_state
from tests.helpers.toy_training import ToyNetwork, ToyTask, toy_config
from tests.helpers.training_runs import assert_same_bits

Disk = namedtuple("Disk", "total used free")


def trained_task(seed: int = 0) -> ToyTask:
    """Return a task with moments in both optimisers."""
    torch.manual_seed(seed)
    task = ToyTask(toy_config(), Ranks())
    for key, network in task.networks.items():
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        task.optimisers[key].step()
    return task


def saved(folder: Path, task: ToyTask, **state: object) -> Path:
    Snapshots(folder).save_state(task, RunState(**{"extra": task.extra_state(), **state}))
    return newest_state(folder)


def test_everything_comes_back(tmp_path: Path) -> None:
    task = trained_task()
    state = RunState(96, 12, 3, 80, 1.5, 1, 2.5, {"G": LossScale(4.0, 3, 1, 7), "D": LossScale()}, {"finished": 12.0})
    path = saved(tmp_path, task, **vars(state))
    assert path.name == "state-0000000096.safetensors"
    other, found = trained_task(1), RunState()
    assert Snapshots(tmp_path).load_state(other, found)
    assert found == state and other.finished_iterations == 12
    for key, network in {**task.networks, "average": task.average}.items():
        assert_same_bits(network.state_dict(), {**other.networks, "average": other.average}[key].state_dict())
    for key, optimiser in task.optimisers.items():
        theirs = other.optimisers[key].state_dict()
        assert theirs["param_groups"] == optimiser.state_dict()["param_groups"]
        for number, moments in optimiser.state_dict()["state"].items():
            assert_same_bits(moments, theirs["state"][number])


def test_a_new_folder_has_no_state(tmp_path: Path) -> None:
    state = RunState()
    assert newest_state(tmp_path) is None
    assert not Snapshots(tmp_path).load_state(trained_task(), state) and state == RunState()


def test_the_newest_states_stay(tmp_path: Path) -> None:
    task = trained_task()
    for images in (8, 16, 1_000_000_000, 24):
        saved(tmp_path, task, images_seen=images)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["state-0000000024.safetensors", "state-1000000000.safetensors"]
    assert newest_state(tmp_path).name == "state-1000000000.safetensors"


@pytest.mark.parametrize(("keep", "left"), [(None, 3), (2, 2)])
def test_networks_stay_unless_it_is_said_how_many(tmp_path: Path, keep: int | None, left: int) -> None:
    torch.manual_seed(0)
    task = ToyTask(toy_config(keep_networks=keep), Ranks())
    for images in (0, 4000, 8000):
        Snapshots(tmp_path).save_network(task, RunState(images_seen=images))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"network-snapshot-00000{kimg}.safetensors" for kimg in (0, 4, 8)][-left:]
    description, tensors = read_safetensors(tmp_path / names[-1])
    assert description["network"] == "discriminator"  # what the toy's networks say they are
    assert_same_bits(tensors, task.average.state_dict())


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    task = ToyTask(toy_config(), Ranks(rank=1))
    snapshots, state = Snapshots(tmp_path), RunState()
    snapshots.save_pictures(task, state)
    snapshots.save_network(task, state)
    snapshots.save_state(task, state)
    assert not list(tmp_path.iterdir())


def test_real_pictures_are_written_once(tmp_path: Path) -> None:
    snapshots, task = Snapshots(tmp_path), trained_task()
    snapshots.save_pictures(task, RunState())
    stamp = (tmp_path / "reals.png").stat().st_mtime_ns
    snapshots.save_pictures(task, RunState(images_seen=12_345))
    assert (tmp_path / "fakes000012_sr.png").is_file() and (tmp_path / "fakes000000_sr.png").is_file()
    assert (tmp_path / "reals.png").stat().st_mtime_ns == stamp


def test_an_interrupted_write_leaves_the_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved(tmp_path, trained_task(), images_seen=8)

    def fail(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("portrait4d.training.snapshots.save_file", fail)
    snapshots = Snapshots(tmp_path)
    with pytest.raises(UserError, match="No space left on device.*; free space, then run again"), snapshots.writing():
        snapshots.save_state(trained_task(), RunState(images_seen=16))
    assert [path.name for path in tmp_path.iterdir()] == [before.name]


@pytest.mark.parametrize("cut", [0, 4, 500])
def test_a_damaged_newest_state_is_named_and_the_one_before_is_used_when_it_is_gone(tmp_path: Path, cut: int) -> None:
    saved(tmp_path, trained_task(0), images_seen=8)
    newer = saved(tmp_path, trained_task(1), images_seen=16)
    newer.write_bytes(newer.read_bytes()[:cut])
    with pytest.raises(InputFileError) as error:
        Snapshots(tmp_path).load_state(trained_task(), RunState())
    assert str(error.value).startswith(f"{newer}: no readable state (")
    assert str(error.value).endswith("; remove it: the one before is used then") and "\n" not in str(error.value)
    newer.unlink()
    state = RunState()
    assert Snapshots(tmp_path).load_state(trained_task(), state) and state.images_seen == 8


def test_another_file_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "state-0000000008.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputFileError, match="expected a training state of format portrait4d-training-1"):
        read_state(path)


def test_a_state_of_other_networks_is_refused(tmp_path: Path) -> None:
    task = trained_task()
    saved(tmp_path, task, images_seen=8)
    task.networks["D"] = ToyNetwork(4, 2)
    with pytest.raises(InputFileError, match=r"does not fit the networks of this run \(weight \.\.\.\)"):
        Snapshots(tmp_path).load_state(task, RunState())


def test_a_disk_that_is_too_small_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = trained_task()
    floats = 8 + 3 * (8 + 8)  # the average, and three times G and D: weights and two moments
    needed = 4 * floats * 3  # two states that stay, and one being written
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(0, 0, needed))
    Snapshots(tmp_path).require_space(task)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(0, 0, needed - 1))
    with pytest.raises(UserError, match="GiB are needed for the states of this run.*lower run.keep_states"):
        Snapshots(tmp_path).require_space(task)


def test_a_head_model_is_no_part_of_a_state() -> None:
    network = ToyNetwork(3, 2)
    network.head = torch.nn.BatchNorm1d(2)
    assert sorted(own_tensors(network)) == ["bias", "weight"]
