"""Films: numbers, colours, the eight ways to hold a camera, and files that are no films."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.data.image_io import save_video, to_uint8
from portrait4d.data.video_io import count_frames, measure_film, read_frames
from portrait4d.files.errors import InputFileError

HEIGHT, WIDTH = 32, 48


def corners() -> Tensor:
    """Return a dark picture with a white, a red and a blue corner."""
    image = torch.full((3, HEIGHT, WIDTH), -1.0)
    image[:, :16, :24] = 1
    image[0, 16:, :24] = 1
    image[2, :16, 24:] = 1
    return image


def write_turned(
    path: Path, degrees: int, hflip: bool = False, vflip: bool = False, pixel_aspect: Fraction = Fraction(1)
) -> None:
    rows = np.ascontiguousarray(to_uint8(corners()).numpy().transpose(1, 2, 0))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rows, format="rgb24")))
        container.mux(stream.encode(None))


def test_frames_are_numbered_and_in_order(tmp_path: Path) -> None:
    levels = torch.linspace(-0.9, 0.9, 30)
    save_video(tmp_path / "a.mp4", (torch.full((3, HEIGHT, WIDTH), level.item()) for level in levels), 25)
    assert count_frames(tmp_path / "a.mp4") == 30
    frames = [(frame.number, frame.is_damaged, frame.load()) for frame in read_frames(tmp_path / "a.mp4")]
    assert [number for number, _, _ in frames] == list(range(30))
    assert not any(damaged for _, damaged, _ in frames)
    for (_, _, image), level in zip(frames, levels, strict=True):
        assert image.shape == (3, HEIGHT, WIDTH) and image.dtype == torch.float32
        assert (image - level).abs().max() < 0.03


def test_colours_are_as_written(tmp_path: Path) -> None:
    save_video(tmp_path / "a.mp4", [corners()], 25)
    image = next(read_frames(tmp_path / "a.mp4")).load()
    for y, x, colour in ((4, 4, (1, 1, 1)), (-4, 4, (1, -1, -1)), (4, -4, (-1, -1, 1)), (-4, -4, (-1, -1, -1))):
        assert (image[:, y, x] - torch.tensor(colour)).abs().max() < 0.05


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_frames_are_turned_as_players_turn_them(tmp_path: Path, degrees: int, flips: tuple[bool, bool]) -> None:
    write_turned(tmp_path / "a.mp4", degrees, *flips)
    expected = torch.rot90(corners(), degrees // 90, (1, 2))  # counter-clockwise, then mirrored
    for axis, flipped in zip((2, 1), flips, strict=True):
        expected = expected.flip(axis) if flipped else expected
    image = next(read_frames(tmp_path / "a.mp4")).load()
    assert image.shape == expected.shape
    assert (image - expected).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("pixel_aspect", "size"),
    [(Fraction(2), (32, 96)), (Fraction(16, 15), (32, 51)), (Fraction(1, 2), (64, 48)), (Fraction(9), (32, 48))],
)
@pytest.mark.parametrize("degrees", [0, 90])
def test_pixels_become_square(tmp_path: Path, pixel_aspect: Fraction, size: tuple[int, int], degrees: int) -> None:
    write_turned(tmp_path / "a.mp4", degrees, pixel_aspect=pixel_aspect)
    stretched = torch.nn.functional.interpolate(corners()[None], size, mode="bilinear")[0]
    expected = torch.rot90(stretched, degrees // 90, (1, 2))
    frame = next(read_frames(tmp_path / "a.mp4"))
    assert frame.load().shape == expected.shape and frame.load_rows().shape[:2] == expected.shape[1:]
    assert (frame.load() - expected).abs().mean() < 0.06


def test_a_film_cut_short_gives_its_beginning(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    save_video(tmp_path / "a.mp4", (torch.rand(3, HEIGHT, WIDTH, generator=generator) for _ in range(40)), 25)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) * 6 // 10])
    frames = read_frames(tmp_path / "a.mp4")
    numbers = []
    with pytest.raises(InputFileError, match=r"damaged or cut short after \d+ frames"):
        numbers.extend(frame.number for frame in frames)
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "not a readable film"), (b"text " * 100, "not a readable film"), (None, "no such file")],
)
def test_files_that_are_no_films(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    for attempt in (count_frames, lambda path: next(read_frames(path))):
        with pytest.raises(InputFileError, match=problem) as caught:
            attempt(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_sound_alone_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    with pytest.raises(InputFileError, match="no pictures in this file"):
        count_frames(path)


@pytest.mark.parametrize("options", [{}, {"live": "1"}])
def test_films_are_measured_even_if_the_header_is_silent(tmp_path: Path, options: dict[str, str]) -> None:
    path = tmp_path / "film.webm"  # a live one has no length in its header, as what browsers record
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libvpx", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for _ in range(31):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert (container.duration is None) == bool(options)
    found = measure_film(path)
    assert (found.width, found.height) == (64, 48)
    assert found.duration_s == pytest.approx(3.0, abs=0.11)
