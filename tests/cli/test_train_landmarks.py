"""train_landmarks.py as a user runs it, on a small database."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from portrait4d import train_landmarks
from portrait4d.data.pack_folders import PackConfig, pack_clips, pack_stills
from portrait4d.models.checkpoints import load_landmark_network
from tests.helpers.cli import run_script
from tests.helpers.raw_folders import write_clips, write_stills
from tests.helpers.training_runs import assert_same_bits, final_state, stats, ticks

SMALL = (
    "network={picture_size: 32, widths: [8, 8, 8]}",
    "run={batch: 4, workers: 0, tick_kimg: 0.004, image_ticks: 1, network_ticks: 1, state_ticks: 1, seed: 3}",
    "view.source_size=32",
    "disturb.lowest_size=24",
)


def train(*arguments: object) -> Result:
    """Run the training in this process."""
    return CliRunner().invoke(train_landmarks.main, ["--quiet", *SMALL, *(str(a) for a in arguments)])


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Stills and clips of 32 pixels."""
    raw, packed = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("packed")
    stills = pack_stills(PackConfig(write_stills(raw / "stills", 3), packed, 32)).target
    return stills, pack_clips(PackConfig(write_clips(raw / "clips", 2, 3), packed, 32, frames=3)).target


@pytest.fixture(scope="module")
def run(databases: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ticks at a stretch."""
    return _train_to(0.008, tmp_path_factory.mktemp("runs"), databases)


def _train_to(kimg: float, outdir: Path, databases: tuple[Path, Path]) -> Path:
    stills, clips = databases
    data = (f"data.path={stills}", f"data.clips={clips}", f"data.held_out={stills}")
    result = train("--outdir", outdir, *data, f"run.kimg={kimg}")
    assert result.exit_code == 0, result.output
    return outdir / "00000-landmarks-synthetic-batch4"


def test_what_a_run_leaves_behind(run: Path) -> None:
    assert ticks(run) == [0, 1]
    names = {path.name for path in run.iterdir()}
    assert {"log.txt", "stats.jsonl", "reals.png", "fakes000000_points.png"} <= names
    last = {name: value["mean"] for name, value in stats(run)[-1].items() if isinstance(value, dict)}
    assert last["Loss/G/points"] > 0 and last["Loss/G/presence"] > 0
    assert {"Valid/error", "Valid/error_95", "Valid/missed", "Valid/false_alarms"} <= last.keys()


def test_the_network_can_be_loaded(run: Path) -> None:
    network = load_landmark_network(max(run.glob("network-snapshot-*.safetensors")))
    assert network.config.points == 70 and 0 < network.mean_face.min() < network.mean_face.max() < 1


def test_one_tick_and_another_are_two(run: Path, databases: tuple[Path, Path], tmp_path: Path) -> None:
    _train_to(0.004, tmp_path, databases)
    assert_same_bits(final_state(_train_to(0.008, tmp_path, databases)), final_state(run))


def test_problems_are_one_line(tmp_path: Path, databases: tuple[Path, Path]) -> None:
    for arguments, message in (
        ((), "data.path: no data"),
        ((f"data.path={tmp_path / 'none'}",), "none"),
        ((f"data.path={databases[0]}", "network.points=68"), "network.points: expected 70, got 68"),
        (("view.empty=2",), "close, empty, edge: expected from 0 to 1"),
    ):
        result = train("--outdir", tmp_path, "--resume", "new", *arguments)
        assert result.exit_code == 1 and message in result.output, result.output
        assert "Traceback" not in result.output


def test_the_shipped_configuration_and_help() -> None:
    result = CliRunner().invoke(train_landmarks.main, ["--dry-run"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["network"]["points"] == 70
    process = run_script("tests/helpers/heavy_imports.py", "portrait4d.train_landmarks")
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr
