"""gen_images_genhead.py as a user runs it."""

from pathlib import Path

import pytest
import torch

from portrait4d.data.image_io import load_image
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.checkpoints import save_genhead
from tests.helpers.cli import run_script
from tests.helpers.parameter_files import write_parameter_sets
from tests.helpers.tiny_genhead import build_tiny_genhead

SCRIPT = "portrait4d/gen_images_genhead.py"


@pytest.fixture(scope="module")
def network(ellipsoid: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genhead") / "tiny.safetensors"
    save_genhead(path, build_tiny_genhead(ellipsoid))
    return path


def test_help_names_every_reference_flag() -> None:
    process = run_script(SCRIPT, "--help")
    assert process.returncode == 0
    flags = "network seeds trunc trunc-cutoff class outdir shapes shape-res fov-deg shape-format reload_modules chunk"
    for flag in [*flags.split(), "render_size", "device", "dtype", "seed", "grid", "video", "params"]:
        assert f"--{flag}" in process.stdout


def test_help_imports_nothing_heavy() -> None:
    process = run_script("tests/helpers/heavy_imports.py", "portrait4d.gen_images_genhead")
    assert process.stdout.strip() == "", process.stdout + process.stderr


def test_everything_with_published_parameter_sets(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = run_script(
        SCRIPT, f"--network={network}", "--seeds=0,2-3", f"--outdir={out}", "--frames=3", "--grid", "--video",
        f"--params={write_parameter_sets(tmp_path / 'sets')}", "--shapes=1", "--shape-res=12", "--shape-level=0",
        "--shape-format=.glb", "--device=cpu", "--reload_modules=True", "--chunk=100", cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert "9 results" in process.stdout
    for seed in (0, 2, 3):
        for frame in range(3):
            assert load_image(out / f"{seed:04d}_{frame:04d}.png").shape == (3, 64, 64)
            assert (out / "shapes" / f"{seed:04d}_{frame:04d}.glb").stat().st_size > 500
        assert (out / f"{seed:04d}.mp4").stat().st_size > 500
    assert load_image(out / "grid.jpg").shape == (3, 3 * 66 + 2, 3 * 66 + 2)
    assert not list(out.rglob(".tmp-*"))


def test_neutral_heads_and_resuming(network: Path, tmp_path: Path) -> None:
    arguments = (SCRIPT, "--network", network, "--seeds", "1", "--outdir", tmp_path, "--frames", 3)
    assert run_script(*arguments).returncode == 0
    first, second = tmp_path / "0001_0000.png", tmp_path / "0001_0001.png"
    kept, made = load_image(first), load_image(second)
    assert not torch.equal(kept, made)
    stamp = first.stat().st_mtime_ns
    second.unlink()
    process = run_script(*arguments, "--resume")
    assert process.returncode == 0 and "1 results" in process.stdout and "2 were there already" in process.stdout
    assert first.stat().st_mtime_ns == stamp and torch.equal(load_image(second), made)


def test_a_mesh_that_cannot_be_made_is_reported_and_the_picture_kept(network: Path, tmp_path: Path) -> None:
    process = run_script(
        SCRIPT, "--network", network, "--seeds", 0, "--outdir", tmp_path, "--frames", 1, "--shapes", 1,
        "--shape-res", 8, "--shape-level", 1e9,
    )  # fmt: skip
    assert process.returncode == 1 and "1 could not be done" in process.stdout
    assert (tmp_path / "0000_0000.png").exists() and not (tmp_path / "shapes").exists()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--network=absent.safetensors"], 1, "absent.safetensors: no such file"),
        (["--render_size=100"], 1, "--render_size: expected at most 64"),
        (["--params=nowhere"], 1, "ffhq_all_shape_n_c_params.npy is missing"),
        (["--params={sets}", "--seeds=4"], 1, "has rows 0 to 3, seed 4 has none"),
        (["--seeds=3-1"], 2, "expected ranges from low to high"),
        (["--shape-format=.mrc"], 2, "'.mrc' is not one of"),
        (["--frames=0"], 2, "--frames"),
    ],
)
def test_bad_input_is_named_in_a_line(network: Path, tmp_path: Path, flags: list[str], code: int, message: str) -> None:
    sets = write_parameter_sets(tmp_path / "sets")
    given = [flag.format(sets=sets) for flag in flags]
    process = run_script(SCRIPT, f"--network={network}", f"--outdir={tmp_path / 'out'}", *given, cwd=tmp_path)
    assert process.returncode == code, process.stderr
    assert message in process.stderr and "Traceback" not in process.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_network_the_bundled_one_makes_heads(tmp_path: Path) -> None:
    process = run_script(SCRIPT, "--seeds", 1, "--frames", 1, "--outdir", tmp_path, "--render-size", 16)
    assert process.returncode == 0, process.stdout + process.stderr
    assert (tmp_path / "0001_0000.png").is_file()


def test_another_kind_of_network_is_refused(tiny_network: Path, tmp_path: Path) -> None:
    process = run_script(SCRIPT, "--network", tiny_network, "--outdir", tmp_path / "out")
    assert process.returncode == 1 and "expected a genhead, got 'reconstructor'" in process.stderr
