"""segment_faces.py as a user runs it, with a tiny random network in the place of a trained one."""

import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from data_preprocess.segment_faces import main
from portrait4d.data.image_io import load_image, save_image
from tests.helpers.cli import ROOT, run_script
from tests.helpers.stub_parser import write_checkpoint

SCRIPT = "data_preprocess/segment_faces.py"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A prepared folder with a picture of noise."""
    noise = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    save_image(tmp_path / "prepared/align_images/00000.png", noise)
    return tmp_path / "prepared"


def test_help_imports_nothing_heavy() -> None:
    process = run_script("tests/helpers/heavy_imports.py", "data_preprocess.segment_faces")
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_a_prepared_folder(tmp_path: Path, prepared: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed (extra `segmentation`)")
    checkpoint = write_checkpoint(tmp_path / "tiny")
    (checkpoint / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Tiny\n")
    arguments = ("--input_dir", prepared, "--checkpoint", checkpoint, "--head-labels", "0,skin,HAIR", "--device", "cpu")
    process = run_script(SCRIPT, *arguments, cwd=ROOT / "data_preprocess", env={"PYTHONPATH": str(ROOT)})
    assert process.returncode == 0, process.stderr
    assert f"{checkpoint}: licence: cc-by-nc-4.0" in process.stdout and "1 written" in process.stdout
    mask = load_image(prepared / "segs/00000.png")
    assert mask.shape == (3, 48, 48) and set(mask.unique().tolist()) <= {-1.0, 1.0}


def test_without_transformers_the_command_is_told(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for checkpoint in (str(prepared), "owner/name"):
        result = CliRunner().invoke(main, ["--input_dir", str(prepared), "--checkpoint", checkpoint])
        assert result.exit_code == 1 and "run: python -m pip install transformers" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--checkpoint", "x"), 2, "Missing option '--input_dir'"),
        (("--input_dir", "x"), 2, "Missing option '--checkpoint'"),
        (("--input_dir", "nothing", "--checkpoint", "x"), 1, "no such folder"),
        (("--input_dir", ".", "--checkpoint", "x", "--resume", "--overwrite"), 2, "expected one of them"),
    ],
)
def test_what_cannot_be(arguments: tuple[str, ...], code: int, message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code and message in result.stderr
