"""Starting a run: its directory, what may change when it goes on, processes, and messages for people."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from portrait4d.config.training import FREE_KEYS, GenHeadTraining, StartConfig
from portrait4d.data.unfinished_folder import lock_folder
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.training.distributed import Ranks
from portrait4d.training.launch import (
    OPTIONS,
    choose_run_folder,
    describe_run,
    launch,
    load_run_config,
    pick_device_type,
)
from portrait4d.training.snapshots import newest_state
from tests.helpers.toy_training import PAUSE, ToyTask, toy_config, toy_job
from tests.helpers.training_runs import assert_close, assert_same_bits, final_state, started, stats, ticks

SHORT = toy_config(kimg=0.016)
TOY = "tests/helpers/run_toy.py"


class FullDiskTask(ToyTask):
    """Cannot write its pictures, which only the first process does."""

    def draw_pictures(self) -> dict[str, torch.Tensor]:
        raise OSError(28, "No space left on device")


def build_full_disk(config: GenHeadTraining, ranks: Ranks) -> FullDiskTask:
    return FullDiskTask(config, ranks)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for processes started here


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process. Do not change it."""
    return launch(toy_job(tmp_path_factory.mktemp("runs")))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


def test_runs_are_numbered_and_gone_on_with_by_name(tmp_path: Path) -> None:
    job = toy_job(tmp_path, SHORT)
    (tmp_path / "notes").mkdir()
    (tmp_path / "00041-file").touch()
    assert choose_run_folder(job) == tmp_path / "00000-toy" and not (tmp_path / "00000-toy").exists()
    (tmp_path / "00006-other").mkdir()
    assert launch(job) == tmp_path / "00007-toy"
    assert choose_run_folder(job) == tmp_path / "00007-toy"
    assert choose_run_folder(replace(job, resume="new")) == tmp_path / "00008-toy"
    assert choose_run_folder(replace(job, name="toy-2")) == tmp_path / "00008-toy-2"
    (tmp_path / "00009-toy").mkdir()
    assert choose_run_folder(job) == tmp_path / "00009-toy"
    assert choose_run_folder(replace(job, resume=str(tmp_path / "00007-toy"))) == tmp_path / "00007-toy"


def test_names_tell_configuration_batch_and_description() -> None:
    config = toy_config(batch=8)
    assert describe_run(Path("configs/genhead-smoke.yaml"), config, None) == "genhead-smoke-batch8"
    assert describe_run(Path("genhead-smoke.yaml"), config, "try") == "genhead-smoke-batch8-try"


def test_the_options_are_kept_with_the_run(finished: Path) -> None:
    assert load_run_config(GenHeadTraining, finished) == toy_config()
    assert (finished / OPTIONS).read_text().startswith('{\n  "head": "flame"')


@pytest.mark.parametrize("text", [None, "{", '{"run": {"batches": 2}}'])
def test_options_that_cannot_be_read_are_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / OPTIONS).write_text(text)
    with pytest.raises(InputFileError, match=f"{OPTIONS}: no readable options .*; use the release that wrote it"):
        load_run_config(GenHeadTraining, tmp_path)


def test_another_configuration_is_refused_when_a_run_goes_on(tmp_path: Path) -> None:
    folder = launch(toy_job(tmp_path, SHORT))
    kept = (folder / OPTIONS).read_text()
    changed = toy_job(tmp_path, toy_config(kimg=0.016, batch=4, seed=7))
    for resume in ("auto", str(folder)):
        with pytest.raises(UserError) as error:
            launch(replace(changed, resume=resume))
        assert str(error.value) == (
            f"{folder}: the run there has another configuration (run.batch: 8 there, 4 now; run.seed: 0 there, 7 now); "
            "repeat its options to go on, or give --resume new or another --desc to start afresh"
        )
    assert (folder / OPTIONS).read_text() == kept
    (folder / OPTIONS).write_text("{")
    with pytest.raises(InputFileError, match="no readable options .*; give --resume new to start afresh"):
        launch(toy_job(tmp_path, SHORT))


def test_before_its_first_state_a_run_may_take_any_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "00000-toy"
    folder.mkdir()
    (folder / OPTIONS).write_text(json.dumps({"head": "flame"}))
    assert launch(toy_job(tmp_path, SHORT)) == folder
    assert load_run_config(GenHeadTraining, folder) == SHORT


def test_length_places_and_records_may_change(tmp_path: Path) -> None:
    folder = launch(toy_job(tmp_path, SHORT))
    config = toy_config(kimg=0.032, keep_states=3, state_ticks=2, workers=1, image_ticks=5, device="cpu")
    config = replace(config, data=replace(config.data, path=tmp_path))
    assert launch(toy_job(tmp_path, config)) == folder
    assert newest_state(folder).name == "state-0000000032.safetensors"
    assert load_run_config(GenHeadTraining, folder) == config
    assert {"run.kimg", "run.gpus", "data.path"} <= FREE_KEYS and "run.batch" not in FREE_KEYS


@pytest.mark.parametrize("wanted", [True, False])
def test_only_convolutions_are_rounded_to_tf32_and_only_on_request(tmp_path: Path, wanted: bool) -> None:
    launch(toy_job(tmp_path, replace(SHORT, optim=replace(SHORT.optim, tf32=wanted))))
    assert torch.backends.cudnn.allow_tf32 is wanted
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_run_made_longer_is_the_long_run(tmp_path: Path, finished: Path) -> None:
    launch(toy_job(tmp_path, toy_config(kimg=0.04)))
    folder = launch(toy_job(tmp_path))
    assert_same_bits(final_state(folder), final_state(finished))
    assert "going on at 40 images" in (folder / "log.txt").read_text()


def test_a_run_can_begin_with_images_seen(tmp_path: Path) -> None:
    config = replace(toy_config(kimg=1.008), start=StartConfig(kimg=1.0))
    folder = launch(toy_job(tmp_path, config))
    assert [line["Progress/kimg"]["mean"] for line in stats(folder)] == [1.008]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="is no run directory .*; give one, or auto, or new"):
        launch(toy_job(tmp_path, resume=str(tmp_path)))


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    folder = launch(toy_job(tmp_path, SHORT))
    kept = (folder / OPTIONS).read_text()
    longer = toy_job(tmp_path, toy_config(kimg=0.032))
    with lock_folder(folder), pytest.raises(UserError, match="another process is writing there; wait for it"):
        launch(longer)
    assert (folder / OPTIONS).read_text() == kept
    launch(longer)


def test_what_a_killed_run_half_wrote_is_cleared_away(tmp_path: Path) -> None:
    folder = launch(toy_job(tmp_path, SHORT))
    (folder / ".tmp-abc.safetensors").touch()
    launch(toy_job(tmp_path, SHORT))
    assert not (folder / ".tmp-abc.safetensors").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written .*; choose another output folder"):
        launch(toy_job(tmp_path / "file"))


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device_type("auto") == pick_device_type("cpu") == "cpu"
    with pytest.raises(UserError, match="run.device: no CUDA device is there; use auto or cpu"):
        launch(toy_job(tmp_path, toy_config(device="cuda")))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device_type("auto") == "cuda" and pick_device_type("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="run.gpus: 2 wanted, 1 are there"):
        launch(toy_job(tmp_path, toy_config(gpus=2)))


def test_torchrun_must_start_as_many_processes_as_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="run.gpus: expected 1, as torchrun started, got 2"):
        launch(toy_job(tmp_path, toy_config(gpus=2)))
    folder = launch(toy_job(tmp_path, SHORT))
    assert newest_state(folder).name == "state-0000000016.safetensors"


def test_two_processes_learn_what_one_does(tmp_path: Path, finished: Path) -> None:
    folder = launch(toy_job(tmp_path, toy_config(gpus=2)))
    assert_close(final_state(folder), final_state(finished), 1e-4)  # after 8 iterations
    assert ticks(folder) == ticks(finished)
    for two, one in zip(stats(folder), stats(finished), strict=True):
        for name in ("Loss/G/loss", "Loss/D/loss"):
            assert two[name]["num"] == one[name]["num"]
            assert two[name]["mean"] == pytest.approx(one[name]["mean"], rel=1e-4)
            assert two[name]["std"] == pytest.approx(one[name]["std"], rel=1e-3)


def test_what_one_of_two_processes_cannot_do_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written \(.*No space left on device\); free space"):
        launch(toy_job(tmp_path, toy_config(gpus=2), build=build_full_disk))


@pytest.mark.parametrize("gpus", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_scheduler_s_signal_to_all_processes_saves_and_ends_in_order(
    gpus: int, tmp_path: Path, finished: Path
) -> None:
    with started(TOY, tmp_path, gpus, **{PAUSE: f"{tmp_path}:4"}) as process:
        wait_for(tmp_path / "here")
        if gpus == 1:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()  # to the parent only, which passes it on
        wait_for(tmp_path / "noted")
        (tmp_path / "go").touch()
        _, problems = process.communicate(timeout=120)
        assert process.returncode == 0, problems
    folder = tmp_path / "00000-toy"
    assert newest_state(folder).name == "state-0000000040.safetensors"
    assert launch(toy_job(tmp_path)) == folder
    assert ticks(folder) == [0, 1, 2, 3, 4]
    if gpus == 1:
        assert_same_bits(final_state(folder), final_state(finished))
    else:
        assert_close(final_state(folder), final_state(finished), 1e-4)


def test_a_killed_process_goes_on_exactly(tmp_path: Path, finished: Path) -> None:
    with started(TOY, tmp_path, 1, **{PAUSE: f"{tmp_path}:4"}):
        wait_for(tmp_path / "here")
    folder = tmp_path / "00000-toy"
    assert newest_state(folder).name == "state-0000000024.safetensors" and ticks(folder) == [0, 1]
    launch(toy_job(tmp_path))
    assert ticks(folder) == [0, 1, 2, 3, 4]
    assert_same_bits(final_state(folder), final_state(finished))


def test_a_run_from_before_an_option_existed_has_its_default(tmp_path: Path) -> None:
    folder = launch(toy_job(tmp_path, SHORT))
    options = json.loads((folder / OPTIONS).read_text())
    del options["augment"], options["optim"]["patience"]
    (folder / OPTIONS).write_text(json.dumps(options))
    impatient = replace(SHORT, optim=replace(SHORT.optim, patience=3))
    with pytest.raises(UserError, match=r"another configuration \(optim.patience: 10 there, 3 now\)"):
        launch(toy_job(tmp_path, impatient))
    assert launch(toy_job(tmp_path, SHORT)) == folder
    (folder / OPTIONS).write_text(json.dumps({**options, "forgotten": 1}))
    with pytest.raises(InputFileError, match="no readable options .forgotten: .*; give --resume new to start afresh"):
        launch(toy_job(tmp_path, SHORT))
