"""train_recon_v1.py as a user runs it: both supervisions, static and dynamic, going on, two processes, bad options."""

import signal
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from portrait4d.data.image_io import load_image
from portrait4d.models.checkpoints import load_reconstructor
from portrait4d.synthetic_heads.head_template import build_open_head
from portrait4d.train_recon_v1 import main
from portrait4d.training import recon_v1_task
from portrait4d.training.snapshots import newest_state
from tests.helpers.cli import BROKEN_OFF, run_script
from tests.helpers.recon_runs import SMALL, STATIC, V1, TrainingScript, losses, write_genhead
from tests.helpers.training_runs import ENVIRONMENT, assert_close, assert_same_bits, final_state, stats, ticks

SCRIPT = "portrait4d/train_recon_v1.py"
LOSSES = {"Loss/G/lrecon_l1", "Loss/G/lrecon_seg", "Loss/G/lrecon_depth", "Loss/G/TVloss"}
LOSSES |= {"Loss/G/loss", "Loss/D/loss", "Loss/r1_penalty"}
ARGUMENTS = (f"--cfg={V1}", "--quiet", *SMALL, "run.kimg=0.008", "adversarial.interval=1")
"""Two iterations: the first without the discriminator, the second without the scene's extras."""

TRAINING = TrainingScript(main, ARGUMENTS, "00000-portrait4d-smoke-batch4")
GENHEAD = ["supervision.source=genhead"]


@pytest.fixture(scope="module")
def dynamic(portrait_pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dynamic run from the pool."""
    return TRAINING.finish(tmp_path_factory.mktemp("dynamic"), f"supervision.pool={portrait_pool}")


def test_help_imports_nothing_heavy() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    for option in ("--cfg", "--outdir", "--resume", "--desc", "--dry-run", "--quiet", "OVERRIDES"):
        assert option in text
    process = run_script("tests/helpers/heavy_imports.py", "portrait4d.train_recon_v1")
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_what_a_run_leaves_behind(dynamic: Path) -> None:
    assert ticks(dynamic) == [0, 1]
    assert losses(dynamic) >= LOSSES - {"Loss/G/lrecon_depth"}
    assert load_image(dynamic / "reals.png").shape == (3, 2 * 64, 3 * 4 * 64)
    for suffix, side in (("", 8), ("_sr", 64), ("_seg", 8), ("_depth", 8)):
        assert load_image(dynamic / f"fakes000000{suffix}.png").shape == (3, 2 * side, 4 * side)
    network = load_reconstructor(dynamic / "network-snapshot-000000.safetensors", build_open_head)
    assert network.config.motion_kind == "flame"


def test_heads_rendered_on_line_with_a_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recon_v1_task, "GRID_SUBJECTS", 2)  # rendering takes most of the time
    on_line = ("run.batch=2", "run.kimg=0.002", "run.image_ticks=99", "validation={subjects: 2, shown: 1}")
    result = TRAINING.run(tmp_path, *on_line)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "00000-portrait4d-smoke-batch2"
    measured = {name for name in stats(folder)[-1] if name.startswith("Valid/")}
    assert "Loss/G/lrecon_depth" in losses(folder)
    assert {"Valid/self/psnr", "Valid/self/copy_psnr", "Valid/self/mask_iou", "Valid/self/depth_error"} <= measured
    assert not any("cross" in name for name in measured), "motion that is not read from pictures has no cross"
    assert load_image(folder / "fakes000000_valid_self.png").shape == (3, 64, 5 * 64)


def test_the_static_variant(portrait_pool: Path, tmp_path: Path) -> None:
    folder = TRAINING.finish(tmp_path, *STATIC, f"supervision.pool={portrait_pool}")
    assert losses(folder) >= LOSSES - {"Loss/G/lrecon_depth"}
    assert load_reconstructor(folder / "network-snapshot-000000.safetensors", build_open_head).config.motion_dim == 548


def test_heads_of_a_genhead(tmp_path: Path) -> None:
    folder = TRAINING.finish(tmp_path / "run", *write_genhead(tmp_path), "run.kimg=0.004")
    assert losses(folder) >= {"Loss/G/lrecon_depth", "Loss/G/lrecon_feature", "Loss/G/lrecon_triplane"}


def test_one_tick_and_another_are_two(dynamic: Path, portrait_pool: Path, tmp_path: Path) -> None:
    for kimg in (0.004, 0.008):
        folder = TRAINING.finish(tmp_path, f"supervision.pool={portrait_pool}", f"run.kimg={kimg}")
    assert ticks(folder) == [0, 1]
    assert_same_bits(final_state(folder), final_state(dynamic))


@pytest.mark.slow
def test_a_killed_run_goes_on_by_the_same_command(portrait_pool: Path, tmp_path: Path) -> None:
    longer = (f"supervision.pool={portrait_pool}", "run.kimg=0.016", "run.image_ticks=99", "run.network_ticks=99")
    straight = TRAINING.finish(tmp_path / "straight", *longer)
    broken = tmp_path / "broken"
    threads = str(torch.get_num_threads())  # sums depend on it, and the other runs are in this process
    process = run_script(
        BROKEN_OFF, signal.SIGKILL, 3, "portrait4d.training.loop:update_weight_average", "portrait4d.train_recon_v1",
        *ARGUMENTS, "--outdir", broken, *longer, env=ENVIRONMENT | {"OMP_NUM_THREADS": threads},
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert newest_state(broken / TRAINING.name).name == "state-0000000008.safetensors"
    assert_same_bits(final_state(TRAINING.finish(broken, *longer)), final_state(straight))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(dynamic: Path, portrait_pool: Path, tmp_path: Path) -> None:
    two = ("--outdir", tmp_path, f"supervision.pool={portrait_pool}", "run.gpus=2")
    process = run_script(SCRIPT, *ARGUMENTS, *two, env=ENVIRONMENT)
    assert process.returncode == 0, process.stderr
    assert losses(tmp_path / TRAINING.name) == losses(dynamic)
    assert_close(final_state(tmp_path / TRAINING.name), final_state(dynamic), 1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (GENHEAD, "supervision.genhead and supervision.parameters: both are needed"),
        ([*GENHEAD, "supervision.genhead=x.safetensors"], "supervision.parameters: both are needed"),
        ([*GENHEAD, "supervision.genhead=x.pkl", "supervision.parameters=data"], "x.pkl: no such file"),
        (["supervision.pool={clips}", *STATIC], "static training needs several views of one motion"),
        (["supervision.pool=nowhere"], "nowhere: neither an LMDB database (data.mdb) nor tar shards"),
        (["motion=exact"], "network.motion_kind: expected pdfgc, for motion: exact, got flame"),
        (["loss.perceptual=lpips"], "run python portrait4d/fetch_assets.py lpips_vgg"),
        (["loss.identity=arcface"], "run python portrait4d/fetch_assets.py face_identity"),
        (["encoder_init=imagenet"], "run python portrait4d/fetch_assets.py resnet34"),
        (["motion=pdfgc", "network.motion_kind=pdfgc"], "run python portrait4d/fetch_assets.py motion_encoder"),
        (["genhead_init=nowhere.pkl"], "nowhere.pkl: no such file"),
        (["head=flame"], "FLAME"),
    ],
)
def test_bad_options_are_named_in_a_line(
    overrides: list[str], message: str, clip_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = TRAINING.run(tmp_path / "runs", *(override.format(clips=clip_database) for override in overrides))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert message in result.stderr and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_scheduler_s_signal_to_all_processes_does_not_end_workers(portrait_pool: Path, tmp_path: Path) -> None:
    process = run_script(
        BROKEN_OFF, signal.SIGTERM, 1, "portrait4d.training.synthetic_supervision:worker_result",
        "portrait4d.train_recon_v1", *ARGUMENTS, "--outdir", tmp_path, f"supervision.pool={portrait_pool}",
        "supervision.workers=1", env=ENVIRONMENT,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "stopped at 4 images" in (tmp_path / TRAINING.name / "log.txt").read_text()
    assert newest_state(tmp_path / TRAINING.name).name == "state-0000000004.safetensors"
