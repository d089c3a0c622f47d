"""calc_metrics_deform.py as a user runs it: networks and folders, one process and two, stored statistics, bad input."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from portrait4d.calc_metrics_deform import main, parse_metrics
from portrait4d.data.image_io import from_uint8, save_image
from portrait4d.data.pack_folders import PackConfig, pack_stills
from portrait4d.geometry.flame import HeadModel
from portrait4d.inference.measure_job import format_duration
from portrait4d.metrics.image_sets import open_image_set
from portrait4d.models.checkpoints import save_genhead
from tests.helpers.cli import run_script
from tests.helpers.raw_folders import write_stills
from tests.helpers.tiny_genhead import build_tiny_genhead

SCRIPT = "portrait4d/calc_metrics_deform.py"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 8 stills of 32 pixels."""
    raw = write_stills(tmp_path_factory.mktemp("raw") / "stills", 4, 32)
    return pack_stills(PackConfig(raw, tmp_path_factory.mktemp("packed"), 32)).target


@pytest.fixture(scope="module")
def network(ellipsoid: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "network.safetensors"
    save_genhead(path, build_tiny_genhead(ellipsoid))
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of 12 reals and 12 fakes: the fakes are the reals, all pixels 10 brighter."""
    generator = torch.Generator().manual_seed(0)
    for number in range(12):
        image = torch.randint(200, (3, 16, 16), dtype=torch.uint8, generator=generator)
        save_image(tmp_path / "real" / f"{number:02d}.png", from_uint8(image))
        save_image(tmp_path / "fake" / f"{number:02d}.png", from_uint8(image + 10))
    return tmp_path / "real", tmp_path / "fake"


def run(*arguments: object) -> Result:
    """Run the command in this process."""
    common = ["--detector", "pixels16", "--workers", 0, "--device", "cpu"]
    return CliRunner().invoke(main, [str(argument) for argument in [*common, *arguments]])


def lines(result: Result) -> list[dict]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_help_is_quick_and_names_every_reference_flag() -> None:
    process = run_script(SCRIPT, "--help")
    assert process.returncode == 0
    for flag in ("network", "metrics", "data", "mirror", "gpus", "verbose", "render_size", "chunk", "reload_modules"):
        assert f"--{flag}" in process.stdout
    heavy = run_script("tests/helpers/heavy_imports.py", "portrait4d.calc_metrics_deform")
    assert heavy.stdout.strip() == "", heavy.stdout + heavy.stderr


def test_folders_against_a_closed_form(folders: tuple[Path, Path], tmp_path: Path) -> None:
    real, fake = folders
    arguments = ["--data", real, "--fakes", fake, "--metrics", "fid12_full,kid12", "--out", tmp_path / "out.jsonl"]
    found = lines(run(*arguments, "--cache", tmp_path / "cache"))
    assert found[0]["results"] == {"fid12_full": pytest.approx(768 * (10 / 255) ** 2, rel=1e-6)}
    assert (found[0]["num_real"], found[0]["num_fake"]) == (12, 12)
    assert found[0]["detector"] == {"name": "pixels16", "sha256": None, "verified": True, "comparable": False}
    assert found[0]["settings"]["seed"] == 0 and found[0]["settings"]["data"] == str(real)
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == found
    keys = {"results", "metric", "total_time", "total_time_str", "num_gpus", "snapshot_pkl", "timestamp"}
    assert keys <= set(found[1])


def test_one_set_against_itself_and_its_floor(folders: tuple[Path, Path]) -> None:
    real, _ = folders
    arguments = ["--data", real, "--fakes", real, "--no-cache", "--metrics", "fid12_full", "--floor"]
    (line,) = lines(run(*arguments))
    assert line["results"]["fid12_full"] == pytest.approx(0, abs=1e-9)
    assert line["results"]["fid12_full_floor"] > 0.01  # six random pictures against six others
    (other,) = lines(run(*arguments, "--seed", 1))
    assert other["results"]["fid12_full_floor"] != line["results"]["fid12_full_floor"]


def test_stored_statistics_serve_until_the_data_change(folders: tuple[Path, Path], tmp_path: Path) -> None:
    real, fake = folders
    arguments = ["--data", real, "--fakes", fake, "--metrics", "fid12_full", "--cache", tmp_path / "cache"]
    first = lines(run(*arguments))[0]["results"]
    (stored,) = (tmp_path / "cache").iterdir()
    result = run(*arguments)
    assert "fakes" in result.stderr and "reals" not in result.stderr
    assert lines(result)[0]["results"] == first
    stored.write_bytes(stored.read_bytes()[:100])
    result = run(*arguments)
    assert "measured again" in result.output and "not readable feature statistics" in result.output
    shutil.copy(fake / "00.png", real / "00.png")
    changed = run(*arguments)
    assert changed.exit_code == 0 and "reals" in changed.stderr
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_results_come_out_where_nothing_can_be_stored(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = ["--data", folders[0], "--fakes", folders[1], "--metrics", "fid12_full"]
    result = run(*arguments, "--cache", tmp_path / "file/cache")
    assert lines(result)[0]["results"]["fid12_full"] > 0
    assert "cannot be written" in result.stderr and "the next run measures again" in result.stderr


def test_bad_outputs_are_noticed_before_measuring(folders: tuple[Path, Path]) -> None:
    result = run("--data", folders[0], "--fakes", folders[1], "--metrics", "fid12", "--no-cache", "--out", folders[0])
    assert result.exit_code == 1 and "Is a directory" in result.stderr and "img" not in result.stderr


def test_pictures_that_the_detector_does_not_take(folders: tuple[Path, Path], tmp_path: Path) -> None:
    save_image(tmp_path / "small" / "0.png", torch.zeros(3, 8, 8))
    result = run("--data", folders[0], "--fakes", tmp_path / "small", "--metrics", "fid1", "--no-cache")
    assert result.exit_code == 1 and "at least 16 pixels a side" in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_mirrored_reals_count_where_the_metric_lets_them(folders: tuple[Path, Path]) -> None:
    arguments = ["--data", folders[0], "--fakes", folders[1], "--metrics", "fid30,fid30_full", "--no-cache"]
    assert [line["num_real"] for line in lines(run(*arguments, "--mirror", 1))] == [24, 12]
    assert [line["num_real"] for line in lines(run(*arguments))] == [12, 12]


def test_two_processes_measure_what_one_does(folders: tuple[Path, Path], tmp_path: Path) -> None:
    real, fake = folders
    arguments = ["--data", real, "--fakes", fake, "--metrics", "kid11", "--no-cache"]
    one = lines(run(*arguments))
    two = lines(run(*arguments, "--gpus", 2))
    assert two[0]["num_gpus"] == 2 and two[0]["num_real"] == 11
    assert one[0]["results"] == pytest.approx(two[0]["results"], rel=1e-6)


def test_a_network_in_its_run_directory(network: Path, database: Path, tmp_path: Path) -> None:
    copy = shutil.copy(network, tmp_path / "network.safetensors")
    (tmp_path / "training_options.json").write_text("{}")
    arguments = ["--network", copy, "--data", database, "--metrics", "fid4_full,kid4", "--no-cache", "--verbose", 0]
    first = lines(run(*arguments))
    assert first[0]["snapshot_pkl"] == "network.safetensors"
    assert (first[0]["num_real"], first[0]["num_fake"]) == (8, 4)
    assert first[0]["results"]["fid4_full"] > 0
    again = lines(run(*arguments, "--metrics", "fid4_full"))
    assert again[0]["results"] == first[0]["results"]  # everything is seeded
    stored = [json.loads(line) for line in (tmp_path / "metric-fid4_full.jsonl").read_text().splitlines()]
    assert stored == [first[0], again[0]]


def test_heads_do_not_depend_on_the_number_of_processes(network: Path, database: Path) -> None:
    from portrait4d.config.measuring import MeasureConfig
    from portrait4d.inference.fake_heads import FakeHeads, share_size

    heads, data = FakeHeads(MeasureConfig(network, database, device="cpu")), open_image_set(database)
    whole = list(heads.batches(data, 6))
    shares = [list(heads.batches(data, 6, rank, 2)) for rank in (0, 1)]
    assert [batch.numbers.tolist() for batch in whole] == [[0, 1, 2, 3], [4, 5]]
    assert [share_size(6, rank, 2) for rank in (0, 1)] == [4, 2]
    assert torch.equal(shares[0][0].images, whole[0].images) and torch.equal(shares[1][0].images, whole[1].images)
    assert whole[0].images.shape == (4, 3, 64, 64) and whole[0].images.dtype == torch.uint8
    assert not torch.equal(whole[0].images[0], whole[0].images[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "ppl2_wend"], "--metrics: metric: expected a name such as fid50k_full"),
        (["--network", "absent.pkl"], "absent.pkl: no such file"),
        (["--data", "absent"], "absent: no such folder"),
        (["--data", "{folder}"], "pictures without labels, which the network's heads need"),
        (["--metrics", "is4", "--fakes", "{folder}"], "needs classes, which pixels16 lacks"),
        (["--metrics", "pr1k3", "--fakes", "{folder}", "--data", "{folder2}"], "neighbours: expected 1 to below"),
        (["--detector", "absent.pth"], "absent.pth: no such detector"),
        (["--fakes", "{folder}", "--out", "{folder}"], "cannot be written (Is a directory)"),
        (["--fakes", "{folder}", "--out", "{folder}/00.png/x.jsonl"], "x.jsonl: cannot be written"),
    ],
)
def test_bad_input(
    network: Path, database: Path, folders: tuple[Path, Path], arguments: list[str], message: str
) -> None:
    for extra in folders[0].glob("0[3-9].png"):
        extra.unlink()
    for extra in folders[0].glob("1*.png"):
        extra.unlink()
    filled = [a.replace("{folder}", str(folders[0])).replace("{folder2}", str(folders[1])) for a in arguments]
    result = run("--network", network, "--data", database, "--metrics", "fid4", "--no-cache", *filled)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message in result.output


def test_problems_of_other_processes_are_reported(folders: tuple[Path, Path]) -> None:
    real, fake = folders
    (fake / "07.png").write_bytes(b"no picture")
    result = run("--data", real, "--fakes", fake, "--metrics", "fid12", "--no-cache", "--gpus", 2)
    assert result.exit_code == 1 and "07.png" in result.output and isinstance(result.exception, SystemExit)


def test_no_metric_is_no_work() -> None:
    assert parse_metrics(None, None, "none") == ()
    assert parse_metrics(None, None, "fid50k, kid50k,") == ("fid50k", "kid50k")
    assert run("--metrics", "none").output == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.4, "5s"), (65, "1m 05s"), (3723, "1h 02m 03s"), (93784, "1d 02h 03m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
