"""Run scripts as a user does: in a subprocess, from any folder."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BROKEN_OFF = "tests/helpers/run_broken_off.py"
"""Script that runs another, which a signal reaches at an exact place."""


def run_script(
    script: str, *arguments: object, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python script arguments...` and return the finished process with its output as text."""
    import os

    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=300,
    )
