"""Animations with a tiny network and a stub tracker: films in, films out."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from portrait4d.config.animation import AnimateConfig
from portrait4d.data.image_io import save_video
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.inference.animate_job import OpenTrackers, run_animation
from tests.helpers.films import TONE_HZ, loudest_hz, read_sound, read_times, write_film
from tests.helpers.stub_tracker import StubTrackers, grey_picture
from tests.unit.inference.conftest import LEVELS


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]


def drive(animation: AnimateConfig, levels: tuple[int, ...], **film: object) -> AnimateConfig:
    """Write another driving film."""
    write_film(Path(animation.driving), [grey_picture(level) for level in levels], **film)
    return animation


def test_a_film_with_its_sound(animation: AnimateConfig) -> None:
    told: list[tuple[int, int | None]] = []
    report = run_animation(animation, lambda *done: told.append(done), StubTrackers())
    assert (report.frames, report.missing, report.size, report.sound) == (5, 0, (64, 64), "aac")
    assert told == [(k + 1, 5) for k in range(5)]
    assert read_times(animation.out) == pytest.approx([k / 25 for k in range(5)], abs=1e-3)
    _, samples, rate = read_sound(animation.out)
    assert loudest_hz(samples, rate) == pytest.approx(TONE_HZ, abs=5)
    frames = decode(animation.out)
    assert abs(frames[0] - frames[2]).mean() > 1  # another turn
    assert abs(frames[1] - frames[3]).mean() < 1  # the same one
    assert "5 frames of 64 x 64 pixels, sound aac" in report.summary()
    assert not run_animation(replace(animation, audio=False), None, StubTrackers()).sound


def test_films_are_turned_as_players_turn_them(animation: AnimateConfig) -> None:
    drive(animation, LEVELS, turn_deg=90)
    report = run_animation(replace(animation, paste_back="driving"), None, StubTrackers())
    assert report.size == (96, 128)


def test_varying_frame_rates(animation: AnimateConfig) -> None:
    times = [Fraction(0), Fraction(1, 30), Fraction(1, 10), Fraction(3, 10)]
    drive(animation, LEVELS[:4], times_s=times)
    run_animation(animation, None, StubTrackers())
    assert read_times(animation.out) == pytest.approx([float(time) for time in times], abs=1e-3)
    report = run_animation(replace(animation, fps=10.0), None, StubTrackers())
    assert report.frames == 4
    assert read_times(animation.out) == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-3)
    frames = decode(animation.out)
    assert abs(frames[1] - frames[2]).mean() < 1 < abs(frames[2] - frames[3]).mean()


@pytest.mark.parametrize("missing", ["hold", "fade"])
def test_frames_without_a_face(animation: AnimateConfig, missing: str) -> None:
    drive(animation, (10, 10, 90, 90, *[10] * 8), times_s=Fraction(1, 10))
    report = run_animation(replace(animation, missing=missing), None, StubTrackers())
    assert (report.frames, report.missing) == (12, 10)
    assert "10 frames without a face" in report.summary()
    first, last_seen, last = (decode(animation.out)[k] for k in (0, 3, -1))
    between = abs(last_seen - first).mean()  # the source's own pose and the driver's
    assert between > 4
    assert (abs(last - last_seen).mean() < 0.5 * between) == (missing == "hold")
    assert (abs(last - first).mean() < 0.5 * between) == (missing == "fade")


def test_no_face_at_all_is_an_error_and_leaves_the_old_film(animation: AnimateConfig) -> None:
    animation.out.write_bytes(b"old")
    with pytest.raises(UserError, match="no face found in 3 frames; take a brighter picture"):
        run_animation(drive(animation, (10, 10, 10)), None, StubTrackers())
    assert animation.out.read_bytes() == b"old"
    assert not list(animation.out.parent.glob(".tmp*"))


@pytest.mark.parametrize("content", [b"", b"not a film at all\n" * 40])
def test_files_that_are_no_films(animation: AnimateConfig, content: bytes) -> None:
    Path(animation.driving).write_bytes(content)
    with pytest.raises(InputFileError, match="in.mp4: not a readable film"):
        run_animation(animation, None, StubTrackers())
    assert not animation.out.exists()


def test_a_film_cut_short_gives_its_beginning(animation: AnimateConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    save_video(animation.driving, (torch.rand(3, 32, 32, generator=generator) for _ in range(40)), 25)
    data = Path(animation.driving).read_bytes()
    Path(animation.driving).write_bytes(data[: len(data) * 6 // 10])
    report = run_animation(animation, None, StubTrackers())
    assert 0 < report.frames < 40 and "cut short" in report.failures[0]
    assert len(decode(animation.out)) == report.frames


def test_stopping_leaves_the_old_film(animation: AnimateConfig) -> None:
    animation.out.write_bytes(b"old")

    def stop(done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_animation(replace(animation, save_template=animation.out.with_suffix(".safetensors")), stop, StubTrackers())
    assert animation.out.read_bytes() == b"old"
    assert {path.name for path in animation.out.parent.iterdir()} == {"photo.png", "in.mp4", "out.mp4", "cache"}


def test_templates_drive_as_the_film_did(animation: AnimateConfig) -> None:
    template = animation.out.with_name("t.safetensors")
    drive(animation, (10, 90, 120, 150, 10, 10), times_s=Fraction(1, 20))
    run_animation(replace(animation, save_template=template, missing="fade"), None, StubTrackers())
    frames = decode(animation.out)
    report = run_animation(replace(animation, driving=str(template), missing="fade"), None, StubTrackers())
    assert (report.frames, report.missing) == (6, 3)
    np.testing.assert_allclose(decode(animation.out), frames, atol=2)
    assert template.stat().st_size < 6 * 688 * 4 + 1000


def test_stabilising_lowers_jitter_at_little_loss(animation: AnimateConfig) -> None:
    drive(animation, tuple(int(128 + 60 * np.sin(k / 10)) for k in range(30)))
    reports = {
        strength: run_animation(replace(animation, stabilise=strength), None, StubTrackers(noise_rad=0.02))
        for strength in ("off", "light", "strong")
    }
    for name in ("head_deg", "motion"):
        before, same = reports["off"].jitter[name]
        light, strong = (reports[strength].jitter[name][1] for strength in ("light", "strong"))
        assert before == same and strong < light < 0.7 * before
    assert reports["off"].expression_kept == 1 and 0.9 < reports["light"].expression_kept < 1.1
    assert "jitter before -> after" in reports["light"].summary()


def test_photos_are_tracked_once(animation: AnimateConfig) -> None:
    trackers = StubTrackers()
    run_animation(animation, None, trackers)
    assert trackers.made == 2  # photo and film
    run_animation(animation, None, trackers)
    assert trackers.made == 3
    next(animation.cache.iterdir()).write_bytes(b"damaged")
    run_animation(animation, None, trackers)
    assert trackers.made == 5


def test_photos_are_not_kept_where_nothing_can_be_written(animation: AnimateConfig) -> None:
    trackers, cache = StubTrackers(), animation.source[0] / "cache"  # within a file
    for made in (2, 4):
        assert run_animation(replace(animation, cache=cache), None, trackers).frames == 5
        assert trackers.made == made


def test_what_open_trackers_find_is_kept_for_one_size_of_crops() -> None:
    def name(size: int) -> str:
        config = SimpleNamespace(image_resolution=size)
        return OpenTrackers(SimpleNamespace(network=SimpleNamespace(config=config))).name

    assert name(128) == name(128) != name(256)


def test_prepared_folders_need_no_tracker(animation: AnimateConfig, prepared_folder: Callable[..., Path]) -> None:
    folder, trackers = prepared_folder("a", "b", "c"), StubTrackers()
    report = run_animation(replace(animation, source=(folder,), driving=str(folder), layout="grid"), None, trackers)
    assert (report.frames, report.size, trackers.made) == (3, (128, 128), 0)
