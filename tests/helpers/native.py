"""The native operations for tests: built once if the machine can, else the test is skipped and says why."""

import os
import shutil

import pytest
import torch
from torch import Tensor

from portrait4d.ops import backend

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
    ),
]


def require_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the native operations serve during a test, whatever PORTRAIT4D_NATIVE was at the first use; 0 skips it."""
    if os.environ.get("PORTRAIT4D_NATIVE") == "0":
        pytest.skip("PORTRAIT4D_NATIVE=0: native operations are switched off")
    if not backend.library_path().is_file():
        for tool in (os.environ.get("CXX", "c++"), "ninja"):
            if shutil.which(tool) is None:
                pytest.skip(f"native operations are not built, and there is no {tool} to build them")
    assert backend.build_native(), "the native operations do not compile"
    monkeypatch.setattr(backend, "load_native", lambda: True)


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Return the largest error relative to the largest expected value; NaN must stand at the same places.

    The tensors may be on different devices: results of a GPU are compared with the PyTorch version on the CPU, which
    sums in double precision where that of a GPU does not.
    """
    result, expected = result.cpu(), expected.cpu()
    assert result.shape == expected.shape and result.dtype == expected.dtype
    assert torch.equal(result.isnan(), expected.isnan())
    known = ~expected.isnan()
    if not known.any():
        return 0.0
    result, expected = result[known].double(), expected[known].double()
    return ((result - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
