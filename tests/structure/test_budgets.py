"""Sizes and manners: modules of at most 400 lines, functions of at most 60, eight parameters, types and docstrings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("portrait4d", "data_preprocess", "generate_lmdb", "benchmarks")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TEST_MODULES = sorted((ROOT / "tests").rglob("*.py"))

MAX_MODULE, MAX_FUNCTION, MAX_PARAMETERS = 400, 60, 8
FORBIDDEN_NAMES = {"c", "ws", "mot", "opts"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[tuple[Function, bool]]:
    """Yield each function of a module and whether it is public: a public name in a module or a public class."""

    def visit(node: ast.AST, public: bool) -> Iterator[tuple[Function, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield child, public and not child.name.startswith("_")
                yield from visit(child, False)
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, public and not child.name.startswith("_"))

    yield from visit(ast.parse(path.read_text()), True)


@pytest.mark.parametrize("path", MODULES + TEST_MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_budgets(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_MODULE, f"{path}: {lines} lines"
    for function, _ in functions(path):
        length = function.end_lineno - function.lineno + 1
        assert length <= MAX_FUNCTION, f"{path}:{function.lineno} {function.name}: {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_signatures(path: Path) -> None:
    is_script = "import click" in path.read_text()
    for function, public in functions(path):
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        names = [a.arg for a in arguments if a.arg not in ("self", "cls")]
        where = f"{path}:{function.lineno} {function.name}"
        assert len(names) <= MAX_PARAMETERS or is_script, f"{where}: {len(names)} parameters"
        if not public:
            continue
        assert ast.get_docstring(function), f"{where}: no docstring"
        assert function.returns is not None, f"{where}: no return type"
        untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert not untyped, f"{where}: untyped {untyped}"
        assert not FORBIDDEN_NAMES & set(names), f"{where}: unclear parameter name"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_public_classes_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path}: no module docstring"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name}: no docstring"


def test_no_script_hides_an_installed_module() -> None:
    import importlib.util
    import sys

    for folder in ("portrait4d", "data_preprocess", "generate_lmdb"):
        for path in (ROOT / folder).glob("*.py"):
            if path.stem == "__init__":
                continue
            assert path.stem not in sys.stdlib_module_names, f"{path} hides a standard-library module"
            spec = importlib.util.find_spec(path.stem)
            if spec is not None and spec.origin is not None:  # a plain folder, as of make demo, has no origin
                assert str(ROOT) in spec.origin, f"{path} hides {spec.origin}"
