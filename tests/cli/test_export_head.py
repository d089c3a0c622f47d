"""export_head.py and render_planes.py as a user runs them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import trimesh
from click.testing import CliRunner, Result

from portrait4d import export_head, render_planes
from portrait4d.data.image_io import load_image
from tests.helpers.cli import ROOT, run_script

Folder = Callable[..., Path]
COARSE = ("--shape-res", 12, "--shape-level", 25)


def export(*arguments: object) -> Result:
    """Run the script in this process: importing torch anew would take longest."""
    return CliRunner().invoke(export_head.main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("script", ["export_head", "render_planes"])
def test_help_is_quick_and_imports_nothing_heavy(script: str) -> None:
    process = run_script(f"portrait4d/{script}.py", "--help")
    assert process.returncode == 0 and "--out" in process.stdout
    process = run_script("tests/helpers/heavy_imports.py", f"portrait4d.{script}")
    assert process.stdout.strip() == "", process.stdout + process.stderr


def test_runs_from_its_own_folder(tiny_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    out = tmp_path / "new" / "head.glb"
    process = run_script(
        "portrait4d/export_head.py", "--network", tiny_network, "--source", prepared_folder("a"), "--out", out,
        *COARSE, cwd=ROOT / "portrait4d",
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert f"{out} (" in process.stdout and "a driven by a" in process.stdout and "triangles" in process.stdout
    assert len(trimesh.load(out).geometry) == 1


def test_meshes_are_driven_and_upright(tiny_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    folder = prepared_folder("a", "b")
    meshes = {}
    for name, flags in {
        "own.ply": (),
        "driven.ply": ("--driving", folder / "align_images" / "b.jpg"),
        "upright.ply": ("--driving", folder / "align_images" / "b.jpg", "--upright"),
        "upright.glb": ("--driving", folder / "align_images" / "b.jpg", "--upright", "--format", "glb"),
    }.items():
        result = export("--network", tiny_network, "--source", folder, "--out", tmp_path / name, *COARSE, *flags)
        assert result.exit_code == 0, result.output
        assert ("a driven by b" if flags else "a driven by a") in result.output
        meshes[name] = trimesh.load(tmp_path / name, force="mesh", process=False)
    sizes = {name: mesh.vertices.shape for name, mesh in meshes.items()}
    assert sizes["upright.ply"] == sizes["upright.glb"]
    assert abs(meshes["upright.ply"].vertices / 3 - meshes["upright.glb"].vertices).max() < 1e-6
    assert len({(mesh.vertices.shape, mesh.vertices.sum()) for mesh in list(meshes.values())[:3]}) == 3


def test_planes_are_rendered_without_the_network(tiny_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    source = prepared_folder("a", "b") / "align_images" / "b.jpg"
    network = tmp_path / "network.safetensors"
    network.write_bytes(tiny_network.read_bytes())
    result = export("--network", network, "--source", source, "--out", tmp_path / "head.safetensors")
    assert result.exit_code == 0, result.output
    assert "b driven by b; rendered from the file it differs from the network's picture by 0 at most" in result.output
    half = export("--network", network, "--source", source, "--out", tmp_path / "half.safetensors", "--float16")
    assert half.exit_code == 0 and "by 0 at most" not in half.output
    network.unlink()
    pictures = []
    for yaw in (-40, 40):
        out = tmp_path / f"{yaw}.png"
        given = [str(tmp_path / "head.safetensors"), "--out", str(out), "--yaw", str(yaw)]
        result = CliRunner().invoke(render_planes.main, given)
        assert result.exit_code == 0, result.output
        assert f"{out}: 1 frame\n" in result.output
        pictures.append(load_image(out))
    assert pictures[0].shape == (3, 64, 64) and not torch.equal(*pictures)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--network", "absent.pkl"], "absent.pkl: no such file"),
        (["--source", "absent"], "absent: no prepared portrait; give a prepared folder"),
        (
            ["--out", "head.obj"],
            "--out head.obj: expected the suffix .glb or .ply or .safetensors or .onnx, got '.obj'",
        ),
        (["--format", "planes"], "expected the suffix .safetensors, got '.glb'"),
        (["--shape-level", "1e9"], "choose another --shape-level"),
    ],
)
def test_what_cannot_be_done_is_said(
    tiny_network: Path, prepared_folder: Folder, tmp_path: Path, flags: list[str], message: str
) -> None:
    given = ("--network", tiny_network, "--source", prepared_folder("a"), "--out", tmp_path / "head.glb")
    result = export(*given, "--shape-res", 12, *flags)
    assert result.exit_code == 1 and message in result.output
    assert not (tmp_path / "head.glb").exists()


def test_a_network_is_not_overwritten(tiny_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    network = tmp_path / "network.safetensors"
    network.write_bytes(tiny_network.read_bytes())
    result = export("--network", network, "--source", prepared_folder("a"), "--out", network)
    assert result.exit_code == 1
    assert f"--out {network}: would replace what it is made from; name another file" in result.output
    assert network.read_bytes() == tiny_network.read_bytes()


def test_places_that_cannot_be_written(tiny_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    given, planes = ("--network", tiny_network, "--source", prepared_folder("a")), tmp_path / "head.safetensors"
    assert export(*given, "--out", planes).exit_code == 0
    for suffix, folder in ((".glb", "a.glb"), (".png", "a.png"), (".mp4", "a.mp4")):
        (tmp_path / folder).mkdir()
        for out in (tmp_path / folder, planes / f"new{suffix}"):
            if suffix == ".glb":
                result = export(*given, "--out", out, *COARSE)
            else:
                result = CliRunner().invoke(render_planes.main, [str(planes), "--out", str(out), "--seconds", "0.04"])
            assert result.exit_code == 1 and f"Error: {out}: cannot be written (" in result.output, result.output


def test_onnx_without_its_packages_says_what_is_missing(tiny_network: Path, tmp_path: Path) -> None:
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
        pytest.skip("the extra `export` is installed")
    result = export("--network", tiny_network, "--source", tmp_path, "--out", tmp_path / "head.onnx")
    assert result.exit_code == 1 and "pip install 'portrait4d[export]'" in result.output
