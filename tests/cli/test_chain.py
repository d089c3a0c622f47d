"""docs/chain.sh, the whole chain from made-up portraits to reenactment and metrics, in its smallest form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli import ROOT


@pytest.mark.slow
def test_the_whole_chain_in_small(tmp_path: Path) -> None:
    small = {"OUT": str(tmp_path), "IDENTITIES": "4", "FRAMES": "3", "KIMG": "0.004", "PYTHON": sys.executable}
    process = subprocess.run(
        ["sh", str(ROOT / "docs/chain.sh")], env=os.environ | small, capture_output=True, text=True, timeout=500
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout.rstrip().endswith(f"== done: {tmp_path}")
    assert '"metric": "fid8"' in process.stdout
    assert len(list((tmp_path / "reenacted").glob("0*/*.jpg"))) == 4 * 3
    assert len(list((tmp_path / "heads").glob("*.png"))) == 2 * 2
    measured = json.loads((tmp_path / "metrics/summary.json").read_text())
    assert measured["tasks"]["self"]["frames"] == 2 and measured["failure_count"] == 0
