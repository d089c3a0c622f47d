"""The fitting scripts as a user runs them, on synthetic portraits whose labels are known."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.spatial.transform import Rotation

from data_preprocess import flame_optim_batch_multiframe, flame_optim_batch_singleframe
from data_preprocess.bfm_to_flame.flame_files import FlameShape, save_flame_shape
from portrait4d.data.image_io import load_image
from portrait4d.data.label_checks import label_problems
from portrait4d.synthetic_heads.portrait_sets import PortraitSetConfig, write_portrait_set
from tests.helpers.cli import ROOT, run_script

SINGLE, MULTI = "flame_optim_batch_singleframe.py", "flame_optim_batch_multiframe.py"
QUICK = ("--head", "synthetic", "--device", "cpu", "--steps", 20, 20)
FREE = (*QUICK, "--init", "neutral", "--optimise-rotation")


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stills")
    write_portrait_set(PortraitSetConfig(root, 3, resolution=32, seed=9))
    return root / "00000"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    write_portrait_set(PortraitSetConfig(root, 1, clips=2, frames=3, resolution=32, seed=9))
    return root


def run(script: object, *arguments: object) -> Result:
    return CliRunner().invoke(script.main, [str(argument) for argument in arguments])


def labels(root: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in sorted((root / "flame_optim_params").glob("*.npy"))}


def degrees_between(ours: np.ndarray, truth: np.ndarray) -> float:
    first, second = (Rotation.from_rotvec(label[425:428].astype(float)) for label in (ours, truth))
    return float(np.degrees((first * second.inv()).magnitude()))


@pytest.mark.parametrize("script", [SINGLE, MULTI])
def test_help_names_the_reference_s_options_and_imports_nothing_heavy(script: str) -> None:
    process = run_script(f"data_preprocess/{script}", "--help", cwd=ROOT / "data_preprocess")
    assert process.returncode == 0, process.stderr
    for option in (
        "--data_dir",
        "--save_dir",
        "--batchsize",
        "--batch ",
        "--visualize",
        "--init",
        "--resume",
        "--device",
    ):
        assert option in process.stdout
    assert "--optimise-rotation" in process.stdout and "--head" in process.stdout
    process = run_script("tests/helpers/heavy_imports.py", f"data_preprocess.{script.removesuffix('.py')}")
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_pictures_are_fitted_past_a_bad_one_and_the_rest_is_resumed(portraits: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(portraits, data)
    good = (data / "2dldmks_align/00001.npy").read_bytes()
    (data / "2dldmks_align/00001.npy").write_bytes(good[:300])
    arguments = ("--data_dir", data, "--save_dir", out, *FREE, "--batchsize", 2)
    process = run_script(f"data_preprocess/{SINGLE}", *arguments, cwd=ROOT / "data_preprocess")
    assert process.returncode == 1, process.stderr
    assert "2 written" in process.stdout and "00001.npy: not a readable .npy array" in process.stdout
    assert "batch 2 of 2" in process.stderr and "Traceback" not in process.stderr
    found, truth = labels(out), labels(portraits)
    assert list(found) == ["00000", "00002"] and not list(out.rglob(".tmp-*"))
    for stem, label in found.items():
        assert label.dtype == np.float32 and label_problems(label) == []
        assert degrees_between(label, truth[stem]) < 1.5
        assert np.array_equal(label[431:434], label[434:437])

    (data / "2dldmks_align/00001.npy").write_bytes(good)
    before = (out / "flame_optim_params/00000.npy").stat().st_mtime_ns
    result = run(flame_optim_batch_singleframe, *arguments, "--resume")
    assert result.exit_code == 0 and "1 written, 2 were there already" in result.stdout
    assert (out / "flame_optim_params/00000.npy").stat().st_mtime_ns == before and len(labels(out)) == 3


def test_start_from_labels_keeps_their_rotation_and_jaw(portraits: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(portraits, data)
    shutil.rmtree(data / "flame_optim_params")
    result = run(flame_optim_batch_singleframe, "--data_dir", data, *QUICK, "--init", "simplified", "--visualize")
    assert result.exit_code == 0, result.output
    truth = labels(portraits)
    for stem, label in labels(data).items():  # without --save_dir
        assert np.array_equal(label[425:431], truth[stem][425:431])
        assert np.abs(label[25:325] - truth[stem][25:325]).max() < 0.05
    assert load_image(data / "flame_optim_visuals/00000.jpg").shape == (3, 512, 1536)
    assert len(list((data / "flame_optim_uvs").iterdir())) == 6


def test_start_from_mesh_fits_beside_the_results(portraits: Path, tmp_path: Path) -> None:
    """The reference reads pictures and starts below --save_dir, landmarks below --data_dir."""
    shutil.copytree(portraits / "align_images", tmp_path / "align_images")
    for stem, label in list(labels(portraits).items())[:2]:
        head = FlameShape(label[25:325], label[325:425], label[425:428] + 0.1, label[428:431], np.zeros(3))
        save_flame_shape(tmp_path / f"bfm2flame_params/{stem}.npy", head)
    arguments = ("--data_dir", portraits, "--save_dir", tmp_path, *QUICK)
    result = run(flame_optim_batch_singleframe, *arguments, "--optimise-rotation")
    assert result.exit_code == 1 and "2 written" in result.stdout and "bfm2flame_params/00002.npy" in result.stdout
    for stem, label in labels(tmp_path).items():
        assert degrees_between(label, labels(portraits)[stem]) < 0.2  # the true geometry, its pose found again


def test_clips_have_one_identity(clips: Path, tmp_path: Path) -> None:
    result = run(flame_optim_batch_multiframe, "--data_dir", clips, "--save_dir", tmp_path, *FREE)
    assert result.exit_code == 0 and "6 written" in result.stdout, result.output
    for clip in ("clip-00000", "clip-00001"):
        found, truth = labels(tmp_path / clip), labels(clips / clip)
        shapes = np.stack([label[25:325] for label in found.values()])
        assert len(found) == 3 and (shapes == shapes[0]).all()
        assert max(degrees_between(label, truth[stem]) for stem, label in found.items()) < 1.5
    (tmp_path / "clip-00001/flame_optim_params/00002.npy").unlink()
    result = run(flame_optim_batch_multiframe, "--data_dir", clips, "--save_dir", tmp_path, *FREE, "--resume")
    assert result.exit_code == 0 and "3 written, 3 were there already" in result.stdout  # a clip is a whole


def test_the_first_frames_of_a_clip(clips: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    shutil.rmtree(data / "clip-00001/2dldmks_align")  # not a clip any more
    (data / "clip-00000/3dldmks_align/00000.npy").unlink()
    out = tmp_path / "out"
    arguments = ("--data_dir", data, "--save_dir", out, *QUICK, "--init", "simplified", "--batchsize", 2)
    result = run(flame_optim_batch_multiframe, *arguments)
    assert result.exit_code == 1 and "1 written" in result.stdout and "3dldmks_align/00000.npy" in result.stdout
    assert [path.name for path in out.rglob("*.npy")] == ["00001.npy"]


@pytest.mark.parametrize(
    ("script", "arguments", "code", "message"),
    [
        (flame_optim_batch_singleframe, ("--batchsize", 0), 2, "expected 1 or more, got 0"),
        (flame_optim_batch_singleframe, ("--batch", -1), 2, "expected 1 or more, got -1"),
        (flame_optim_batch_multiframe, ("--batch", 0), 2, "expected 1 or more, or -1, got 0"),
        (flame_optim_batch_singleframe, ("--data_dir", "{}/absent"), 1, "absent: no such folder"),
        (flame_optim_batch_multiframe, ("--data_dir", "{}/absent"), 1, "absent: no such folder"),
        (flame_optim_batch_multiframe, ("--data_dir", "{}"), 1, "2dldmks_align and bfm2flame_params"),
    ],
)
def test_what_cannot_be(tmp_path: Path, script: object, arguments: tuple, code: int, message: str) -> None:
    result = run(script, *(str(argument).replace("{}", str(tmp_path)) for argument in arguments))
    assert result.exit_code == code and message in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_flame_that_is_not_there(portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path / "assets"))
    (tmp_path / "assets/FLAME").mkdir(parents=True)
    arguments = ("--data_dir", portraits, "--save_dir", tmp_path, "--init", "neutral")
    result = run(flame_optim_batch_singleframe, *arguments)
    assert result.exit_code == 1 and "generic_model.pkl" in result.stderr and "put it at" in result.stderr
