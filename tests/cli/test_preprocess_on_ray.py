"""preprocess_dir.py --ray as a user runs it, on a Ray of two workers of which one dies. The networks are stand-ins."""

import sys
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from data_preprocess import ray_job
from data_preprocess.preprocess_dir import main
from portrait4d.data.portrait_folder import PortraitFolder
from tests.helpers.cli import ROOT, run_script
from tests.helpers.hostile_files import write_faces
from tests.helpers.stub_faces import load_mortal


def run(source: Path, out: Path, *arguments: object) -> Result:
    """Run the command in this process."""
    options = ["--input_dir", source, "--save_dir", out, "--device", "cpu", *arguments]
    return CliRunner().invoke(main, [str(option) for option in options])


@pytest.mark.slow
def test_two_workers_of_which_one_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra `distributed`)")
    source, out, marker = tmp_path / "in", tmp_path / "out", tmp_path / "dead"
    write_faces(source, 10)
    write_faces(source / "clip", 3)
    (source / "text.jpg").write_text("no picture at all")
    monkeypatch.setattr(ray_job, "load_face_networks", partial(load_mortal, marker=marker))

    result = run(source, out, "--ray", "--workers", 2, "--batch", 1)
    assert marker.exists(), result.output
    assert result.exit_code == 1, result.output
    assert "text.jpg: not a picture" in result.stdout and "1 could not be done:" in result.stdout
    assert "13 written" in result.stdout, "the worker died before it wrote anything"
    assert [item.stem for item in PortraitFolder(out).items()] == [f"{number:03d}" for number in range(10)]
    assert len(PortraitFolder(out / "clip").items()) == 3
    assert not list(out.rglob(".tmp-*"))

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    result = run(source, out, "--ray", "--workers", 2)
    assert "0 written, 13 were there already" in result.stdout, result.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == before


def test_one_machine_does_not_import_ray(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise SystemExit('imported')")
    write_faces(tmp_path / "in", 1)
    arguments = ("--input_dir", tmp_path / "in", "--save_dir", tmp_path / "out", "--device", "cpu")
    process = run_script("tests/helpers/stub_faces.py", *arguments, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert process.returncode == 0 and "1 written" in process.stdout, process.stderr


def test_without_ray_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_faces(tmp_path / "in", 1)
    result = run(tmp_path / "in", tmp_path / "out", "--ray")
    assert result.exit_code == 1 and "run: python -m pip install ray" in result.stderr
    assert not (tmp_path / "out").exists()
