"""Whether native operations serve: the environment variable, broken compilers, registration, CUDA sources."""

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from portrait4d.files.errors import UserError
from portrait4d.ops import backend
from portrait4d.ops.ray_march import march
from portrait4d.ops.triplane_fetch import build_table
from tests.helpers.native import require_native


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], bool]]:
    """Return a function that asks for the native operations with an empty cache and a value of PORTRAIT4D_NATIVE."""
    cached = (backend.load_native, backend.build_native, backend.library_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def ask(wish: str) -> bool:
        monkeypatch.setenv("PORTRAIT4D_NATIVE", wish)
        for function in cached:
            function.cache_clear()
        return backend.native_serves(torch.zeros(1))

    yield ask
    for function in cached:
        function.cache_clear()


def test_nothing_is_built_unasked(fresh: Callable[[str], bool], caplog: pytest.LogCaptureFixture) -> None:
    assert not fresh("") and not fresh("0")
    assert not caplog.records and not backend.library_path().exists()


@pytest.mark.parametrize("wish", ["", "1"])
def test_without_a_home_folder_pytorch_serves(
    wish: str, fresh: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise UserError("~/.cache: this user has no home folder")

    monkeypatch.setattr(backend, "cache_folder", no_home)
    assert not fresh(wish)


@pytest.mark.parametrize("wish", ["", "1"])
def test_where_the_cache_must_not_be_read_pytorch_serves(
    wish: str, fresh: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert not fresh(wish)


@pytest.mark.parametrize("broken", ["CXX", "PATH"])
def test_a_broken_compiler_costs_one_line(
    broken: str, fresh: Callable[[str], bool], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(broken, "/nowhere/c++")
    with caplog.at_level(logging.WARNING, logger=backend.__name__):
        assert not fresh("1")
        weights = march(torch.zeros(2, 5), torch.linspace(1, 2, 5).expand(2, 5)).weights
    assert weights.shape == (2, 4)
    assert [record.name for record in caplog.records].count(backend.__name__) == 1
    assert "PyTorch versions serve" in caplog.text
    assert not list(backend.library_path().parent.iterdir())


def test_precision_is_as_asked_and_other_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = torch.backends.cudnn
    monkeypatch.setattr(flags, "deterministic", True)
    monkeypatch.setattr(flags, "allow_tf32", True)  # trainings leave it off
    with backend.exact_convolutions(torch.device("cuda")):
        assert flags.deterministic and not flags.allow_tf32
    assert flags.allow_tf32
    for dtype in (torch.float32, torch.bfloat16):
        with backend.network_precision(torch.device("cpu"), dtype):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_only_float32_on_one_device_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "load_native", lambda: True)
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    assert backend.native_serves(single, single)
    with backend.without_native():
        assert not backend.native_serves(single, single)
    assert not backend.native_serves(single, double)
    assert not backend.native_serves(single, torch.zeros(1, device="meta"))


@pytest.mark.slow
def test_registration_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schemas, fake kernels and autograd agree with what the operations do."""
    require_native(monkeypatch)
    ops, checks = torch.ops.portrait4d, ("test_schema", "test_autograd_registration", "test_faketensor")
    table = build_table(torch.rand(1, 3, 4, 5, 6)).requires_grad_()
    points, distances = torch.rand(1, 9, 3), torch.rand(3, 6).sort(dim=1).values
    torch.library.opcheck(ops.triplane_fetch.default, (table, points, 1.3), test_utils=checks)
    backward = torch.rand(1, 9, 4), points, 1.3, list(table.shape)
    torch.library.opcheck(ops.triplane_fetch_backward.default, backward, test_utils=checks)
    torch.library.opcheck(ops.march_rays.default, (torch.rand(3, 6).requires_grad_(), distances), test_utils=checks)
    backward = torch.rand(3, 5), torch.rand(3), torch.rand(3), torch.rand(3, 6), distances
    torch.library.opcheck(ops.march_rays_backward.default, backward, test_utils=checks)
    decoder = [torch.rand(size) for size in ((8, 4), (8,), (1, 8), (1,), (3, 8), (3,))]
    grids = [torch.rand(1, 4, 4, 4, 4), torch.rand(1, 2, 2, 2, 4)]
    rays = [torch.rand(1, 7, 3), torch.rand(1, 7, 3), torch.linspace(1, 2, 6)[None], torch.rand(1, 1, 5)]
    for keep in (True, False):
        inputs = table.detach(), 1.3, decoder, grids, [-0.5, 0.5, -0.4, 0.4, 0.003, 1000.0], rays, keep
        torch.library.opcheck(ops.triplane_render.default, inputs, test_utils=checks)
    torch.library.opcheck(ops.nearest_triangle.default, (points, torch.rand(1, 5, 3, 3)), test_utils=checks)
    picture = torch.zeros(5, dtype=torch.int64)
    inputs = torch.rand(3, 3, 5), picture, torch.linspace(-0.9, 0.9, 7), 1, True
    torch.library.opcheck(ops.rasterize.default, inputs, test_utils=checks)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc to compile the CUDA sources")
@pytest.mark.parametrize("source", sorted(backend.SOURCES.glob("*.cu")), ids=lambda path: path.name)
def test_cuda_sources_compile(source: Path, tmp_path: Path) -> None:
    architectures = [f"-gencode=arch=compute_{k},code=sm_{k}" for k in backend.CUDA_ARCHITECTURES]
    command = ["nvcc", *backend.CUDA_FLAGS, *architectures, "-Werror=all-warnings", "-c", source, "-o", tmp_path / "o"]
    process = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert process.returncode == 0, process.stderr
