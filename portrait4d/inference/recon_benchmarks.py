"""What reconstructors are evaluated on: sources, the frames that drive them, and the true results; and clips as such.

A benchmark of clips takes prepared folders: the first frame is the source, later frames drive, and they are the truth
themselves (self-reenactment).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.image_io import load_image
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, MOTION_VECTORS, PortraitFolder, PreparedPortrait
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.ops.resize import resize_antialiased

GAGA_CLIPS, GAGA_FRAMES = 50, 50


@dataclass(frozen=True)
class TrueFrame:
    """A picture and what is known of it, on the CPU.

    Attributes:
        name: for reports.
        image: (3, S, S) in [-1, 1], S of the network.
        mask: (1, S, S) of the head in [0, 1], or None.
        label: (437,) frame label.
        motion: (548,) stored motion vector, or None.
        face: picture (3, H, H) at full size and its landmarks (68, 2) in pixels, y down, for a motion encoder; or None.
    """

    name: str
    image: Tensor
    mask: Tensor | None
    label: Tensor
    motion: Tensor | None
    face: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Case:
    """A result to make.

    Attributes:
        task: tasks are averaged apart.
        driver: whose motion drives.
        truth: the true result; its label has the driver's motion and the camera to render for.
        place: consecutive numbers within a task are consecutive frames.
        yaw_deg: of the camera, from where the driver's is.
    """

    task: str
    driver: TrueFrame
    truth: TrueFrame
    place: int
    yaw_deg: float = 0.0


@dataclass(frozen=True)
class Subject:
    """A source with its cases; `failures` names what could not be read, and why."""

    name: str
    source: TrueFrame | None
    cases: list[Case]
    failures: dict[str, str] = field(default_factory=dict)


class Benchmark(Protocol):
    """Subjects in a fixed order, read anew each time they are asked for.

    Attributes:
        name: of the protocol; says so if only a part of it is measured.
        is_synthetic: pictures show the open head world.
    """

    name: str
    is_synthetic: bool

    def __len__(self) -> int: ...

    def subjects(self) -> Iterator[Subject]:
        """Yield the subjects."""
        ...


@dataclass(frozen=True)
class ClipLoading:
    """How frames of clips are read: size S, simplified or fitted labels, stored motion, pictures for encoders."""

    size: int
    use_simplified: bool
    with_motion: bool
    with_face: bool


class ClipBenchmark:
    """Self-reenactment of clips.

    Args:
        folders: prepared folders.
        frames: drivers of each clip, evenly spaced among the frames after the first; None: all of those.
        loading: how frames are read.
        name: of the protocol.
    """

    is_synthetic = False

    def __init__(self, folders: list[Path], frames: int | None, loading: ClipLoading, name: str) -> None:
        self.folders, self.frames, self.loading, self.name = folders, frames, loading, name

    def __len__(self) -> int:
        return len(self.folders)

    def subjects(self) -> Iterator[Subject]:
        """Yield the clips; a frame, or clip, that cannot be read is named in `failures`."""
        for folder in self.folders:
            yield self._subject(folder)

    def _subject(self, folder: Path) -> Subject:
        failures: dict[str, str] = {}
        try:
            items = PortraitFolder(folder).items()
            source = self._load(items[0])
        except UserError as error:
            return Subject(folder.name, None, [], {str(folder): str(error)})
        cases = []
        for number in spaced_numbers(len(items), self.frames):
            try:
                frame = self._load(items[number])
            except UserError as error:
                failures[str(items[number].image_path)] = str(error)
                continue
            cases.append(Case("self", frame, frame, number))
        if len(items) < 2:
            failures[str(folder)] = f"{folder}: expected at least two frames, got one"
        return Subject(folder.name, source, cases, failures)

    def _load(self, portrait: PreparedPortrait) -> TrueFrame:
        loading, size = self.loading, self.loading.size
        mask = None
        if portrait.segmentation_path.is_file():
            mask = resize_antialiased((load_image(portrait.segmentation_path)[None, :1] + 1) / 2, size)[0].clamp(0, 1)
        motion = portrait.load_motion() if loading.with_motion else None
        if loading.with_motion and motion is None:
            path = portrait.array_path(MOTION_VECTORS)
            raise InputFileError(path, "no such file", "make it with data_preprocess/extract_pdfgc.py")
        face = None
        if loading.with_face:
            face = portrait.load_image(), torch.from_numpy(portrait.load_landmarks68())
        return TrueFrame(
            name=portrait.stem,
            image=portrait.load_image(size),
            mask=mask,
            label=torch.from_numpy(portrait.load_frame_label(loading.use_simplified)),
            motion=None if motion is None else torch.from_numpy(motion),
            face=face,
        )


def spaced_numbers(count: int, frames: int | None) -> list[int]:
    """Return the drivers among `count` frames: evenly spaced after the first, the source; None: all of those."""
    if frames is None or frames >= count - 1:
        return list(range(1, count))
    return [int(number) for number in np.linspace(1, count - 1, frames).round()]


def find_clips(root: Path) -> list[Path]:
    """List the prepared folders right below a folder, sorted by name.

    Raises:
        InputFileError: no such folder, or no prepared folder in it.
    """
    if not root.is_dir():
        raise InputFileError(root, "no such folder", "give --data a folder of prepared clip folders")
    folders = sorted(path for path in root.iterdir() if (path / ALIGNED_IMAGES).is_dir())
    if not folders:
        raise InputFileError(root, f"no folder with {ALIGNED_IMAGES} in it", "prepare the clips with data_preprocess")
    return folders


def gaga_vfhq(root: Path, identities: int | None, frames: int | None, loading: ClipLoading) -> ClipBenchmark:
    """Open the first 50 clips of VFHQ-test: first frame as source, 50 evenly spaced later frames as drivers.

    Raises:
        InputFileError: see `find_clips`.
    """
    folders = find_clips(root)[: min(identities or GAGA_CLIPS, GAGA_CLIPS)]
    count = frames or GAGA_FRAMES
    is_whole = (len(folders), count) == (GAGA_CLIPS, GAGA_FRAMES)
    part = "" if is_whole else f" ({len(folders)} of {GAGA_CLIPS} clips, {count} of {GAGA_FRAMES} frames)"
    return ClipBenchmark(folders, count, loading, f"gaga-vfhq{part}")
