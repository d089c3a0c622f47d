"""Films from disk to frames, one at a time: numbered from 0 in the order of showing, turned as players turn them.

Sound and other tracks are left alone. `image_io.VideoWriter` is the way back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from portrait4d.data.image_io import from_uint8
from portrait4d.files.errors import InputFileError

FILM_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")

_REMEDY = "copy it again, or convert it to MP4"


@dataclass(frozen=True)
class FilmFrame:
    """A decoded frame, not yet converted.

    Attributes:
        number: its place in the film, from 0.
        decoded: what the decoder made.
    """

    number: int
    decoded: av.VideoFrame

    @property
    def is_damaged(self) -> bool:
        """Whether parts of it are missing or guessed."""
        return bool(self.decoded.is_corrupt)

    def load(self) -> Tensor:
        """Convert to (3, H, W) float32 RGB in [-1, 1], turned and mirrored as the film says."""
        rows = torch.from_numpy(self.decoded.to_ndarray(format="rgb24"))
        return from_uint8(_orient(rows.permute(2, 0, 1), self.decoded).contiguous())


def count_frames(path: str | Path) -> int | None:
    """Return the number of frames that the film's header promises, None if it does not say.

    Raises:
        InputFileError: no such file, not a film, or no pictures in it.
    """
    with _open_film(Path(path)) as (_, stream):
        return stream.frames or None


def read_frames(path: str | Path) -> Iterator[FilmFrame]:
    """Decode a film frame by frame; only the frames that the caller keeps stay in memory.

    Raises:
        InputFileError: no such file, not a film, no pictures in it; or, after the frames before it, a place where the
            film is cut short or cannot be decoded.
    """
    path, number = Path(path), 0
    with _open_film(path) as (container, stream):
        try:
            for frame in container.decode(stream):
                yield FilmFrame(number, frame)
                number += 1
        except av.error.FFmpegError as error:
            problem = f"damaged or cut short after {number} frames ({error.strerror})"
            raise InputFileError(path, problem, _REMEDY) from error
        if not number:
            raise InputFileError(path, "no frame in this film", _REMEDY)


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
