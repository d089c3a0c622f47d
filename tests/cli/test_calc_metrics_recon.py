"""calc_metrics_recon.py as a user runs it: the synthetic benchmark, clips, what is missing, bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from portrait4d.calc_metrics_recon import main
from portrait4d.config.recon_metrics import ReconMetricsConfig
from portrait4d.data.image_io import load_image
from portrait4d.inference.recon_metrics_job import run_recon_metrics
from tests.helpers.benchmarks import small_protocol, write_protocol
from tests.helpers.cli import run_script

SCRIPT = "portrait4d/calc_metrics_recon.py"
Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The definition of a benchmark of two persons."""
    return write_protocol(tmp_path_factory.mktemp("protocol") / "small.json", small_protocol())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path / "no-assets"))


def run(*arguments: object) -> Result:
    """Run the command in this process."""
    common = ["--device", "cpu", "--verbose", "0"]
    return CliRunner().invoke(main, [str(argument) for argument in [*common, *arguments]])


def read(result: Result, outdir: Path) -> tuple[dict, list[dict]]:
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (outdir / "frames.jsonl").read_text().splitlines()]
    return json.loads((outdir / "summary.json").read_text()), rows


def test_help_is_quick() -> None:
    process = run_script(SCRIPT, "--help")
    assert process.returncode == 0 and "--protocol" in process.stdout
    heavy = run_script("tests/helpers/heavy_imports.py", "portrait4d.calc_metrics_recon")
    assert heavy.stdout.strip() == "", heavy.stdout + heavy.stderr


def test_the_synthetic_benchmark(tiny_pdfgc_network: Path, protocol: Path, cache: Path, tmp_path: Path) -> None:
    common = ["--network", tiny_pdfgc_network, "--protocol", protocol, "--cache", cache]
    result = run(*common, "--outdir", tmp_path / "a", "--pictures", 1)
    summary, rows = read(result, tmp_path / "a")
    assert summary["protocol"] == "small" and summary["failure_count"] == 0
    assert {task: found["frames"] for task, found in summary["tasks"].items()} == {
        "self": 6, "cross": 6, "novel-0deg": 2, "novel-30deg": 2, "common": 2,
    }  # fmt: skip
    found = summary["tasks"]["cross"]["metrics"]
    assert set(found) == {
        "psnr", "psnr_head", "ssim", "mask_iou", "expression_error", "pose_error", "mouth_correlation",
        "blink_correlation", "jitter_pixels", "jitter_expression", "fid_pixels16",
    }  # fmt: skip
    psnr = found["psnr"]
    assert psnr["result"]["low"] <= psnr["result"]["value"] <= psnr["result"]["high"] and psnr["result"]["frames"] == 6
    assert psnr["copy"]["value"] > psnr["result"]["value"] + 3  # the network is not trained
    per_frame = [row["values"]["result"]["psnr"] for row in rows if row["task"] == "cross"]
    assert sum(per_frame) / 6 == pytest.approx(psnr["result"]["value"])
    assert summary["tasks"]["common"]["metrics"]["rank1"]["copy"]["value"] == 1  # sources show who they are
    assert set(summary["missing"]) == {"lpips", "identity", "fid", "jitter_landmarks"}
    assert "fetch_assets.py vgg16 lpips_vgg" in summary["missing"]["lpips"]
    assert set(summary["definitions"]) >= set(found) | set(summary["missing"]) | {"rank1"}
    assert "mean absolute" in summary["definitions"]["pose_error"]
    assert load_image(tmp_path / "a" / "person000.png").shape == (3, 9 * 66 + 2, 4 * 66 + 2)
    assert not (tmp_path / "a" / "person001.png").exists()
    assert "not measured:" in result.output and "95 % interval" in result.output

    less, _ = read(
        run(*common, "--outdir", tmp_path / "b", "--identities", 1, "--detector", "pixels16"), tmp_path / "b"
    )
    assert less["protocol"] == "small (1 of 2 identities)"
    assert less["missing"]["fid"] == "not asked for, by --detector pixels16"
    again = [row for row in rows if row["subject"] == "person000" and row["task"] == "self"]
    mean = sum(row["values"]["result"]["psnr"] for row in again) / 3
    assert less["tasks"]["self"]["metrics"]["psnr"]["result"]["value"] == pytest.approx(mean, rel=1e-5)


def test_landmarks_of_an_estimator(tiny_network: Path, protocol: Path, cache: Path, tmp_path: Path) -> None:
    config = ReconMetricsConfig(
        tiny_network, tmp_path, str(protocol), identities=1, cache=cache, device="cpu", pictures=0, verbose=False
    )
    summary = run_recon_metrics(config, lambda pictures: pictures.mean(dim=2)[:, :2].transpose(1, 2))
    assert summary["tasks"]["self"]["metrics"]["jitter_landmarks"]["result"]["value"] > 0
    assert "jitter_landmarks" not in summary["missing"]


def test_a_clip(tiny_pdfgc_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    folder = prepared_folder("0", "1", "2", "3", "4")
    common = ["--network", tiny_pdfgc_network, "--protocol", "folder", "--data", folder, "--outdir", tmp_path / "out"]
    summary, rows = read(run(*common), tmp_path / "out")
    assert summary["protocol"] == "folder prepared" and [row["place"] for row in rows] == [1, 2, 3, 4]
    assert {"psnr_head", "mask_iou", "expression_error", "pose_error", "rank1"} <= set(summary["missing"])
    assert summary["missing"]["pose_error"].endswith(
        "fetch_assets.py motion_encoder --repo OWNER/NAME --accept-licences"
    )
    assert summary["tasks"]["self"]["metrics"]["jitter_pixels"]["result"]["frames"] == 2

    (folder / "motion_feats" / "2.npy").unlink()
    (folder / "align_images" / "3.jpg").write_bytes(b"no picture")
    result = run(*common, "--encoder", "synthetic")
    summary, rows = read(result, tmp_path / "out")
    assert summary["failure_count"] == 2 and "2 failures:" in result.output
    assert [row.get("place") for row in rows] == [1, 4, None, None]
    assert any("motion_feats" in row.get("error", "") for row in rows)
    assert summary["tasks"]["self"]["metrics"]["pose_error"]["result"]["frames"] == 2


def test_folder_of_clips(tiny_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    for clip in ("b", "a"):
        prepared_folder(*"0123456", folder=f"clips/{clip}")
    common = ["--network", tiny_network, "--protocol", "gaga-vfhq", "--data", tmp_path / "clips"]
    summary, rows = read(run(*common, "--frames", 3, "--outdir", tmp_path / "out"), tmp_path / "out")
    assert summary["protocol"] == "gaga-vfhq (2 of 50 clips, 3 of 50 frames)"
    assert [(row["subject"], row["driver"]) for row in rows] == [(clip, n) for clip in "ab" for n in "146"]
    assert summary["missing"]["jitter_pixels"] == "no three consecutive frames"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "absent.pkl"], "absent.pkl: no such file"),
        (["--protocol", "synthetic-v0"], "no such protocol; expected synthetic-v1, folder, gaga-vfhq or a file"),
        (["--protocol", "folder"], "--protocol folder: give the prepared clips with --data"),
        (["--protocol", "folder", "--data", "absent"], "nothing could be measured: absent: no such folder"),
        (["--protocol", "gaga-vfhq", "--data", "absent"], "absent: no such folder"),
        (["--data", "absent"], "--data: only the protocols folder and gaga-vfhq take it"),
        (["--detector", "absent.pth"], "absent.pth: no such detector"),
        (["--motion", "encoder", "--encoder", "pdfgc"], "PD-FGC motion encoder"),
        (["--device", "cuda"], "--device cuda"),
    ],
)
def test_bad_input(
    tiny_network: Path, protocol: Path, cache: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    if arguments[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    common = ["--network", tiny_network, "--protocol", protocol, "--cache", cache, "--outdir", tmp_path / "out"]
    result = run(*common, *arguments)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert message in result.output
    assert not (tmp_path / "out").exists()
