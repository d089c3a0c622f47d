"""The web app as visitors use it: in a real browser, with what they should not send, two at a time."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from portrait4d.data.image_io import save_video
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.checkpoints import save_genhead
from portrait4d.webapp.state import bundled_portraits
from tests.helpers.app_browser import PATIENCE_MS, RunningApp, browser, choose_tab, missing, open_page, running_app
from tests.helpers.cli import run_script
from tests.helpers.hostile_files import png_header
from tests.helpers.tiny_genhead import build_tiny_genhead

SCRIPT = "portrait4d/app.py"
YAW = "#slider-yaw_deg input[type=range]"
in_browser = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture(scope="module")
def app(tiny_network: Path, ellipsoid: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("app")
    genhead = folder / "genhead.safetensors"
    save_genhead(genhead, build_tiny_genhead(ellipsoid))
    (folder / "tmp").mkdir()
    flags = ("--network", tiny_network, "--genhead", genhead, "--max-seconds", 3, "--max-megabytes", 2, "--jobs", 2)
    with running_app(folder / "tmp", *flags) as started:
        yield started
    assert not list((folder / "tmp").glob("portrait4d-app-*"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with browser() as started:
        yield started


def test_help_is_quick_and_says_what_is_limited() -> None:
    process = run_script(SCRIPT, "--help")
    assert process.returncode == 0
    for flag in ["port", "host", "network", "genhead", "max-seconds", "max-megabytes", "jobs", "device"]:
        assert f"--{flag}" in process.stdout
    assert "127.0.0.1" in process.stdout
    heavy = run_script("tests/helpers/heavy_imports.py", "portrait4d.app")
    assert heavy.stdout.strip() == "", heavy.stdout + heavy.stderr


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "gradio.py").write_text("raise ImportError('blocked')")
    environment = {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    for flags, words in (
        (("--network", "none.safetensors"), "none.safetensors: no such file"),
        ((), "portrait4d[app]"),
    ):
        process = run_script(SCRIPT, *flags, env=environment)
        assert process.returncode == 1 and words in process.stderr, process.stderr
        assert "Traceback" not in process.stderr
    assert not list(tmp_path.glob("portrait4d-app-*"))


@in_browser
def test_a_visit(app: RunningApp, chromium: object, tmp_path: Path) -> None:
    with open_page(chromium, app) as page:
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        page.locator("#faces input").nth(2).check(force=True)
        page.click("#make-film")
        page.wait_for_selector("#film video")
        page.wait_for_function("document.querySelector('#film video').duration > 1")
        save_download(page, "#film a", tmp_path / "film.mp4")
        assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"

        choose_tab(page, "Explore")
        name = list(bundled_portraits())[2]
        before = wait_for_view(page, name, 0)
        page.locator(YAW).press("ArrowRight")
        assert wait_for_view(page, name, 1) != before
        page.get_by_label("Depth", exact=True).check()
        page.wait_for_function("document.querySelectorAll('#view img').length == 2")

        choose_tab(page, "3D")
        page.get_by_label("Coarse", exact=True).check()
        page.click("#make-mesh")
        page.wait_for_selector("#mesh-links a")
        save_download(page, "#mesh-links a", tmp_path / "head.glb")
        assert (tmp_path / "head.glb").read_bytes()[:4] == b"glTF"
        page.wait_for_selector("#mesh canvas")

        choose_tab(page, "Sample")
        page.click("#sample")
        page.wait_for_selector("#heads img")
        assert page.locator("#heads img").count() == 6
    assert app.requests and not [url for url in app.requests if not url.startswith((app.url, "data:", "blob:"))]


@in_browser
def test_a_phone_shows_one_column(app: RunningApp, chromium: object) -> None:
    with open_page(chromium, app, 390, 844) as page:
        for tab in ("Reenact", "Explore", "3D", "Sample"):
            choose_tab(page, tab)
            assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), tab


@in_browser
def test_the_keyboard_reaches_everything(app: RunningApp, chromium: object) -> None:
    with open_page(chromium, app) as page:
        page.locator("#faces input").nth(1).focus()
        page.keyboard.press("Space")
        assert page.locator("#faces input").nth(1).is_checked()
        wanted = {"photo", "clip", "clip-upload", "make-film"}
        for _ in range(50):
            page.keyboard.press("Tab")
            wanted.discard(page.evaluate("(document.activeElement.closest('[id]') || document.activeElement).id"))
        assert not wanted


@in_browser
def test_hostile_uploads(app: RunningApp, chromium: object, tmp_path: Path) -> None:
    files = write_hostile(tmp_path)
    offered = app.files("uploads", "jobs")  # meshes that other tests' pages offer for download
    with open_page(chromium, app) as page:
        for field, message in (("#clip-upload", "#clip-message"), ("#photo", "#photo-message")):
            for path, words in files.items():
                page.set_input_files(f"{field} input[type=file]", path)
                page.wait_for_selector(f"{message} [role=alert]:has-text('{words}')")
                assert app.files("uploads", "jobs") == offered, path.name
        page.set_input_files("#clip-upload input[type=file]", write_large(tmp_path))
        page.wait_for_selector("text=/exceeded|too large|size/i")
        assert not app.files("jobs")
        choose_tab(page, "Explore")
        page.wait_for_selector("#view img")
    assert app.process.poll() is None


def write_hostile(folder: Path) -> dict[Path, str]:
    """Write files that nobody should send; return what the page says of each, never the same of two in a row."""
    contents = {
        "text.mp4": (b"no film at all\n" * 99, "neither"),
        "empty.jpg": (b"", "empty"),
        "bomb.png": (png_header(60000, 60000), "far too large"),
        "pixel.png": (png_header(1, 1), "too few"),
        "wide.png": (png_header(10000, 100), "10000 x 100"),
        "header.mp4": (b"\xff\xff\xff\xffftypisom" + bytes(99), "not a film"),
        "<img src=x onerror=alert(1)>.zip": (b"PK\x03\x04" + bytes(99), "neither"),
        "nothing.mp4": (b"", "empty"),
        "list.m3u8": (b"#EXTM3U\nfile:///etc/passwd\n", "neither"),
    }
    found = {}
    for name, (data, words) in contents.items():
        (folder / name).write_bytes(data)
        found[folder / name] = words
    save_video(folder / "hour.mp4", [torch.zeros(3, 64, 64)] * 36, 0.01)
    return found | {folder / "hour.mp4": "60 minutes"}


def write_large(folder: Path) -> Path:
    path = folder / "large.mp4"
    path.write_bytes(bytes(2_300_000))
    return path


@in_browser
def test_requests_past_the_page(app: RunningApp) -> None:
    def status(path: str, **headers: str) -> int:
        request = urllib.request.Request(app.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert status("") == 200 and status("", Host="evil.example") == 421
    for path in (
        "gradio_api/file=/etc/passwd",
        f"gradio_api/file={Path(__file__)}",
        "results/../jobs/x",
        "results/x/y",
    ):
        assert status(path) in (403, 404), path
    body = json.dumps({"data": ["a" * 4_000_000], "fn_index": 0, "session_hash": "x"}).encode()
    request = urllib.request.Request(app.url + "gradio_api/queue/join", body, {"content-type": "application/json"})
    with pytest.raises((urllib.error.HTTPError, urllib.error.URLError)):
        urllib.request.urlopen(request, timeout=60)


@in_browser
def test_two_visitors_see_their_own(app: RunningApp, chromium: object) -> None:
    visit_together(app, chromium, rounds=3)


@in_browser
@pytest.mark.slow
def test_two_visitors_for_long_leave_no_memory_behind(app: RunningApp, chromium: object) -> None:
    visit_together(app, chromium, rounds=10)
    before = app.memory_bytes()
    visit_together(app, chromium, rounds=60)
    assert app.memory_bytes() < 1.1 * before + 50e6


def visit_together(app: RunningApp, chromium: object, rounds: int) -> None:
    """Let two visitors turn heads of different persons at once; each must see what one alone sees."""
    names = list(bundled_portraits())
    with open_page(chromium, app) as one, open_page(chromium, app) as two:
        pages = {one: names[0], two: names[5]}
        alone: dict[tuple[str, int], str] = {}
        for page, name in pages.items():
            page.locator("#faces input").nth(names.index(name)).check(force=True)
            choose_tab(page, "Explore")
            wait_for_view(page, name, 0)
            for yaw in (1, 0):
                page.locator(YAW).press("ArrowRight" if yaw else "ArrowLeft")
                alone[name, yaw] = wait_for_view(page, name, yaw)
        assert len(set(alone.values())) == 4
        for yaw in (1, 0) * rounds:
            for page in pages:
                page.locator(YAW).press("ArrowRight" if yaw else "ArrowLeft")
            for page, name in pages.items():
                assert wait_for_view(page, name, yaw) == alone[name, yaw]


def wait_for_view(page: object, name: str, yaw_deg: int) -> str:
    """Wait until the view shows a person from there, and return the picture."""
    return page.get_attribute(f"#view [data-shown='{name} {yaw_deg}'] img", "src")


def save_download(page: object, link: str, path: Path) -> None:
    with page.expect_download(timeout=PATIENCE_MS) as waiting:
        page.locator(link).first.click()
    waiting.value.save_as(path)
