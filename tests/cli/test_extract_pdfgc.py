"""extract_pdfgc.py as a user runs it, with deterministic weights in the place of the published ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from data_preprocess.extract_pdfgc import main
from tests.golden import weights
from tests.helpers.cli import ROOT, run_script

SCRIPT = "data_preprocess/extract_pdfgc.py"
PORTRAITS = ROOT / "portrait4d/examples/synthetic/portraits/00000"


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """An assets folder with an encoder."""
    path = tmp_path / "assets/pdfgc/weights/motion_model.pth"
    path.parent.mkdir(parents=True)
    arrays = weights.fill(ROOT / "tests/golden/manifest-motion-encoder.json")
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return tmp_path / "assets"


def test_help_imports_nothing_heavy() -> None:
    process = run_script("tests/helpers/heavy_imports.py", "data_preprocess.extract_pdfgc")
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_a_prepared_folder(tmp_path: Path, assets: Path) -> None:
    source = tmp_path / "prepared"
    for folder, name in (("align_images", "00000.jpg"), ("3dldmks_align", "00000.npy"), ("align_images", "00001.jpg")):
        (source / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(PORTRAITS / folder / name, source / folder)
    arguments = ("--input_dir", source, "--save_dir", tmp_path / "out", "--device", "cpu")
    process = run_script(SCRIPT, *arguments, cwd=ROOT / "data_preprocess", env={"PORTRAIT4D_ASSETS": str(assets)})
    assert process.returncode == 1, process.stderr
    assert "1 written" in process.stdout and "1 could not be done:" in process.stdout
    assert f"{source / '3dldmks_align/00001.npy'}: no such file" in process.stdout
    motion = np.load(tmp_path / "out/motion_feats/00000.npy")
    assert motion.shape == (548,) and motion.dtype == np.float32 and np.isfinite(motion).all()


def test_our_encoder_comes_with_the_package(tmp_path: Path) -> None:
    arguments = [
        "--input_dir",
        str(PORTRAITS),
        "--save_dir",
        str(tmp_path),
        "--encoder",
        "synthetic",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and "12 written" in result.stdout, result.output
    assert np.load(tmp_path / "motion_feats/00000.npy").shape == (548,)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "Missing option '--input_dir'"),
        (("--input_dir", "nothing"), 1, "no such folder"),
        (("--input_dir", ".", "--resume", "--overwrite"), 2, "expected one of them"),
    ],
)
def test_what_cannot_be(arguments: tuple[str, ...], code: int, message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code and message in result.stderr
