"""The pictures of clips in order, read ahead, and grouped to batches that fit into memory."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from data_preprocess.media import WRITABLE_SUFFIXES, Clip
from portrait4d.data.image_io import load_image
from portrait4d.data.video_io import read_frames
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.files.read_ahead import map_in_order

MOST_PIXELS = 1 << 25
"""Of the pictures of a batch together, and of those that wait to be used: 400 MB as float32."""

_WIDEST = 16


@dataclass(frozen=True)
class Picture:
    """A picture on its way.

    Attributes:
        clip: where it belongs.
        name: what messages call it.
        file_name: of the pictures that are made of it.
        number: its place in the folder or film.
        image: (3, H, W) in [-1, 1]; None if it is done already or there is a problem.
        problem: why it cannot be used, None if it can.
    """

    clip: Clip
    name: str
    file_name: str
    number: int
    image: Tensor | None = None
    problem: UserError | None = None

    @property
    def is_done(self) -> bool:
        """Whether its results were there already."""
        return self.image is None and self.problem is None

    @property
    def pixels(self) -> int:
        """Of the image."""
        return 0 if self.image is None else math.prod(self.image.shape[1:])


@dataclass(frozen=True)
class ReadingRules:
    """How pictures are read.

    Attributes:
        is_done: tells of a clip and the file name of a result whether it is there already.
        suffix: of results of frames of films, and of pictures in formats that are not written.
        workers: threads that load files.
    """

    is_done: Callable[[Clip, str], bool]
    suffix: str = ".png"
    workers: int = 2


def read_pictures(clips: Iterable[Clip], rules: ReadingRules) -> Iterator[Picture]:
    """Yield all pictures of all clips in order; what cannot be read comes as a picture with a problem."""
    for clip in clips:
        yield from _read_film(clip, rules) if clip.is_film else _read_files(clip, rules)


def batch_pictures(pictures: Iterable[Picture], most: int, most_pixels: int = MOST_PIXELS) -> Iterator[list[Picture]]:
    """Group pictures in order: at most `most`, with at most `most_pixels` pixels together unless it is one alone."""
    batch: list[Picture] = []
    pixels = 0
    for picture in pictures:
        if batch and (len(batch) == most or pixels + picture.pixels > most_pixels):
            yield batch
            batch, pixels = [], 0
        batch.append(picture)
        pixels += picture.pixels
    if batch:
        yield batch


def _read_files(clip: Clip, rules: ReadingRules) -> Iterator[Picture]:
    numbered = enumerate(clip.pictures, clip.first)
    yield from map_in_order(partial(_read_file, clip, rules), numbered, rules.workers, rules.workers)


def _read_file(clip: Clip, rules: ReadingRules, numbered: tuple[int, Path]) -> Picture:
    number, path = numbered
    file_name = path.name if path.suffix.lower() in WRITABLE_SUFFIXES else path.stem + rules.suffix
    make = partial(Picture, clip, str(path), file_name, number)
    if rules.is_done(clip, file_name):
        return make()
    try:
        return make(image=_require_usable(path, load_image(path)))
    except UserError as error:
        return make(problem=error)


def _read_film(clip: Clip, rules: ReadingRules) -> Iterator[Picture]:
    number = -1
    try:
        for frame in read_frames(clip.source):
            number = frame.number
            name, file_name = f"{clip.source}, frame {number}", f"{number:06d}{rules.suffix}"
            make = partial(Picture, clip, name, file_name, number)
            if rules.is_done(clip, file_name):
                yield make()
            elif frame.is_damaged:
                yield make(problem=InputFileError(name, "is damaged"))
            else:
                yield make(image=frame.load())
    except UserError as error:
        yield Picture(clip, str(clip.source), "", number + 1, problem=error)


def _require_usable(path: Path, image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    if width > _WIDEST * height:
        problem = f"{width} x {height} pixels, more than {_WIDEST} times as wide as high"
        raise InputFileError(path, problem, "cut out the part with the face")
    return image
