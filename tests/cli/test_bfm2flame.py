"""The converters from Basel coefficients to FLAME as a user runs them, on stand-ins for the licensed files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from data_preprocess import bfm2flame_simplified
from data_preprocess.bfm_to_flame import run_convert
from data_preprocess.bfm_to_flame.flame_files import load_flame_shape
from portrait4d.data.label_checks import label_problems
from tests.golden.test_golden import SHARED
from tests.helpers.bfm_files import write_coefficients, write_standin_bfm
from tests.helpers.cli import ROOT, run_script

SIMPLIFIED, MESH = "data_preprocess/bfm2flame_simplified.py", "data_preprocess/bfm_to_flame/run_convert.py"
PUBLISHED = SHARED / "real/bfm2flame_mapper/model-iter200000.pth"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good files of coefficients and a damaged one."""
    for number, name in enumerate(("a", "a b.c")):
        write_coefficients(tmp_path / f"in/bfm_params/{name}.npy", number)
    (tmp_path / "in/bfm_params/bad.npy").write_bytes(b"half")
    return tmp_path / "in"


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    write_standin_bfm(folder)
    return folder


def run(script: object, *arguments: object) -> Result:
    return CliRunner().invoke(script.main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("script", [SIMPLIFIED, MESH])
def test_help_names_the_reference_s_options_and_imports_nothing_heavy(script: str) -> None:
    process = run_script(script, "--help", cwd=(ROOT / script).parent)
    assert process.returncode == 0, process.stderr
    options = ["--input_dir", "--save_dir", "--resume"]
    options += ["--use_mapper"] if script == SIMPLIFIED else ["--n_thread", "--instance_per_thread"]
    assert all(option in process.stdout for option in options)
    process = run_script("tests/helpers/heavy_imports.py", script.removesuffix(".py").replace("/", "."))
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_labels_without_the_mapper(folder: Path, tmp_path: Path) -> None:
    arguments = ("--input_dir", folder, "--save_dir", tmp_path / "out", "--use_mapper", 0)
    process = run_script(SIMPLIFIED, *arguments)
    assert process.returncode == 1, process.stderr
    assert "2 written" in process.stdout and "1 could not be done" in process.stdout and "bad.npy" in process.stdout
    results = tmp_path / "out/bfm2flame_params_simplified"
    assert sorted(path.name for path in results.iterdir()) == ["a b.c.npy", "a.npy"]
    label = np.load(results / "a.npy")
    assert label_problems(label) == [] and not label[25:425].any() and label[425:428].any()
    (folder / "bfm_params/bad.npy").unlink()
    result = run(bfm2flame_simplified, *arguments, "--resume")
    assert result.exit_code == 0 and "0 written, 2 were there already" in result.stdout


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published mapper (../shared/real) is not on this machine")
def test_labels_of_the_published_mapper(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "assets/bfm2flame_mapper" / PUBLISHED.name
    place.parent.mkdir(parents=True)
    shutil.copy(PUBLISHED, place)
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path / "assets"))
    result = run(bfm2flame_simplified, "--input_dir", folder, "--save_dir", tmp_path, "--batch", 1)
    assert result.exit_code == 1 and "2 written" in result.stdout
    label = np.load(tmp_path / "bfm2flame_params_simplified/a.npy")
    weights = torch.load(PUBLISHED, map_location="cpu", weights_only=True)
    content = np.load(folder / "bfm_params/a.npy", allow_pickle=True).item()
    inputs = torch.from_numpy(np.concatenate([content["id"], content["exp"]], axis=1))
    hidden = torch.nn.functional.leaky_relu(inputs @ weights["maps.0.weight"].T + weights["maps.0.bias"], 0.01)
    mapped = (hidden @ weights["maps.2.weight"].T + weights["maps.2.bias"])[0].numpy()
    np.testing.assert_allclose(label[25:425], mapped[:400], atol=1e-4)
    np.testing.assert_allclose(label[428:431], mapped[400:], atol=1e-5)


@pytest.mark.slow
def test_meshes_are_fitted_by_several_processes_and_none_is_left_out(
    folder: Path, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_coefficients(folder / "bfm_params/c.npy", 7)
    out = tmp_path / "out"
    arguments = ("--input_dir", folder, "--save_dir", out, "--head", "synthetic")
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(assets))
    process = run_script(MESH, *arguments, "--n_thread", 2, "--instance_per_thread", 1)
    assert process.returncode == 1, process.stderr
    assert "3 written" in process.stdout and "bad.npy" in process.stdout and "Traceback" not in process.stderr
    names = ["a b.c.npy", "a.npy", "c.npy"]  # more than 2 processes x 1 file
    assert sorted(path.name for path in (out / "bfm2flame_params").iterdir()) == names
    shapes = [load_flame_shape(out / "bfm2flame_params" / name).shape for name in names]
    assert not np.allclose(shapes[0], shapes[1])
    result = run(run_convert, *arguments, "--n_thread", 1, "--resume")
    assert result.exit_code == 1 and "0 written, 3 were there already" in result.stdout


@pytest.mark.parametrize("script", [bfm2flame_simplified, run_convert])
def test_what_cannot_be(script: object, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(script, "--input_dir", tmp_path / "absent")
    assert result.exit_code == 1 and "bfm_params: no .npy file in this folder" in result.stderr
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path / "empty"))
    result = run(script, "--input_dir", folder, "--save_dir", tmp_path)
    assert result.exit_code == 1 and "put it at" in result.stderr and isinstance(result.exception, SystemExit)
