"""The golden check in the test suite: on the files in the repository and, where there are photos, on ../shared."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.check import KINDS, check_folder
from tests.golden.comparison import Context

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
SLOW = ("reconstructor-", "genhead-", "losses-recon")


def cases() -> list[pytest.ParameterSet]:
    names = sorted(path.name for pattern in KINDS for path in HERE.glob(pattern))
    return [pytest.param(n, marks=pytest.mark.slow if n.startswith(SLOW) else ()) for n in names]


@pytest.mark.parametrize("name", cases())
def test_recorded_numbers(name: str) -> None:
    results, _ = check_folder(Context(HERE, HERE, SHARED / "real"), [name])
    assert results
    assert not [result.line() for result in results if not result.ok]


@pytest.mark.skipif(not (SHARED / "real").is_dir(), reason="real portraits (../shared/real) are not on this machine")
@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("motion-a.npz", 4),
        ("motion-b.npz", 4),
        ("retinaface-a.npz", 21),
        ("h3r-a.npz", 11),
        ("fan-a.npz", 18),
        ("deep3d-a.npz", 21),
        ("crop-a.npz", 32),
        ("bfm2flame-a.npz", 6),
    ],
)
def test_recorded_numbers_of_photos(name: str, arrays: int) -> None:
    results, _ = check_folder(Context(SHARED / "golden", HERE, SHARED / "real"), [name])
    assert len(results) == arrays
    assert not [result.line() for result in results if not result.ok]


def test_the_script_fails_on_wrong_numbers_and_names_unknown_kinds(tmp_path: Path) -> None:
    import json
    import shutil

    listing = json.loads((HERE / "network-genhead.json").read_text())
    listing["D"]["b4.out.bias"] = [[513], "float32"]
    (tmp_path / "network-genhead.json").write_text(json.dumps(listing))
    shutil.copy(HERE / "network-genhead.pkl", tmp_path)
    (tmp_path / "novelty-x.npz").write_bytes(b"")
    process = subprocess.run(
        [sys.executable, HERE / "check.py", "--golden", tmp_path], capture_output=True, text=True, cwd=tmp_path
    )
    assert process.returncode == 1, process.stderr
    assert "network-genhead.pkl D.listing" in process.stdout and "FAIL" in process.stdout
    assert "novelty-x.npz: kind not known yet" in process.stdout
