"""animate.py as a user runs it."""

import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from portrait4d.data.image_io import load_image, to_uint8
from portrait4d.data.video_io import read_facts, read_frames
from portrait4d.inference.animate_job import BUNDLED_NETWORK
from portrait4d.models.checkpoints import LANDMARK_NETWORK
from tests.helpers.cli import BROKEN_OFF, ROOT, run_script
from tests.helpers.films import write_film

SCRIPT = "portrait4d/animate.py"
EXAMPLES = ROOT / "portrait4d/examples/synthetic"
PHOTO = EXAMPLES / "portraits/00000/align_images/00000.jpg"
CLIP = EXAMPLES / "driving/clip-00000"
FRAMES = len(list((CLIP / "align_images").iterdir()))


def clip_pictures() -> list[np.ndarray]:
    """Return the bundled clip's pictures, uint8 (H, W, 3)."""
    paths = sorted((CLIP / "align_images").iterdir())
    return [to_uint8(load_image(path)).permute(1, 2, 0).numpy() for path in paths]


def test_help_is_quick_and_names_every_option() -> None:
    process = run_script(SCRIPT, "--help")
    assert process.returncode == 0
    for option in ("--source", "--driving", "--out", "--paste-back", "--background", "--stabilise", "--relative",
                   "--expression-scale", "--camera", "--fps", "--layout", "--save-template", "--missing"):  # fmt: skip
        assert option in process.stdout
    assert run_script("tests/helpers/heavy_imports.py", "portrait4d.animate").stdout.strip() == ""


def test_the_bundled_clip_as_pictures(tiny_pdfgc_network: Path, tmp_path: Path) -> None:
    out, template = tmp_path / "out.mp4", tmp_path / "t.safetensors"
    process = run_script(
        SCRIPT, "--source", PHOTO, "--driving", CLIP, "--out", out, "--network", tiny_pdfgc_network, "--render-size", 8,
        "--still-fps", 8, "--stabilise", "light", "--layout", "side-by-side", "--save-template", template, "--no-cache",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "faces found by our trackers of the open head world" in process.stdout
    assert f"{out}: {FRAMES} frames of 192 x 64 pixels, no sound" in process.stdout
    assert "jitter before -> after" in process.stdout
    facts = read_facts(out)
    assert (facts.frames, facts.rate) == (FRAMES, 8)
    assert 0 < template.stat().st_size < FRAMES * 688 * 4 + 1000


@pytest.mark.skipif(not LANDMARK_NETWORK.is_file(), reason=f"{LANDMARK_NETWORK.name} is not there")
@pytest.mark.skipif(not BUNDLED_NETWORK.is_file(), reason=f"{BUNDLED_NETWORK.name} is not there")
def test_the_bundled_clip_as_a_film_with_everything_bundled(tmp_path: Path) -> None:
    """The photo as a plain file, the clip as a film with sound and a second without a face."""
    photo, film, out = tmp_path / "photo.jpg", tmp_path / "in.mp4", tmp_path / "out.mp4"
    photo.write_bytes(PHOTO.read_bytes())
    dark = [np.zeros((256, 256, 3), np.uint8)] * 3
    write_film(film, clip_pictures()[:4] + dark, Fraction(1, 8), sound="aac")
    process = run_script(
        SCRIPT, "--source", photo, "--driving", film, "--out", out, "--cache", tmp_path / "cache", "--missing", "fade"
    )
    assert process.returncode == 0, process.stderr
    assert "sound aac" in process.stdout and "3 frames without a face" in process.stdout
    assert read_facts(out).frames == 7 and read_facts(out).has_sound
    pictures = [frame.load() for frame in read_frames(out)]
    assert (pictures[0] - pictures[3]).abs().mean() > 0.01
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_text_file_as_film(tiny_pdfgc_network: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_text("not a film\n" * 50)
    process = run_script(
        SCRIPT, "--source", PHOTO, "--driving", film, "--out", tmp_path / "out.mp4", "--network", tiny_pdfgc_network
    )
    assert process.returncode == 1
    assert f"Error: {film}: not a readable film" in process.stderr and "convert it to MP4" in process.stderr
    assert "Traceback" not in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--network", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["--network", CLIP / "settings.json"], "settings.json"),
        (["--out", "film.avi"], "--out film.avi: expected .mp4, .webm, .mov"),
        (["--background", "transparent"], "a transparent film is .webm or .mov"),
    ],
)
def test_what_cannot_be_done_is_said(
    tiny_pdfgc_network: Path, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    process = run_script(
        SCRIPT, "--source", PHOTO, "--driving", CLIP, "--out", "out.mp4", "--network", tiny_pdfgc_network, *arguments,
        cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 1 and problem in process.stderr and "Traceback" not in process.stderr
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_the_old_film(tiny_pdfgc_network: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"old")
    process = run_script(
        BROKEN_OFF, signal.SIGKILL, 3, "portrait4d.data.film_writer:FilmWriter.write", "portrait4d.animate",
        "--source", PHOTO, "--driving", CLIP, "--out", out, "--network", tiny_pdfgc_network, "--render-size", 8,
        "--no-cache",
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert list(tmp_path.glob(".tmp-*.mp4")), "the new film was begun"
    assert out.read_bytes() == b"old"
