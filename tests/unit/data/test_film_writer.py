"""Films with sound, times and opacity: what goes in comes out."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from portrait4d.data.film_writer import FilmSettings, FilmWriter
from portrait4d.data.video_io import read_facts
from portrait4d.files.errors import InputFileError
from tests.helpers.films import TONE_HZ, loudest_hz, read_sound, read_times, write_film

RATE = Fraction(25)


def grey(count: int, side: int = 32) -> list[np.ndarray]:
    return [np.full((side, side, 3), 40 + 3 * k, np.uint8) for k in range(count)]


def write(path: Path, settings: FilmSettings, frames: int = 50) -> FilmWriter:
    with FilmWriter(path, settings) as writer:
        for k in range(frames):
            writer.write(torch.full((4 if settings.alpha else 3, 32, 32), -0.9 + 0.03 * k))
    return writer


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_sound_that_fits_is_copied_to_the_byte(tmp_path: Path) -> None:
    write_film(tmp_path / "in.mp4", grey(50), sound="aac")
    writer = write(tmp_path / "out.mp4", FilmSettings(RATE, sound=tmp_path / "in.mp4"))
    assert writer.sound_codec == "aac" and writer.sound_problem is None
    assert packets(tmp_path / "out.mp4") == packets(tmp_path / "in.mp4")
    assert read_facts(tmp_path / "out.mp4").has_sound


@pytest.mark.parametrize(("suffix", "codec", "kept"), [(".mp4", "pcm_s16le", "aac"), (".webm", "aac", "libopus")])
def test_sound_that_does_not_fit_is_encoded_again(tmp_path: Path, suffix: str, codec: str, kept: str) -> None:
    source = tmp_path / "in.mkv"
    write_film(source, grey(50), sound=codec)
    writer = write(tmp_path / f"out{suffix}", FilmSettings(RATE, sound=source))
    assert writer.sound_codec == kept
    _, samples, rate = read_sound(tmp_path / f"out{suffix}")
    assert len(samples) / rate == pytest.approx(2.0, abs=0.1)
    assert loudest_hz(samples, rate) == pytest.approx(TONE_HZ, abs=2)


def test_sound_ends_with_the_pictures(tmp_path: Path) -> None:
    write_film(tmp_path / "in.mp4", grey(50), sound="aac")
    write(tmp_path / "out.mp4", FilmSettings(RATE, sound=tmp_path / "in.mp4"), frames=25)
    _, samples, rate = read_sound(tmp_path / "out.mp4")
    assert len(samples) / rate == pytest.approx(1.0, abs=0.1)


def test_times_are_kept(tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 30), Fraction(1, 10), Fraction(1, 2)]
    with FilmWriter(tmp_path / "a.mp4", FilmSettings(RATE)) as writer:
        for time in times:
            writer.write(torch.zeros(3, 16, 16), time)
    assert read_times(tmp_path / "a.mp4") == pytest.approx([float(time) for time in times], abs=1e-3)


@pytest.mark.parametrize("suffix", [".mov", ".webm"])
def test_opacity_survives(tmp_path: Path, suffix: str) -> None:
    frame = torch.full((4, 32, 32), -1.0)
    frame[0], frame[3, :, 16:] = 1.0, 1.0
    with FilmWriter(tmp_path / f"a{suffix}", FilmSettings(RATE, alpha=True)) as writer:
        writer.write(frame)
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        stream = container.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9", "r") if suffix == ".webm" else stream.codec_context
        pictures = [picture for packet in container.demux(stream) for picture in decoder.decode(packet)]
        pictures += decoder.decode(None) if not pictures else []
    rows = pictures[0].to_ndarray(format="rgba").astype(int)
    assert rows[:, :12, 3].max() < 8 and rows[:, 20:, 3].min() > 247
    assert abs(rows[16, 24] - [255, 0, 0, 255]).max() < 8


def test_opacity_needs_a_format_that_has_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: expected \.mov or \.webm for a film with opacity, got 'a.mp4'"):
        FilmWriter(tmp_path / "a.mp4", FilmSettings(RATE, alpha=True))


def test_a_film_without_sound_is_named(tmp_path: Path) -> None:
    write_film(tmp_path / "in.mp4", grey(3))
    with pytest.raises(InputFileError, match="has no sound"):
        write(tmp_path / "out.mp4", FilmSettings(RATE, sound=tmp_path / "in.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_errors_leave_nothing_behind(tmp_path: Path) -> None:
    write_film(tmp_path / "in.mp4", grey(50), sound="aac")
    with (
        pytest.raises(KeyboardInterrupt),
        FilmWriter(tmp_path / "out.mp4", FilmSettings(RATE, sound=tmp_path / "in.mp4")) as writer,
    ):
        writer.write(torch.zeros(3, 32, 32))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
