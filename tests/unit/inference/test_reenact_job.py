"""The folder job reads ahead and writes behind in threads of their own, in order, and stops when it cannot write."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from portrait4d.config.experiments import ReenactConfig
from portrait4d.inference import reenact_job
from portrait4d.inference.reenact import Reenactor
from portrait4d.inference.reenact_job import run_reenactment


@pytest.fixture
def config(tiny_network: Path, prepared_folder: Callable[..., Path], tmp_path: Path) -> ReenactConfig:
    sources, drivers = prepared_folder("a", folder="sources"), prepared_folder("b", "c", "d", folder="drivers")
    return ReenactConfig(tiny_network, sources, drivers, tmp_path / "out", render_size=16)


def test_reading_and_writing_are_done_by_other_threads(config: ReenactConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, set[int]] = {}

    def watch(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def watched(*arguments: object, **options: object) -> object:
            threads.setdefault(name, set()).add(threading.get_ident())
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    watch(Reenactor, "render")
    watch(Reenactor, "load_frame")
    watch(reenact_job, "save_image")
    report = run_reenactment(config)
    assert report.written == 3 and not report.failures
    here = threading.get_ident()
    assert threads["render"] == {here}
    assert len(threads["load_frame"]) == 2 and here in threads["load_frame"]  # the source, then the drivers
    assert len(threads["save_image"]) == 1 and here not in threads["save_image"]
    entries = [json.loads(line) for line in (config.outdir / "results.jsonl").read_text().splitlines()]
    assert [(entry["driver"], entry["index"]) for entry in entries] == [("b", 0), ("c", 1), ("d", 2)]
    assert all((config.outdir / entry["strip"]).is_file() for entry in entries)


def test_what_cannot_be_written_ends_the_job(config: ReenactConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_image(path: Path, image: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(reenact_job, "save_image", save_image)
    with pytest.raises(OSError, match="No space left"):
        run_reenactment(config)
    assert not (config.outdir / "results.jsonl").exists()
