"""Drivers as streams of frames."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.config.animation import AnimateConfig
from portrait4d.data.image_io import save_image, save_video
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.files.errors import InputFileError
from portrait4d.inference.driving_sources import DrivingFrame, open_driving, resample, track
from portrait4d.inference.tracking import TrackedFrame
from tests.helpers.stub_tracker import StubTracker, grey_picture


def config(driving: Path) -> AnimateConfig:
    return AnimateConfig((), str(driving), Path("a.mp4"), still_fps=10.0)


def times(*numbers: float) -> list[DrivingFrame]:
    return [DrivingFrame(Fraction(number).limit_denominator(1000), None, None) for number in numbers]


def test_folders_of_pictures_come_in_order(tmp_path: Path) -> None:
    for name, level in (("b.png", 0.5), ("a.jpg", 0.0)):
        save_image(tmp_path / name, torch.full((3, 16, 24), level))
    (tmp_path / "notes.txt").write_text("")
    clip = open_driving(config(tmp_path))
    found = list(clip.frames())
    assert clip.count == 2 and clip.needs_tracker and clip.sound is None
    assert [frame.time_s for frame in found] == [0, Fraction(1, 10)]
    assert [frame.picture.shape for frame in found] == [(16, 24, 3)] * 2
    assert found[0].picture.mean() < found[1].picture.mean()


def test_prepared_folders_bring_their_faces(prepared_folder: Callable[..., Path]) -> None:
    folder = prepared_folder("a", "b")
    clip = open_driving(config(folder))
    assert not clip.needs_tracker
    label = PortraitFolder(folder).items()[1].load_frame_label(simplified=False)
    face = list(clip.frames())[1].face
    np.testing.assert_array_equal(face.label, label)
    np.testing.assert_allclose(face.state.neck_rad, label[425:428])


def test_prepared_folders_without_motion(prepared_folder: Callable[..., Path]) -> None:
    folder = prepared_folder("a", motion=False)
    with pytest.raises(InputFileError, match=r"motion_feats/a.npy: no such file"):
        list(open_driving(config(folder)).frames())
    assert list(open_driving(config(folder), needs_motion=False).frames())[0].face is not None


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no picture in this folder"):
        open_driving(config(tmp_path))
    with pytest.raises(InputFileError, match="no such file"):
        open_driving(config(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("given", "fps", "expected"),
    [
        ((0, 0.1, 0.2), 10, [0, 0.1, 0.2]),
        ((0, 0.1, 0.2), 5, [0, 0.2]),
        ((0, 0.25), 10, [0, 0, 0]),
        ((0, 0.02, 0.09, 0.31), 10, [0, 0.09, 0.09, 0.09]),
        ((0,), 10, [0]),
        ((), 10, []),
    ],
)
def test_frames_at_even_times_are_the_last_ones_there(
    given: tuple[float, ...], fps: float, expected: list[float]
) -> None:
    marked = [replace(frame, picture=np.array([float(frame.time_s)])) for frame in times(*given)]
    found = list(resample(marked, fps))
    assert [float(frame.picture[0]) for frame in found] == pytest.approx(expected)
    assert [frame.time_s for frame in found] == [Fraction(k, int(fps)) for k in range(len(expected))]


@pytest.mark.parametrize(("seconds", "fps", "expected"), [(Fraction(1, 2), 25, 38), (1, 10, 30), (1, 1, 3)])
def test_the_last_frame_is_shown_as_long_as_the_others(seconds: Fraction, fps: float, expected: int) -> None:
    found = list(resample([DrivingFrame(seconds * k, None, None, Fraction(seconds)) for k in range(3)], fps))
    assert [frame.time_s for frame in found] == [Fraction(k, fps) for k in range(expected)]


def test_films_and_pictures_last_until_their_last_frame_ends(tmp_path: Path) -> None:
    folder, film = tmp_path / "pictures", tmp_path / "film.mp4"
    folder.mkdir()
    for name in "ab":
        save_image(folder / f"{name}.png", torch.zeros(3, 16, 24))
    pictures = open_driving(replace(config(folder), still_fps=1.0))
    assert len(list(resample(pictures.frames(), 10))) == 20
    save_video(film, [torch.zeros(3, 32, 48)] * 3, 2)
    assert len(list(resample(open_driving(config(film)).frames(), 25))) == 38


def test_the_first_frame_does_not_wait_for_others() -> None:
    sizes: list[int] = []

    class Counting(StubTracker):
        def track(self, pictures: Sequence[np.ndarray]) -> list[TrackedFrame | None]:
            sizes.append(len(pictures))
            return super().track(pictures)

    frames = [DrivingFrame(Fraction(k), grey_picture(10 if k == 3 else 90), None) for k in range(12)]
    found = list(track(frames, Counting()))
    assert sizes == [1, 8, 3]
    assert [frame.face is None for frame in found] == [k == 3 for k in range(12)]
    assert [frame.time_s for frame in found] == list(range(12))
