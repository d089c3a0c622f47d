"""train_genhead.py as a user runs it: a whole small run, two processes, going on, stopping, and bad options."""

import json
import math
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from portrait4d.data.image_io import load_image
from portrait4d.models.checkpoints import load_genhead
from portrait4d.synthetic_heads.head_template import build_open_head
from portrait4d.train_genhead import main
from portrait4d.training.snapshots import newest_state
from tests.helpers.cli import BROKEN_OFF, ROOT, run_script
from tests.helpers.training_runs import ENVIRONMENT, QUICK, assert_same_bits, final_state, stats, ticks

SCRIPT = "portrait4d/train_genhead.py"
SMOKE, NAME = "--cfg=genhead-smoke.yaml", "00000-genhead-smoke-batch4"
GRIDS = ("", "_sr", "_uv", "_seg", "_depth", "_eye_mask", "_mouth_mask")


def run(*arguments: object) -> Result:
    """Run the command in this process: importing torch for every case would take most of the time."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_complete(folder: Path, last_kimg: float) -> None:
    """Check what a run of genhead-smoke.yaml leaves behind."""
    lines = stats(folder)
    assert lines[-1]["Progress/kimg"]["mean"] == last_kimg
    for line in lines:
        assert all(math.isfinite(value["mean"]) for name, value in line.items() if name != "timestamp")
    losses = {"Loss/G/loss", "Loss/G/TVloss", "Loss/D/loss", "Loss/D/reg", "Loss/r1_penalty", "Loss/scores/fake"}
    assert losses <= lines[0].keys()
    assert load_image(folder / "reals.png").shape == (3, 8 * 64, 8 * 64)
    for suffix in GRIDS:
        assert load_image(folder / f"fakes000000{suffix}.png").shape[0] == 3
    assert json.loads((folder / "training_options.json").read_text())["head"] == "synthetic"
    assert list(folder.glob("events.out.tfevents.*")) and newest_state(folder) is not None


def test_help_imports_nothing_heavy() -> None:
    text = run("--help").stdout
    for option in ("--cfg", "--outdir", "--resume", "--desc", "--dry-run", "--quiet", "OVERRIDES"):
        assert option in text
    process = run_script("tests/helpers/heavy_imports.py", "portrait4d.train_genhead")
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_a_dry_run_shows_the_configuration_and_writes_nothing(tmp_path: Path) -> None:
    for flag in ("--dry-run", "--dry_run"):
        result = run(SMOKE, flag, "--outdir", tmp_path / "runs", "optim.generator_lr=1e-3", "run.batch=8")
        shown = json.loads(result.stdout)
        assert result.exit_code == 0 and shown["optim"]["generator_lr"] == 1e-3 and shown["run"]["batch"] == 8
    assert not (tmp_path / "runs").exists()


def test_a_small_run_from_the_script_s_folder_whose_network_can_be_sampled(
    portrait_database: Path, tmp_path: Path
) -> None:
    arguments = (SMOKE, "--outdir", tmp_path, "--desc", "try", f"data.path={portrait_database}", *QUICK)
    process = run_script(
        SCRIPT, *arguments, "run.kimg=0.004", "run.workers=1", cwd=ROOT / "portrait4d", env=ENVIRONMENT
    )
    assert process.returncode == 0, process.stderr
    folder = tmp_path / f"{NAME}-try"
    assert f"run directory: {folder}" in process.stdout and "tick 0  kimg 0.004" in process.stdout
    assert_complete(folder, 0.004)
    network = folder / "network-snapshot-000000.safetensors"
    assert load_genhead(network, build_open_head).config.image_resolution == 64
    script, out = "portrait4d/gen_images_genhead.py", tmp_path / "heads"
    flags = ("--network", network, "--seeds", 0, "--frames", 1, "--outdir", out)
    process = run_script(script, *flags, env=ENVIRONMENT)
    assert process.returncode == 0, process.stdout + process.stderr
    assert load_image(out / "0000_0000.png").shape == (3, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_the_smoke_configuration_from_the_root(count: int, portrait_database: Path, tmp_path: Path) -> None:
    process = run_script(
        SCRIPT, SMOKE, "--outdir", tmp_path, f"data.path={portrait_database}", f"run.gpus={count}", env=ENVIRONMENT
    )
    assert process.returncode == 0, process.stderr
    folder = tmp_path / NAME
    assert_complete(folder, 0.032)
    assert ticks(folder) == [0, 1, 2, 3, 4]


def short_run(outdir: Path, database: Path) -> tuple[object, ...]:
    """Return the options of a run of six iterations that reads data in a process of its own."""
    shorter = ("run.kimg=0.024", "run.image_ticks=99", "run.workers=1")
    return SMOKE, "--quiet", "--outdir", outdir, f"data.path={database}", *QUICK, *shorter


@pytest.fixture(scope="module")
def straight_run(portrait_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The short run, never interrupted."""
    outdir = tmp_path_factory.mktemp("straight")
    process = run_script(SCRIPT, *short_run(outdir, portrait_database), env=ENVIRONMENT)
    assert process.returncode == 0, process.stderr
    return outdir / NAME


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "images"),
    [(signal.SIGKILL, -signal.SIGKILL, 12), (signal.SIGTERM, 0, 16)],
)
def test_an_interrupted_run_goes_on_by_the_same_command(
    number: int, status: int, images: int, straight_run: Path, portrait_database: Path, tmp_path: Path
) -> None:
    arguments, folder = short_run(tmp_path, portrait_database), tmp_path / NAME
    fourth = (number, 4, "portrait4d.training.loop:update_weight_average")  # the second tick ends with the third
    process = run_script(BROKEN_OFF, *fourth, "portrait4d.train_genhead", *arguments, env=ENVIRONMENT)
    assert process.returncode == status, process.stderr
    assert newest_state(folder).name == f"state-{images:010d}.safetensors"
    assert run_script(SCRIPT, *arguments, env=ENVIRONMENT).returncode == 0
    assert ticks(folder) == ticks(straight_run) == [0, 1, 2, 3]
    assert_same_bits(final_state(folder), final_state(straight_run))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([SMOKE], "data.path: no data; give data.path=FOLDER, a database that generate_lmdb has written"),
        ([SMOKE, "data.path=nowhere"], "nowhere: neither an LMDB database (data.mdb) nor tar shards"),
        (["--cfg=absent.yaml"], "absent.yaml: no such configuration; in "),
        ([SMOKE, "run.batches=4"], "run.batches: Unexpected keyword argument"),
        ([SMOKE, "run.batch=many"], "run.batch: Input should be a valid integer"),
        ([SMOKE, "optim.generator_lr=1e-3x"], "optim.generator_lr: Input should be a valid number"),
        ([SMOKE, "run.batch=3"], "chunk: expected a divisor of batch / gpus, 3, got 2"),
        ([SMOKE, "adversarial.interval=0"], "interval: expected at least 1, got 0"),
        ([SMOKE, "data.max_size=0"], "max_size: expected at least 1, got 0"),
        ([SMOKE, "network.image_resolution=32"], "discriminator.pyramid.resolution: expected network.image_resolution"),
        ([SMOKE, "run.batch"], "'run.batch': expected section.key=value"),
        ([SMOKE, "--resume=nowhere"], "nowhere: is no run directory"),
        ([SMOKE, "start.weights=nowhere.pkl", "data.path={data}"], "nowhere.pkl: no such file"),
    ],
)
def test_bad_options_are_named_in_a_line(
    arguments: list[str], message: str, portrait_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument.format(data=portrait_database) for argument in arguments]
    result = run(*given, "--outdir", tmp_path / "runs")
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
