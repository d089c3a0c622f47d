"""Films from disk to frames, one at a time: numbered from 0 as they are shown, turned and stretched as players do.

Sound and other tracks are left alone. `image_io.VideoWriter` is the way back, with sound `film_writer.FilmWriter`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from portrait4d.data.image_io import from_uint8
from portrait4d.files.errors import InputFileError, UserError

FILM_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")

_WEBCAMS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}:none"),
}
"""Format and name of a machine's cameras for FFmpeg."""
_REMEDY = "copy it again, or convert it to MP4"
_LARGEST_ASPECT = 4
"""Of a pixel, width to height or height to width; films that say more are wrong."""


@dataclass(frozen=True)
class FilmFrame:
    """A decoded frame, not yet converted.

    Attributes:
        number: its place in the film, from 0.
        decoded: what the decoder made.
        pixel_aspect: width of a stored pixel to its height.
    """

    number: int
    decoded: av.VideoFrame
    pixel_aspect: Fraction = Fraction(1)

    @property
    def is_damaged(self) -> bool:
        """Whether parts of it are missing or guessed."""
        return bool(self.decoded.is_corrupt)

    @property
    def time_s(self) -> Fraction | None:
        """When it is shown, in seconds on the film's clock, None if the film does not say."""
        return None if self.decoded.pts is None else self.decoded.pts * self.decoded.time_base

    def load(self) -> Tensor:
        """Convert to (3, H, W) float32 RGB in [-1, 1], with square pixels, turned and mirrored as the film says."""
        return from_uint8(self._load_bytes().contiguous())

    def load_rows(self) -> np.ndarray:
        """Convert to uint8 (H, W, 3) RGB, with square pixels, turned and mirrored as the film says."""
        return self._load_bytes().permute(1, 2, 0).contiguous().numpy()

    def _load_bytes(self) -> Tensor:
        width = round(self.decoded.width * max(self.pixel_aspect, 1))
        height = round(self.decoded.height / min(self.pixel_aspect, 1))
        rows = torch.from_numpy(self.decoded.to_ndarray(format="rgb24", width=width, height=height))
        return _orient(rows.permute(2, 0, 1), self.decoded)


@dataclass(frozen=True)
class FilmFacts:
    """What the header of a film says.

    Attributes:
        frames: how many, None if it does not say.
        rate: frames per second on average, None if it does not say.
        has_sound: whether there is a sound track.
    """

    frames: int | None
    rate: Fraction | None
    has_sound: bool


def count_frames(path: str | Path) -> int | None:
    """Return the number of frames that the film's header promises, None if it does not say.

    Raises:
        InputFileError: no such file, not a film, or no pictures in it.
    """
    return read_facts(path).frames


def read_facts(path: str | Path) -> FilmFacts:
    """Read the header of a film.

    Raises:
        InputFileError: no such file, not a film, or no pictures in it.
    """
    with _open_film(Path(path)) as (container, stream):
        return FilmFacts(stream.frames or None, stream.average_rate or None, bool(container.streams.audio))


@dataclass(frozen=True)
class FilmExtent:
    """How large and how long a film is: stored pixels, before any stretching or turning, and seconds."""

    width: int
    height: int
    duration_s: float


def measure_film(path: str | Path) -> FilmExtent:
    """Read how large and how long a film is; where the header does not say, its packets are walked through.

    Raises:
        InputFileError: no such file, not a film, or no pictures in it.
    """
    path = Path(path)
    with _open_film(path) as (container, stream):
        duration_s = (container.duration or 0) / av.time_base
        if duration_s <= 0:
            try:
                times = (packet.pts * packet.time_base for packet in container.demux(stream) if packet.pts is not None)
                duration_s = float(max(times, default=0))
            except av.error.FFmpegError as error:
                raise InputFileError(path, f"not a readable film ({error.strerror})", _REMEDY) from error
        return FilmExtent(stream.width, stream.height, duration_s)


def read_frames(path: str | Path) -> Iterator[FilmFrame]:
    """Decode a film frame by frame; only the frames that the caller keeps stay in memory.

    Raises:
        InputFileError: no such file, not a film, no pictures in it; or, after the frames before it, a place where the
            film is cut short or cannot be decoded.
    """
    path, number = Path(path), 0
    with _open_film(path) as (container, stream):
        aspect = _pixel_aspect(stream)
        try:
            for frame in container.decode(stream):
                yield FilmFrame(number, frame, aspect)
                number += 1
        except av.error.FFmpegError as error:
            problem = f"damaged or cut short after {number} frames ({error.strerror})"
            raise InputFileError(path, problem, _REMEDY) from error
        if not number:
            raise InputFileError(path, "no frame in this film", _REMEDY)


def read_webcam(number: int) -> Iterator[FilmFrame]:
    """Show what a camera of this machine sees, frame by frame, until the caller stops.

    Raises:
        UserError: no such camera, or one that breaks off.
    """
    kind, name = _WEBCAMS.get(sys.platform, _WEBCAMS["linux"])
    name = name.format(number)
    try:
        with av.open(name, format=kind, options={"framerate": "30"} if kind == "avfoundation" else {}) as container:
            for count, frame in enumerate(container.decode(video=0)):
                yield FilmFrame(count, frame)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"webcam:{number} ({name}): cannot be read ({error}); see that it is there and free") from error


@contextmanager
def _open_film(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    if not path.is_file():
        raise InputFileError(path, "no such file", "give the path of a film")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise InputFileError(path, f"not a readable film ({error.strerror})", _REMEDY) from error
    with container:
        if not container.streams.video:
            raise InputFileError(path, "no pictures in this file, sound at most", "give a film")
        yield container, container.streams.video[0]


def _pixel_aspect(stream: av.VideoStream) -> Fraction:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT else Fraction(1)


def _orient(image: Tensor, frame: av.VideoFrame) -> Tensor:
    """Apply a film's display matrix to a picture (C, H, W); turns are multiples of a right angle."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    x_from_x, y_from_x, _, x_from_y, y_from_y, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    if abs(y_from_x) > abs(x_from_x):
        image, x_from_x, y_from_y = image.transpose(1, 2), x_from_y, y_from_x
    backwards = [axis for axis, factor in ((2, x_from_x), (1, y_from_y)) if factor < 0]
    return image.flip(backwards) if backwards else image
