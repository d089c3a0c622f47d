"""Long films need no more memory than short ones."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "helpers/run_long_animation.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_the_film(tmp_path: Path) -> None:
    for _ in range(2):  # makes the film, then animates by it in a process of its own
        process = subprocess.run([sys.executable, SCRIPT, tmp_path, "2000"], capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
    (early, early_mib), (late, late_mib) = (line.split() for line in process.stdout.splitlines())
    assert (early, late) == ("100", "2000")
    assert float(late_mib) <= 1.1 * float(early_mib)
