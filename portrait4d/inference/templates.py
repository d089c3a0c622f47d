"""Driving templates: the motion and the pose of a clip without its pictures, written and read frame by frame.

A .safetensors file with one tensor "rows" (T, 688) float32, a row for each frame: whole seconds and the rest of the
time | 1 where a face was found | camera (25) | neck (3) | face (657), see `head_states.py`. The driver's identity
(shape) is not in it. Its metadata name the format and the frame rate.
"""

import json
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from safetensors import SafetensorError, safe_open

from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.cameras import CAMERA_DIM
from portrait4d.inference.head_states import FACE_DIM, HeadState

TEMPLATE_SUFFIX = ".safetensors"
_FORMAT = "driving-template-1"
_TENSOR = "rows"
_ROW_DIM = 3 + CAMERA_DIM + 3 + FACE_DIM
_HEADER_BYTES = 512
_ROWS_AT_ONCE = 256
_REMEDY = "make it with --save-template"


@dataclass(frozen=True)
class TemplateFrame:
    """A frame: its time in seconds, and the driver's state, None where no face was found."""

    time_s: Fraction
    state: HeadState | None


class TemplateWriter:
    """Write a template frame by frame, atomically; use as a context manager, as `VideoWriter`.

    Args:
        path: file to write, suffix .safetensors; its folder is made.
        rate: frames per second, on average.

    Raises:
        ValueError: another suffix.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        if path.suffix.lower() != TEMPLATE_SUFFIX:
            raise ValueError(f"path: expected the suffix {TEMPLATE_SUFFIX}, got {path.name!r}")
        self.path, self.rate, self.frames_written = path, rate, 0

    def __enter__(self) -> "TemplateWriter":
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            self._file = stack.enter_context(temporary.open("wb"))
            self._file.write(bytes(_HEADER_BYTES))
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def write(self, frame: TemplateFrame) -> None:
        """Append a frame."""
        row = np.zeros(_ROW_DIM, np.float32)
        row[0], row[1] = frame.time_s // 1, frame.time_s % 1
        if frame.state is not None:
            row[2] = 1
            row[3:] = np.concatenate([frame.state.camera, frame.state.neck_rad, frame.state.face])
        self._file.write(row.astype("<f4").tobytes())
        self.frames_written += 1

    def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        size = self.frames_written * _ROW_DIM * 4
        tensor = {"dtype": "F32", "shape": [self.frames_written, _ROW_DIM], "data_offsets": [0, size]}
        description = json.dumps({"format": _FORMAT, "rate": str(self.rate)})
        header = json.dumps({"__metadata__": {"portrait4d": description}, _TENSOR: tensor}).encode()
        self._file.seek(0)
        self._file.write(struct.pack("<Q", _HEADER_BYTES - 8) + header.ljust(_HEADER_BYTES - 8))


@dataclass(frozen=True)
class Template:
    """A template that was opened: how many frames it has, and frames per second on average."""

    path: Path
    frames: int
    rate: Fraction

    def read(self) -> Iterator[TemplateFrame]:
        """Read the frames in order.

        Raises:
            InputFileError: numbers that are not finite, or times that do not grow.
        """
        with safe_open(self.path, framework="numpy") as file:
            rows = file.get_slice(_TENSOR)
            last = Fraction(-1)
            for first in range(0, self.frames, _ROWS_AT_ONCE):
                for row in rows[first : min(first + _ROWS_AT_ONCE, self.frames)].astype(np.float64):
                    if not np.isfinite(row).all() or Fraction(row[0] + row[1]) <= last:
                        raise InputFileError(self.path, f"damaged before {float(last):.2f} s", _REMEDY)
                    last = Fraction(row[0] + row[1])
                    yield TemplateFrame(last, _state(row) if row[2] else None)


def open_template(path: Path) -> Template:
    """Open a template.

    Raises:
        InputFileError: no such file, damaged, something else, or without frames.
    """
    if not path.is_file():
        raise InputFileError(path, "no such file", _REMEDY)
    try:
        with safe_open(path, framework="numpy") as file:
            description = json.loads((file.metadata() or {})["portrait4d"])
            shape = file.get_slice(_TENSOR).get_shape()
        rate = Fraction(description["rate"]).limit_denominator(90000)
        found = description["format"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise InputFileError(path, f"is no driving template ({' '.join(str(error).split())})", _REMEDY) from None
    if found != _FORMAT or len(shape) != 2 or shape[1] != _ROW_DIM or not shape[0] or not 0 < rate <= 1000:
        problem = f"expected {_FORMAT} of shape (T, {_ROW_DIM}), got {found} of {tuple(shape)} at {rate} frames/s"
        raise InputFileError(path, problem, _REMEDY)
    return Template(path, shape[0], rate)


def _state(row: np.ndarray) -> HeadState:
    camera, neck, face = np.split(row[3:], [CAMERA_DIM, CAMERA_DIM + 3])
    return HeadState(camera, neck, face)
