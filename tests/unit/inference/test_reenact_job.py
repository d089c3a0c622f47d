"""The folder job reads ahead and writes behind in threads of their own, in order, and stops when it cannot write.

Its films and grids show this run's results and no others.
"""

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.image_io import load_image, save_image
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


def test_a_second_run_shows_nothing_of_the_first(config: ReenactConfig) -> None:
    config = replace(config, grid=True, video=True)
    assert run_reenactment(config).written == 3
    before = load_image(config.outdir / "grid.jpg")
    (config.tardir / "flame_optim_params" / "c.npy").unlink()
    report = run_reenactment(config)
    assert report.written == 2 and len(report.failures) == 1
    results = [config.outdir / "a" / "frames" / f"{number:05d}.png" for number in range(3)]
    assert [path.exists() for path in results] == [True, False, True]
    assert not (config.outdir / "a" / "00001.jpg").exists()
    after = load_image(config.outdir / "grid.jpg")
    assert after.shape == before.shape == (3, 2 * 194 + 2, 4 * 194 + 2)
    row = slice(194 + 10, 2 * 194 - 10)
    assert after[:, row, 2 * 194 + 10 : 3 * 194 - 10].max() < -0.9 < before[:, row, 2 * 194 + 10 : 3 * 194 - 10].max()
    torch.testing.assert_close(after[:, row, 194 + 10 : 2 * 194 - 10], before[:, row, 194 + 10 : 2 * 194 - 10])
    with av.open(str(config.outdir / "a.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 2


@pytest.mark.parametrize("pairs", ["all", "zip"])
def test_a_source_that_fails_loses_its_film(config: ReenactConfig, pairs: str) -> None:
    tardir = config.tardir if pairs == "all" else config.srcdir
    config = replace(config, grid=True, video=True, pairs=pairs, tardir=tardir)
    assert not run_reenactment(config).failures
    assert (config.outdir / "a.mp4").exists() and (config.outdir / "grid.jpg").exists()
    (config.srcdir / "flame_optim_params" / "a.npy").unlink()
    assert run_reenactment(config).written == 0
    assert not list((config.outdir / "a" / "frames").iterdir()) and not (config.outdir / "a.mp4").exists()
    assert (config.outdir / "grid.jpg").exists() == (pairs == "all")  # sources and drivers are there to be shown


def test_a_grid_of_many_drivers(config: ReenactConfig) -> None:
    """More columns than a JPEG holds at full size; what there is to show was made before."""
    config, count = replace(config, grid=True, resume=True), 340
    pictures, folder = config.tardir / "align_images", config.outdir / "a"
    save_image(folder / "frames" / "00000.png", torch.ones(3, 16, 16))
    for number in range(count):
        if number >= len("bcd"):
            shutil.copy(pictures / "b.jpg", pictures / f"{number:05d}.jpg")
            shutil.copy(
                config.tardir / "flame_optim_params/b.npy", config.tardir / f"flame_optim_params/{number:05d}.npy"
            )
        (folder / f"{number:05d}.jpg").touch()
        if number:
            shutil.copy(folder / "frames" / "00000.png", folder / "frames" / f"{number:05d}.png")
    assert run_reenactment(config).skipped == count
    step = (65500 - 2) // (count + 1)
    assert load_image(config.outdir / "grid.jpg").shape == (3, 2 * step + 2, (count + 1) * step + 2)


@pytest.mark.parametrize("value", [0.0, 1e30])
def test_a_nonsensical_label_stops_only_its_pairs(config: ReenactConfig, value: float) -> None:
    np.save(config.tardir / "flame_optim_params" / "b.npy", np.full(437, value, np.float32))
    report = run_reenactment(config)
    assert report.written == 2
    assert [Path(key).stem for key in report.failures] == ["b"]
    assert "b.npy: " in report.summary(config.outdir)
