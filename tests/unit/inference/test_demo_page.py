"""The demonstration's page: complete, self-contained, with everything in it that was made, and nothing that was not."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from portrait4d.inference.demo_films import DemoFrame
from portrait4d.inference.demo_page import build_page
from portrait4d.inference.demo_results import Closeness, DemoResults, Film, Mesh, Orbit, Pair, measure

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Collects what a page links to, and makes sure that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    return checker


def results() -> DemoResults:
    closeness = Closeness(25.25, 26.5, 17.75, 18.5)
    pairs = [
        Pair(person, clip, Film(Path(f"films/{person}{clip}.mp4"), Path(f"films/{person}{clip}.jpg")),
             Path(f"strips/{person}{clip}.jpg"), closeness)
        for person in (3, 9) for clip in (0, 1)
    ]  # fmt: skip
    orbit = Orbit(Film(Path("films/orbit.mp4"), Path("films/orbit.jpg")), closeness)
    return DemoResults(
        1_480_000,
        128,
        [0.1, 0.1, 0.4],
        pairs,
        orbit,
        Mesh(Path("head.glb"), Path("head.jpg"), 1234, 2345),
        Path("heads.jpg"),
    )


def test_everything_that_was_made_is_on_the_page_and_nothing_comes_from_elsewhere() -> None:
    shown = results()
    page = build_page(shown)
    checker = check(page)
    films = [shown.orbit.film, *(pair.film for pair in shown.pairs)]
    wanted = {path.as_posix() for film in films for path in (film.path, film.poster)}
    wanted |= {pair.strip.as_posix() for pair in shown.pairs} | {"head.glb", "head.jpg", "heads.jpg"}
    assert set(checker.links) == wanted
    assert "script" not in checker.names and "//" not in page.replace("<!--", "")
    assert "prefers-color-scheme" in page and 'name="viewport"' in page
    for figure in ("1.48 M", "100 ms", "25.2&nbsp;dB", "17.8&nbsp;dB", "1,234", "2,345", "128 × 128"):
        assert figure in page, figure


def test_what_could_not_be_made_is_named_and_left_out() -> None:
    page = build_page(DemoResults(1000, 64, failures={"mesh": "no mesh: <nothing> there"}))
    checker = check(page)
    assert not checker.links and "video" not in checker.names
    assert "mesh: no mesh: &lt;nothing&gt; there" in page
    assert not re.search(r"<h2>(Reenactment|From all sides)", page)
    assert "could not be made" not in build_page(results())


def test_summary_says_where_the_page_is_and_how_good_it_was() -> None:
    shown = results()
    shown.failures["mesh"] = "none"
    text = shown.summary(Path("demo"))
    assert "100 ms per frame" in text and "demo/index.html" in text and "mesh could not be made: none" in text
    assert "25.2 dB" in text and "17.8 dB" in text


def test_closeness_is_that_of_the_result_and_of_the_source() -> None:
    size = 8
    truth, half = torch.zeros(3, size, size), torch.zeros(1, size, size)
    half[..., :4] = 1
    result, source = truth.clone(), truth + 0.2
    result[..., :4] = 0.02  # in the mask 40 dB, outside none: 3 dB better in all
    frame = DemoFrame(source, source, result, truth, truth)
    found = measure([frame, frame], [half, half])
    assert found.head == pytest.approx(40, abs=1e-3) and found.whole == pytest.approx(43.01, abs=1e-2)
    assert found.copy_head == pytest.approx(20, abs=1e-3) and found.copy_whole == pytest.approx(20, abs=1e-3)
