"""The demonstration as a newcomer runs it, with few frames."""

import re
from pathlib import Path

import pytest
import trimesh

from portrait4d.data.image_io import load_image
from portrait4d.data.video_io import read_facts
from tests.helpers.cli import run_script

SCRIPT = "portrait4d/demo.py"


def test_help_imports_nothing_heavy() -> None:
    process = run_script("tests/helpers/heavy_imports.py", "portrait4d.demo")
    assert process.stdout.strip() == "", process.stdout + process.stderr


@pytest.mark.timeout(300)
def test_a_page_with_everything_on_it(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    process = run_script(SCRIPT, "--outdir", out, "--frames", 2, "--picture", tmp_path / "all.jpg", "--device", "cpu")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ms per frame" in process.stdout and str(out / "index.html") in process.stdout
    page = (out / "index.html").read_text()
    links = re.findall(r'(?:src|poster|href)="([^"]+)"', page)
    assert len(links) == 6 * 3 + 2 + 3 and all((out / link).stat().st_size > 500 for link in links)
    films = sorted((out / "films").glob("*.mp4"))
    assert len(films) == 7 and all(read_facts(film).rate > 0 for film in films)
    assert len(trimesh.load(out / "head.glb", force="mesh").vertices) > 100
    assert load_image(tmp_path / "all.jpg").shape[0] == 3
    dB = [float(text) for text in re.findall(r"PSNR of the head <b>([\d.]+)&nbsp;dB", page)]
    copies = [float(text) for text in re.findall(r"unchanged source ([\d.]+)&nbsp;dB<br>", page)]
    assert len(dB) == len(copies) == 7
    assert sum(dB[:6]) > sum(copies[:6])  # better than doing nothing
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_part_that_fails_is_named_and_the_rest_is_there(tiny_network: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    arguments = ["--network", tiny_network, "--genhead", tmp_path / "absent.safetensors", "--frames", 1]
    process = run_script(SCRIPT, "--outdir", out, *arguments)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "made-up heads could not be made" in process.stdout and "absent.safetensors: no such file" in process.stdout
    page = (out / "index.html").read_text()
    assert "What could not be made" in page and page.count("<video") >= 6


def test_no_page_without_a_network(tmp_path: Path) -> None:
    process = run_script(SCRIPT, "--outdir", tmp_path / "demo", "--network", tmp_path / "absent.safetensors")
    assert process.returncode == 1 and "absent.safetensors: no such file" in process.stderr
    assert not (tmp_path / "demo" / "index.html").exists()
