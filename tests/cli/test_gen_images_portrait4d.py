"""gen_images_portrait4d.py as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.image_io import load_image
from tests.helpers.cli import ROOT, run_script

SCRIPT = "portrait4d/gen_images_portrait4d.py"
Folder = Callable[..., Path]


def lines(outdir: Path) -> list[dict]:
    return [json.loads(line) for line in (outdir / "results.jsonl").read_text().splitlines()]


def test_help_names_every_reference_flag() -> None:
    process = run_script(SCRIPT, "--help")
    assert process.returncode == 0
    for flag in ("--network", "--srcdir", "--tardir", "--outdir", "--use_neck", "--use_simplified", "--shape,"):
        assert flag in process.stdout


def test_help_imports_nothing_heavy() -> None:
    process = run_script("tests/helpers/heavy_imports.py", "portrait4d.gen_images_portrait4d")
    assert process.stdout.strip() == "", process.stdout + process.stderr


def test_all_pairs_with_everything(tiny_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    folder = prepared_folder("a face.v2", "b")
    out = tmp_path / "out"
    process = run_script(
        SCRIPT, f"--network={tiny_network}", f"--srcdir={folder}", f"--tardir={folder}", f"--outdir={out}",
        "--render_size=16", "--grid", "--video", "--shape=1", "--shape-res=12",
        "--shape-format=glb", "--device=cpu", cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert "4 results" in process.stdout
    for source in ("a face.v2", "b"):
        for index in (0, 1):
            assert load_image(out / source / f"{index:05d}.jpg").shape == (3, 64, 192)
            assert load_image(out / source / "frames" / f"{index:05d}.png").shape == (3, 64, 64)
            assert (out / source / "shapes" / f"{index:05d}.glb").stat().st_size > 500
        assert (out / f"{source}.mp4").stat().st_size > 500
    assert (out / "grid.jpg").exists()
    assert [(e["source"], e["driver"], e["index"]) for e in lines(out)] == [
        ("a face.v2", "a face.v2", 0), ("a face.v2", "b", 1), ("b", "a face.v2", 0), ("b", "b", 1),
    ]  # fmt: skip


def test_driving_frames_and_neck_flags_change_the_result(
    tiny_network: Path, prepared_folder: Folder, tmp_path: Path
) -> None:
    folder = prepared_folder("a", "b")
    results = {}
    for name, flags in {"neck": ["--use_neck=1"], "camera": ["--use_neck=0"], "fov": ["--fov-deg=20"]}.items():
        out = tmp_path / name
        process = run_script(
            SCRIPT, "--network", tiny_network, "--srcdir", folder, "--tardir", folder, "--outdir", out,
            "--pairs", "zip", "--render_size", 16, *flags,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        results[name] = [load_image(out / s / "frames" / f"{i:05d}.png") for i, s in enumerate("ab")]
    assert not torch.equal(results["neck"][0], results["neck"][1])
    assert not torch.equal(results["neck"][1], results["fov"][1])
    difference = (results["neck"][1] - results["camera"][1]).abs().mean()
    assert 0 < difference < 0.5  # two ways to show the same head turned


def test_bad_portraits_are_named_and_the_others_done(
    tiny_pdfgc_network: Path, prepared_folder: Folder, tmp_path: Path
) -> None:
    names = ["ok", "nan", "short", "truncated", "no-label", "not-npy"]
    folder = prepared_folder(*names)
    labels, images = folder / "flame_optim_params", folder / "align_images"
    bad = np.load(labels / "nan.npy")
    bad[30] = np.nan
    np.save(labels / "nan.npy", bad)
    np.save(labels / "short.npy", np.zeros(400, np.float32))
    (images / "truncated.jpg").write_bytes((images / "truncated.jpg").read_bytes()[:700])
    (labels / "no-label.npy").unlink()
    (labels / "not-npy.npy").write_text("hello")
    out = tmp_path / "out"
    process = run_script(
        SCRIPT,
        "--network",
        tiny_pdfgc_network,
        "--srcdir",
        folder,
        "--tardir",
        folder,
        "--outdir",
        out,
        "--render_size",
        8,
    )
    assert process.returncode == 1
    assert "1 results" in process.stdout and "5 could not be done" in process.stdout
    assert (out / "ok" / f"{sorted(names).index('ok'):05d}.jpg").exists()
    report = process.stdout[process.stdout.index("5 could not") :]
    for name, problem in {
        "nan.npy": "finite",
        "short.npy": "437",
        "truncated.jpg": "",
        "no-label.npy": "",
        "not-npy.npy": "",
    }.items():
        line = next(line for line in report.splitlines() if name in line)
        assert problem in line
    assert sum("failed" in entry for entry in lines(out)) == 5
    assert not list(out.rglob(".tmp-*"))


def test_a_missing_landmark_file_stops_only_its_portrait(
    tiny_pdfgc_network: Path, prepared_folder: Folder, tmp_path: Path
) -> None:
    from portrait4d.models.pretrained.motion_encoder import MotionEncoder, published_name

    folder = prepared_folder("a", "b", motion=False)
    (folder / "3dldmks_align" / "b.npy").unlink()
    arguments = ["--network", tiny_pdfgc_network, "--srcdir", folder, "--tardir", folder, "--outdir", tmp_path / "out"]
    assets = tmp_path / "assets"
    process = run_script(SCRIPT, *arguments, env={"PORTRAIT4D_ASSETS": str(assets)})
    assert process.returncode == 1
    assert "motion_model.pth" in process.stderr and "put it at" in process.stderr

    weights = assets / "pdfgc" / "weights" / "motion_model.pth"
    weights.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save({published_name(k): v for k, v in MotionEncoder().state_dict().items()}, weights)
    process = run_script(SCRIPT, *arguments, "--render_size", 8, env={"PORTRAIT4D_ASSETS": str(assets)})
    assert process.returncode == 1
    assert "1 results" in process.stdout
    assert "b.npy" in process.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--srcdir", "absent"], "absent"),
        (["--network", "absent.pkl"], "absent.pkl: no such file"),
        (["--device", "cuda"], "--device cuda"),
    ],
)
def test_nothing_can_be_done(
    tiny_network: Path, prepared_folder: Folder, tmp_path: Path, flags: list[str], message: str
) -> None:
    if flags[1] == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    folder = prepared_folder("a")
    process = run_script(
        SCRIPT, "--network", tiny_network, "--srcdir", folder, "--tardir", folder, "--outdir", tmp_path / "o", *flags,
        cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 1
    assert message in process.stderr
    assert "Traceback" not in process.stderr


def test_orbit_random_sampling_and_resume(tiny_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    folder, out = prepared_folder("a"), tmp_path / "out"
    arguments = [
        "--network", tiny_network, "--srcdir", folder, "--tardir", folder, "--outdir", out, "--render_size", 16,
        "--camera", "orbit", "--orbit-frames", 3, "--random-sampling", "--seed", 5,
    ]  # fmt: skip
    assert run_script(SCRIPT, *arguments).returncode == 0
    frames = [load_image(out / "a" / "frames" / f"{i:05d}.png") for i in range(3)]
    assert not torch.equal(frames[1], frames[2])
    (out / "a" / "00001.jpg").unlink()
    process = run_script(SCRIPT, *arguments, "--resume")
    assert "1 results" in process.stdout and "2 were there already" in process.stdout
    assert torch.equal(load_image(out / "a" / "frames" / "00001.png"), frames[1])  # the same draws again


def test_source_cache_changes_nothing_but_time(tiny_network: Path, prepared_folder: Folder, tmp_path: Path) -> None:
    folder = prepared_folder("a", "b")
    pictures = []
    for flag in ("--source-cache", "--no-source-cache"):
        out = tmp_path / flag
        run_script(
            SCRIPT,
            "--network",
            tiny_network,
            "--srcdir",
            folder,
            "--tardir",
            folder,
            "--outdir",
            out,
            "--render_size",
            16,
            flag,
        )
        pictures.append(load_image(out / "b" / "frames" / "00000.png"))
    assert torch.equal(*pictures)


def test_without_a_network_the_bundled_one_is_driven_by_pictures(prepared_folder: Folder, tmp_path: Path) -> None:
    folder = prepared_folder("a", motion=False)
    process = run_script(SCRIPT, "--tardir", folder, "--srcdir", folder, "--outdir", tmp_path / "out", "--device=cpu")
    assert process.returncode == 0, process.stdout + process.stderr
    assert load_image(tmp_path / "out" / "a" / "frames" / "00000.png").shape == (3, 128, 128)


def test_runs_from_its_own_folder(tmp_path: Path) -> None:
    process = run_script(SCRIPT, "--network", tmp_path / "x.pkl", cwd=ROOT / "portrait4d")
    assert process.returncode == 1
    assert "x.pkl: no such file" in process.stderr
