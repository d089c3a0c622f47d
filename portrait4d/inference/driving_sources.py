"""What can drive a head: films, pictures, prepared folders, templates and cameras, as one stream of frames.

Streams are made of iterators that hold a few frames at a time; `read_ahead` runs them in threads of their own.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from portrait4d.config.animation import WEBCAM, AnimateConfig
from portrait4d.data.image_io import load_image, to_uint8
from portrait4d.data.portrait_folder import (
    ALIGNED_IMAGES,
    FITTED_LABELS,
    IMAGE_SUFFIXES,
    MOTION_DIM,
    MOTION_VECTORS,
    PortraitFolder,
    PreparedPortrait,
)
from portrait4d.data.video_io import FilmFrame, read_facts, read_frames, read_webcam
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.files.home import expand_home
from portrait4d.inference.head_states import HeadState
from portrait4d.inference.templates import TEMPLATE_SUFFIX, Template, open_template
from portrait4d.inference.tracking import CropPlace, TrackedFrame, Tracker

PICTURE_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff")
_BATCH = 8
_BATCH_PIXELS = 1 << 24


@dataclass(frozen=True)
class Face:
    """A driver's face in a frame.

    Attributes:
        state: pose and expression.
        label: (437,) the frame label with the driver's identity; None if it is not known.
        place: of what the label's camera sees, as a crop of one pixel, in the picture; None without a picture.
    """

    state: HeadState
    label: np.ndarray | None = None
    place: CropPlace | None = None


@dataclass(frozen=True)
class DrivingFrame:
    """A frame of a driver.

    Attributes:
        time_s: since the first frame, in seconds.
        picture: uint8 (H, W, 3) RGB, None if there is none.
        face: None where no face was found.
        shown_s: for how long it is shown if no other follows, in seconds; 0 if that is not known.
    """

    time_s: Fraction
    picture: np.ndarray | None
    face: Face | None
    shown_s: Fraction = Fraction(0)


@dataclass
class DrivingClip:
    """A driver.

    Attributes:
        read: gives frames; those to be tracked come without faces.
        rate: frames per second, on average.
        count: of frames, None while unknown.
        needs_tracker: whether faces are still to be found.
        has_pictures: whether frames have pictures.
        sound: film whose sound belongs to it.
        is_live: whether it goes on until the user stops it.
        problem: why it ended before its end; set while it is read.
    """

    read: Callable[["DrivingClip"], Iterator[DrivingFrame]]
    rate: Fraction
    count: int | None
    needs_tracker: bool = False
    has_pictures: bool = True
    sound: Path | None = None
    is_live: bool = False
    problem: UserError | None = field(default=None, compare=False)

    def frames(self) -> Iterator[DrivingFrame]:
        """Read the frames."""
        return self.read(self)


def open_driving(config: AnimateConfig, needs_motion: bool = True) -> DrivingClip:
    """Open what drives: "webcam:N", a template, a folder of pictures or a prepared one, a picture, or a film.

    Args:
        config: its driving, and the rate of pictures.
        needs_motion: whether prepared folders must have motion vectors.

    Raises:
        UserError: no such thing, or of no use.
    """
    still_rate = Fraction(config.still_fps).limit_denominator(1001)
    if config.driving.startswith(WEBCAM):
        return _open_webcam(config.driving.removeprefix(WEBCAM))
    path = expand_home(config.driving)
    if path.suffix.lower() == TEMPLATE_SUFFIX:
        template = open_template(path)
        return DrivingClip(lambda _: _read_template(template), template.rate, template.frames, has_pictures=False)
    if (path / ALIGNED_IMAGES).is_dir():
        portraits = PortraitFolder(path).items()
        return DrivingClip(lambda _: _read_prepared(portraits, still_rate, needs_motion), still_rate, len(portraits))
    if path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES:
        pictures = list_pictures(path)
        return DrivingClip(lambda _: _read_pictures(pictures, still_rate), still_rate, len(pictures), True)
    facts = read_facts(path)
    sound, rate = path if facts.has_sound else None, facts.rate or still_rate
    return DrivingClip(lambda clip: _read_film(read_frames(path), clip), rate, facts.frames, True, sound=sound)


def list_pictures(path: Path) -> list[Path]:
    """Return the pictures of a folder, sorted by name, or the picture that `path` is.

    Raises:
        InputFileError: no such folder or picture, or no picture in it.
    """
    if not path.is_dir():
        if not path.is_file():
            raise InputFileError(path, "no such file or folder", "give a picture, a film or a folder of pictures")
        return [path]
    pictures = [one for one in path.iterdir() if one.suffix.lower() in PICTURE_SUFFIXES and one.name[0] != "."]
    if not pictures:
        raise InputFileError(path, f"no picture in this folder ({', '.join(PICTURE_SUFFIXES)})", "give another one")
    return sorted(pictures)


def read_prepared(portrait: PreparedPortrait, needs_motion: bool = True) -> TrackedFrame:
    """Read a portrait of a prepared folder as if it had just been tracked; the crop is its own picture.

    Fitted labels are taken where there are some, else simplified ones.

    Raises:
        InputFileError: a file is missing or damaged.
    """
    image = portrait.load_image()
    label = portrait.load_frame_label(simplified=not portrait.array_path(FITTED_LABELS).is_file())
    motion = portrait.load_motion() if needs_motion else np.zeros(MOTION_DIM, np.float32)
    if motion is None:
        path = portrait.array_path(MOTION_VECTORS)
        raise InputFileError(path, "no such file", "make it with data_preprocess/extract_pdfgc.py")
    return TrackedFrame(image, label, portrait.load_landmarks68(), motion, CropPlace.whole(image.shape[2]))


def face_of(tracked: TrackedFrame) -> Face:
    """Return what of a tracked frame drives a head."""
    place = tracked.crop.resized(tracked.image.shape[-1], 1)
    return Face(HeadState.from_label(tracked.label, tracked.motion), tracked.label, place)


def resample(frames: Iterable[DrivingFrame], fps: float) -> Iterator[DrivingFrame]:
    """Repeat and drop frames so that they come at even times, each the last one that is there by then.

    The last frame is repeated for as long as it is shown.
    """
    step, due, last = 1 / Fraction(fps).limit_denominator(1001), Fraction(0), None
    for frame in frames:
        while last is not None and due < frame.time_s:
            yield replace(last, time_s=due, shown_s=step)
            due += step
        last = frame
    while last is not None and (due <= last.time_s or due < last.time_s + last.shown_s):
        yield replace(last, time_s=due, shown_s=step)
        due += step


def track(frames: Iterable[DrivingFrame], tracker: Tracker) -> Iterator[DrivingFrame]:
    """Find the faces of frames, batch by batch; the first batch is a single frame, so that the film begins soon."""
    batch: list[DrivingFrame] = []
    most, pixels = 1, 0
    for frame in frames:
        batch.append(frame)
        pixels += frame.picture.size // 3
        if len(batch) >= most or pixels >= _BATCH_PIXELS:
            yield from _track_batch(batch, tracker)
            batch, most, pixels = [], _BATCH, 0
    if batch:
        yield from _track_batch(batch, tracker)


def _track_batch(batch: list[DrivingFrame], tracker: Tracker) -> Iterator[DrivingFrame]:
    found = tracker.track([frame.picture for frame in batch])
    for frame, tracked in zip(batch, found, strict=True):
        yield replace(frame, face=None if tracked is None else face_of(tracked))


def _open_webcam(number: str) -> DrivingClip:
    if not number.isdecimal():
        raise UserError(f"--driving {WEBCAM}{number}: expected a number, {WEBCAM}0 for the first camera")
    frames = read_webcam(int(number))
    return DrivingClip(lambda clip: _read_film(frames, clip), Fraction(30), None, True, is_live=True)


def _read_film(frames: Iterable[FilmFrame], clip: DrivingClip) -> Iterator[DrivingFrame]:
    """Read frames with times that begin at 0 and grow; what ends them early is noted, unless nothing was read."""
    start_s = time_s = None
    try:
        for frame in frames:
            shown_s = frame.time_s
            if start_s is None:
                start_s = shown_s or Fraction(0)
            if shown_s is None or (time_s is not None and shown_s - start_s <= time_s):
                time_s = Fraction(0) if time_s is None else time_s + 1 / clip.rate
            else:
                time_s = shown_s - start_s
            yield DrivingFrame(time_s, frame.load_rows(), None, 1 / clip.rate)
    except UserError as error:
        if time_s is None:
            raise
        clip.problem = error


def _read_pictures(paths: list[Path], rate: Fraction) -> Iterator[DrivingFrame]:
    for number, path in enumerate(paths):
        rows = to_uint8(load_image(path)).permute(1, 2, 0).contiguous().numpy()
        yield DrivingFrame(number / rate, rows, None, 1 / rate)


def _read_prepared(portraits: list[PreparedPortrait], rate: Fraction, needs_motion: bool) -> Iterator[DrivingFrame]:
    for number, portrait in enumerate(portraits):
        tracked = read_prepared(portrait, needs_motion)
        rows = to_uint8(tracked.image).permute(1, 2, 0).contiguous().numpy()
        yield DrivingFrame(number / rate, rows, face_of(tracked), 1 / rate)


def _read_template(template: Template) -> Iterator[DrivingFrame]:
    for frame in template.read():
        face = None if frame.state is None else Face(frame.state)
        yield DrivingFrame(frame.time_s, None, face, 1 / template.rate)
