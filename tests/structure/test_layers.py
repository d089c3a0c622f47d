"""The house rules that a parser can check: imports point down, siblings do not know each other, confined libraries."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "portrait4d"

LAYERS = {
    "files": 0,
    "config": 0,
    "ops": 1,
    "geometry": 2,
    "rendering": 3,
    "models": 4,
    "losses": 5,
    "data": 5,
    "synthetic_heads": 6,
    "metrics": 6,
    "training": 7,
    "inference": 7,
    "webapp": 8,
}
ALLOWED_SIBLINGS = {("config", "files")}
NO_TORCH = {"files", "config"}
CONFINED = {
    "lmdb": {"data/lmdb_store.py"},
    "yaml": {"config/load.py"},
    "pydantic": {"config/load.py"},
    "PIL": {"data/image_io.py"},
    "cv2": {"data/image_io.py"},
    "av": {"data/image_io.py", "data/video_io.py", "data/film_writer.py"},
    "tensorboard": {"training/run_log.py"},
    "gradio": {f"webapp/{name}.py" for name in ("server", "guard", "page", "events", "source_panel")}
    | {f"webapp/{name}_tab.py" for name in ("reenact", "explore", "mesh", "sample")},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the dotted names a module imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def test_every_folder_has_a_layer() -> None:
    folders = {path.relative_to(PACKAGE).parts[0] for path in MODULES if path.parent != PACKAGE}
    assert folders <= set(LAYERS) | {"models"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    if len(relative.parts) == 1:
        return  # scripts may import any layer
    own = relative.parts[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] in {"data_preprocess", "generate_lmdb"}:
            pytest.fail(f"{relative} imports {name}: nothing imports the script packages")
        if parts[0] != "portrait4d" or len(parts) < 2:
            continue
        other = parts[1]
        allowed = other == own or LAYERS[other] < LAYERS[own] or (own, other) in ALLOWED_SIBLINGS
        assert allowed, f"{relative} (layer {LAYERS[own]}) imports {name} (layer {LAYERS[other]})"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_stay_where_they_belong(path: Path) -> None:
    relative = path.relative_to(PACKAGE).as_posix()
    roots = {name.split(".")[0] for name in imports(path)}
    for library, places in CONFINED.items():
        assert library not in roots or relative in places, f"{relative} imports {library}"
    if relative.split("/")[0] in NO_TORCH:
        assert "torch" not in roots, f"{relative} imports torch"
    if "/" in relative:
        assert "click" not in roots or relative == "inference/demo.py", f"{relative} imports click"
