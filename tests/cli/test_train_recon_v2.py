"""train_recon_v2.py as a user runs it: from a static model, going on, two processes, bad options."""

import os
import signal
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from portrait4d.data.image_io import load_image
from portrait4d.models.checkpoints import load_reconstructor
from portrait4d.synthetic_heads.head_template import build_open_head
from portrait4d.train_recon_v2 import main
from portrait4d.training.recon_v2_task import ReconV2Task
from portrait4d.training.snapshots import newest_state
from portrait4d.training.supervision import SupervisedBatch
from portrait4d.training.tasks import Moment
from tests.helpers.cli import run_script
from tests.helpers.recon_runs import SMALL, V2, TrainingScript, losses, write_static_model
from tests.helpers.training_runs import ENVIRONMENT, assert_close, assert_same_bits, final_state, stats, ticks

SCRIPT = "portrait4d/train_recon_v2.py"
LOSSES = {"Loss/G/lrecon_l1", "Loss/G/lrecon_seg", "Loss/G/Regloss_G_fix_img"}
LOSSES |= {"Loss/G/loss", "Loss/D/loss", "Loss/r1_penalty"}
ARGUMENTS = (f"--cfg={V2}", "--quiet", *SMALL, "run.kimg=0.016")
"""Two iterations: it starts at 0.008."""
TRAINING = TrainingScript(main, ARGUMENTS, "00000-portrait4d-v2-smoke-batch4")


@pytest.fixture(scope="module")
def static_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_static_model(tmp_path_factory.mktemp("static") / "static.safetensors")


@pytest.fixture(scope="module")
def inputs(static_model: Path, clip_database: Path) -> tuple[str, ...]:
    """Overrides: what a run needs."""
    return f"data.path={clip_database}", f"pseudo.network={static_model}", f"start.weights={static_model}"


@pytest.fixture(scope="module")
def trained(inputs: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return TRAINING.finish(tmp_path_factory.mktemp("trained"), *inputs)


def test_help_imports_nothing_heavy() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    for option in ("--cfg", "--outdir", "--resume", "--desc", "--dry-run", "--quiet", "OVERRIDES"):
        assert option in text
    process = run_script("tests/helpers/heavy_imports.py", "portrait4d.train_recon_v2")
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_what_a_run_leaves_behind(trained: Path) -> None:
    assert ticks(trained) == [0, 1] and losses(trained) >= LOSSES
    assert [line["Progress/kimg"]["mean"] for line in stats(trained)] == [0.012, 0.016], "it starts at 0.008"
    assert load_image(trained / "reals.png").shape[0] == 3 and load_image(trained / "fakes000000_sr.png").shape[0] == 3
    network = load_reconstructor(trained / "network-snapshot-000000.safetensors", build_open_head)
    assert network.config.motion_dim == 548
    log = (trained / "log.txt").read_text()
    assert "G: " in log and "average: " in log and "static.safetensors" in log


def test_it_starts_from_the_static_model(inputs: tuple[str, ...], static_model: Path, tmp_path: Path) -> None:
    still = TRAINING.finish(tmp_path, *inputs, "optim.generator_lr=0", "run.kimg=0.012")
    network = load_reconstructor(still / "network-snapshot-000000.safetensors", build_open_head)
    start = load_reconstructor(static_model, build_open_head).state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor, start[name], atol=1e-6), name


def test_pseudo_views_of_their_own_for_every_phase(inputs: tuple[str, ...], tmp_path: Path) -> None:
    folder = TRAINING.finish(tmp_path, *inputs, "pseudo.share=false", "run.kimg=0.012", "run.image_ticks=99")
    assert losses(folder) >= LOSSES


def test_it_is_measured_on_held_out_clips(inputs: tuple[str, ...], tmp_path: Path) -> None:
    clips = ("validation.subjects=1", "validation.clips=1", "validation.clip_frames=3")
    folder = TRAINING.finish(tmp_path, *inputs, *clips, "run.kimg=0.012")
    measured = stats(folder)[0].keys()
    for kind in ("clip_self", "clip_novel"):
        assert {f"Valid/{kind}/{name}" for name in ("psnr", "jitter", "copy_jitter", "mean_jitter")} < measured
        assert load_image(folder / f"fakes000000_valid_{kind}.png").shape[2] == 5 * 64


def test_plain_self_reenactment_driven_by_the_head_model(clip_database: Path, tmp_path: Path) -> None:
    plain = ("motion=flame", "network.motion_kind=flame", "pseudo.motion_probability=0", "pseudo.novel_view_weight=0")
    folder = TRAINING.finish(tmp_path, f"data.path={clip_database}", *plain, "run.kimg=0.012", "run.image_ticks=99")
    assert "Loss/G/Regloss_G_fix_img" not in losses(folder)


def test_an_ended_run_goes_on_exactly(
    inputs: tuple[str, ...], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = ReconV2Task.load_chunks

    def terminate(task: ReconV2Task, moment: Moment) -> list[SupervisedBatch]:
        os.kill(os.getpid(), signal.SIGTERM)
        return load(task, moment)

    with monkeypatch.context() as during:
        during.setattr(ReconV2Task, "load_chunks", terminate)
        broken = TRAINING.finish(tmp_path, *inputs)
    assert newest_state(broken).name == "state-0000000012.safetensors"
    assert "the same command goes on from there" in (broken / "log.txt").read_text()
    assert_same_bits(final_state(TRAINING.finish(tmp_path, *inputs)), final_state(trained))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(inputs: tuple[str, ...], trained: Path, tmp_path: Path) -> None:
    arguments = (*ARGUMENTS, "--outdir", tmp_path, *inputs, "run.gpus=2")
    process = run_script(SCRIPT, *arguments, env=ENVIRONMENT)
    assert process.returncode == 0, process.stderr
    assert losses(tmp_path / TRAINING.name) == losses(trained)
    assert_close(final_state(tmp_path / TRAINING.name), final_state(trained), 1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pseudo.motion_probability=0"], "data.path: no data; give data.path=FOLDER, a database of clips"),
        (["data.path={clips}"], "pseudo.network: expected the static model's file, or pseudo.motion_probability=0"),
        (["data.path={clips}", "pseudo.network=nowhere.pkl"], "nowhere.pkl: no such file"),
        (["data.path={clips}", "pseudo.network={other}"], "makes pictures of 32 pixels; give a static model of the"),
        (["data.path={clips}", "pseudo.network={static}", "network.image_resolution=128"], "has pictures of 64 pixels"),
        (
            ["data.path={clips}", "motion=flame", "network.motion_kind=flame", "pseudo.network={static}"],
            "pseudo.motion_probability: expected 0 with motion: flame, got 0.9",
        ),
        (["data.path={clips}", "pseudo.network={static}", "motion=flame"], "network.motion_kind: expected flame"),
        (["data.path={clips}", "pseudo.network={static}", "start.weights=nowhere.pkl"], "nowhere.pkl: no such file"),
        (["loss.perceptual=lpips", "pseudo.motion_probability=0"], "fetch_assets"),
        (["loss.identity=arcface", "pseudo.motion_probability=0"], "fetch_assets"),
    ],
)
def test_bad_options_are_named_in_a_line(
    overrides: list[str],
    message: str,
    static_model: Path,
    clip_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    other = write_static_model(tmp_path / "other.safetensors", image_resolution=32)
    names = {"clips": clip_database, "static": static_model, "other": other}
    result = TRAINING.run(tmp_path / "runs", *(override.format(**names) for override in overrides))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert message in result.stderr and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
