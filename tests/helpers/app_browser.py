"""The web app in a process of its own, and pages of it in a headless Chromium."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tests.helpers.cli import ROOT

PATIENCE_MS = 240_000
"""For a busy machine; an idle one needs a hundredth of it."""
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def missing() -> str | None:
    """Say what the tests in a browser need and this machine lacks, None if nothing."""
    if find_spec("gradio") is None:
        return "gradio is not installed (pip install 'portrait4d[app]')"
    if find_spec("playwright") is None:
        return "playwright is not installed (pip install playwright)"
    return None if _browser() else "no Chromium on this machine (apt-get install chromium)"


def _browser() -> str | None:
    return next((path for name in _CHROMIUM if (path := shutil.which(name))), None)


@dataclass
class RunningApp:
    """An app that serves.

    Attributes:
        url: of its page, with a slash at the end.
        temporary: the folder that it takes for the system's temporary one.
        process: it.
        requests: addresses that pages asked for.
    """

    url: str
    temporary: Path
    process: subprocess.Popen
    requests: list[str] = field(default_factory=list)

    def files(self, *folders: str) -> list[Path]:
        """Return the files in these folders of its workspace, all if none is named."""
        (workspace,) = self.temporary.glob("portrait4d-app-*")
        places = [workspace / folder for folder in folders] or [workspace]
        return [path for place in places for path in place.rglob("*") if path.is_file()]

    def memory_bytes(self) -> int:
        """Return how much memory its process holds."""
        kilobytes = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(kilobytes[1]) * 1024


@contextmanager
def running_app(temporary: Path, *options: object) -> Iterator[RunningApp]:
    """Start the app on a free port, wait until it serves, and end it as Ctrl-C does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "portrait4d/app.py", "--port", port, "--device", "cpu", *options]
    log = temporary / "app.log"
    with log.open("w") as output:
        environment = os.environ | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen([*map(str, command)], stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while "Portrait4D is at" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield RunningApp(f"http://127.0.0.1:{port}/", temporary, process)
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def browser() -> Iterator[object]:
    """Start a headless Chromium, a playwright `Browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_browser(), args=_FLAGS)
        yield started
        started.close()


@contextmanager
def open_page(started: object, app: RunningApp, width: int = 1280, height: int = 800) -> Iterator[object]:
    """Open the app's page for a visitor of its own, and wait until it can be used."""
    context = started.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("request", lambda request: app.requests.append(request.url))
    page.goto(app.url)
    page.wait_for_selector("#faces input")
    yield page
    context.close()


def choose_tab(page: object, name: str) -> None:
    """Show a tab."""
    page.get_by_role("tab", name=name, exact=True).click()
