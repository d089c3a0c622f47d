"""What is in the packages: our code, configuration-free data of the examples, and nothing licensed."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LICENSED = {
    "portrait4d/models/FLAME/geometry/generic_model.pkl",
    "portrait4d/models/pdfgc/weights/motion_model.pth",
    "portrait4d/models/arcface/backbone.pth",
    "portrait4d/models/lpips/weights.pt",
    "portrait4d/data/FFHQ_512_50/data.mdb",
    "portrait4d/data/ffhq_all_motion_params.npy",
    "data_preprocess/assets/model.pth",
    "portrait4d/pretrained_models/portrait4d-v2-vfhq512.pkl",
    "pretrained_models/portrait4d-v2-vfhq512.pkl",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files with licensed files in their places."""
    folder = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if name.startswith("tests/") or not (ROOT / name).is_file():
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    for name in LICENSED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"licensed")
    return folder


@pytest.fixture(scope="module")
def packages(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Build wheel and sdist and return their file names."""
    out = tmp_path_factory.mktemp("dist")
    for kind in ("--wheel", "--sdist"):
        process = subprocess.run(
            [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", out, tree],
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    wheel, sdist = next(out.glob("*.whl")), next(out.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    return {"wheel": set(zipfile.ZipFile(wheel).namelist()), "sdist": names}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_code_and_examples_are_in_and_licensed_files_are_not(packages: dict[str, set[str]], kind: str) -> None:
    names = packages[kind]
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "portrait4d").rglob("*.py")}
    assert modules <= names
    examples = {p.relative_to(ROOT).as_posix() for p in (ROOT / "portrait4d/examples").rglob("*") if p.is_file()}
    assert len(examples) >= 7 and examples <= names
    folder = "portrait4d/configs" if kind == "wheel" else "configs"
    configs = {f"{folder}/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    assert configs and configs <= names
    assert not names & LICENSED
    assert not [n for n in names if n.endswith((".pkl", ".pth", ".mdb")) or ("npy" in n and "examples" not in n)]


def test_git_ignores_licensed_files() -> None:
    process = subprocess.run(["git", "check-ignore", *sorted(LICENSED)], cwd=ROOT, capture_output=True, text=True)
    if process.returncode == 128:
        pytest.skip("not a git checkout")
    assert set(process.stdout.split()) == LICENSED
    kept = [
        "portrait4d/pretrained_models/demo-a.safetensors",
        "portrait4d/examples/synthetic/driving/clip-00000/motion_feats/00000.npy",
    ]
    assert subprocess.run(["git", "check-ignore", *kept], cwd=ROOT, capture_output=True).returncode == 1


def test_console_entry_points_exist() -> None:
    import re
    from importlib import import_module

    targets = re.findall(r'"[\w-]+=([\w.]+):(\w+)"', (ROOT / "setup.py").read_text())
    assert len(targets) >= 2
    for module, function in targets:
        assert callable(getattr(import_module(module), function))
