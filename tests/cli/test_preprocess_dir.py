"""preprocess_dir.py as a user runs it: hostile files, kill and go on, films, options. The networks are stand-ins."""

import errno
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from data_preprocess import pipeline
from data_preprocess.prepared_files import load_origin
from data_preprocess.preprocess_dir import main
from portrait4d.data.image_io import load_image, save_video
from portrait4d.data.portrait_folder import PortraitFolder
from tests.helpers.cli import BROKEN_OFF, ROOT, run_script
from tests.helpers.hostile_files import face_rows, write_faces, write_unusable, write_usable
from tests.helpers.stub_faces import StubNetworks

SCRIPT = "data_preprocess/preprocess_dir.py"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubNetworks:
    """Networks that take bright things for faces, used by the command."""
    stub = StubNetworks()
    monkeypatch.setattr(pipeline, "load_face_networks", lambda *_: stub.networks)
    return stub


def run(source: Path, out: Path, *arguments: object) -> Result:
    """Run the command in this process: importing torch for every case would take most of the time."""
    options = ["--input_dir", source, "--save_dir", out, "--device", "cpu", *arguments]
    return CliRunner().invoke(main, [str(option) for option in options])


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_help_imports_nothing_heavy() -> None:
    process = run_script(SCRIPT, "--help", cwd=ROOT / "data_preprocess")
    assert process.returncode == 0
    for option in (
        "--input_dir",
        "--save_dir",
        "--is_video",
        "--smooth",
        "--face",
        "--detector",
        "--resume",
        "--overwrite",
    ):
        assert option in process.stdout
    process = run_script("tests/helpers/heavy_imports.py", "data_preprocess.preprocess_dir")
    assert process.returncode == 0 and process.stdout == "", process.stdout + process.stderr


def test_a_folder_of_hostile_files(tmp_path: Path, stub: StubNetworks) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    good, bad = write_usable(source), write_unusable(source)
    assert len(good) == 6 and len(bad) == 20
    (source / "notes.txt").write_text("mine")

    result = run(source, out, "--batch", 3)
    assert result.exit_code == 1
    assert f"{len(good)} written" in result.stdout and "could not be done:" in result.stdout
    reasons = dict(re.findall(r"^  \S*/in/([^:/,]+)[^:]*: (.+)$", result.stdout, re.M))
    assert set(reasons) == bad
    assert all(reasons.values())
    for name, reason in (
        ("nobody.png", "no face found"),
        ("text.jpg", "not a picture"),
        ("sound.mov", "no pictures in"),
    ):
        assert reason in reasons[name]
    assert f"passed over, neither pictures nor films to prepare: {source / 'notes.txt'}" in result.stdout
    assert {item.stem for item in PortraitFolder(out).items()} == good

    upright = load_image(out / "align_images/grey.png")
    for item in PortraitFolder(out).items():
        assert (item.load_image(512) - upright).abs().mean() < 0.1, item.stem

    before = contents(out)
    result = run(source, out, "--resume")
    assert result.exit_code == 1 and f"0 written, {len(good)} were there already" in result.stdout
    assert contents(out) == before


def test_a_killed_run_is_finished_by_the_same_command(tmp_path: Path, stub: StubNetworks) -> None:
    source, out, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    write_faces(source, 8)
    process = run_script(
        BROKEN_OFF, signal.SIGKILL, 4, "numpy:savez", "tests.helpers.stub_faces", "--input_dir", source,
        "--save_dir", out, "--device", "cpu", "--batch", 2, "--workers", 1,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert len(list(out.glob("align_images/0*.png"))) == 3
    assert len(list(out.rglob(".tmp-*"))) == 1, "the fourth is half written"

    result = run(source, out, "--batch", 2)
    assert result.exit_code == 0, result.output
    assert "5 written, 3 were there already" in result.stdout
    assert stub.detected == 5
    assert not list(out.rglob(".tmp-*"))
    run(source, whole, "--batch", 2)
    assert contents(out).keys() == contents(whole).keys()
    for path in whole.glob("*_images/*"):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes()


def test_films_and_single_files(tmp_path: Path, stub: StubNetworks) -> None:
    frames = [torch.from_numpy(np.roll(face_rows(), k, 1)).permute(2, 0, 1) / 127.5 - 1 for k in range(4)]
    save_video(tmp_path / "film.mp4", frames, 25)
    result = run(tmp_path / "film.mp4", tmp_path / "out", "--smooth", "--format", "jpg")
    assert result.exit_code == 0, result.output
    assert [path.image_path.name for path in PortraitFolder(tmp_path / "out").items()] == [
        f"{k:06d}.jpg" for k in range(4)
    ]
    assert stub.detected == 1
    result = run(tmp_path / "film.mp4", tmp_path / "each", "--no-video")
    assert result.exit_code == 0 and stub.detected == 5
    write_faces(tmp_path / "stills", 1)
    result = run(tmp_path / "stills/000.png", tmp_path / "one", "--face", "all")
    assert result.exit_code == 0 and load_origin(tmp_path / "one", "000_0.png").source == "000.png"


@pytest.mark.slow
def test_fifty_million_pixels(tmp_path: Path, stub: StubNetworks) -> None:
    Image.fromarray(face_rows()).resize((8700, 5800), Image.Resampling.NEAREST).save(tmp_path / "huge.jpg", quality=70)
    result = run(tmp_path / "huge.jpg", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert load_image(tmp_path / "out/align_images/huge.jpg", 512).std() > 0.1


def test_a_full_disk_is_one_line(tmp_path: Path, stub: StubNetworks, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "picture"))

    write_faces(tmp_path / "in", 1)
    monkeypatch.setattr(pipeline, "save_prepared", fail)
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1 and "picture: cannot be written (No space left on device)" in result.stderr


def test_missing_weights_stop_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path / "assets"))
    write_faces(tmp_path / "in", 1)
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert "run python portrait4d/fetch_assets.py retinaface h3r landmarks68 bfm_regressor" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--resume", "--overwrite"), 2, "expected one of them"),
        (("--face", "two"), 2, "'two' is not one of"),
        (("--batch", 0), 2, "0 is not in the range"),
        (("--smooth",), 1, "add --video"),
        (("--video", "--face", "all"), 1, "add --no-video"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path, stub: StubNetworks, arguments: tuple[object, ...], code: int, message: str
) -> None:
    write_faces(tmp_path / "in", 1)
    result = run(tmp_path / "in", tmp_path / "out", *arguments)
    assert result.exit_code == code and message in result.stderr
    result = run(tmp_path / "nothing", tmp_path / "out")
    assert result.exit_code == 1 and "no such file or folder" in result.stderr
