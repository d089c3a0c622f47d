"""Frames of one person for one training subject, and the pools of stored ones they are taken from.

Everything about a subject follows from a seed. Frames are numpy arrays as files store them, so that worker processes
can hand them over.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from portrait4d.data.clip_dataset import ClipDataset
from portrait4d.data.image_io import load_image, to_uint8
from portrait4d.data.portrait_folder import PreparedPortrait
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.head_params import HeadParams, join_label
from portrait4d.synthetic_heads.portrait_sets import MANIFEST
from portrait4d.synthetic_heads.portraits import VIEWS

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class PortraitFrame:
    """One picture and what is known about it.

    Attributes:
        image: (3, H, H) uint8 RGB.
        mask: (1, H, H) uint8, head 255, background 0.
        label: (437,) float32 frame label.
        motion: (548,) float32 stored motion vector.
    """

    image: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    motion: np.ndarray


class SubjectFrames(NamedTuple):
    """A subject's frames; driving and target share their motion. `depth` (1, R, R) of the target, or None."""

    source: PortraitFrame
    driving: PortraitFrame
    target: PortraitFrame
    depth: np.ndarray | None = None


class PersonFrames(NamedTuple):
    """M motions of one person, V views of each: images (M, V, 3, H, H) and masks (M, V, 1, H, H) uint8, labels
    (M, V, 437) and motions (M, V, 548) float32, depths (M, V, 1, R, R) float32."""

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    motions: np.ndarray
    depths: np.ndarray

    @classmethod
    def stack(cls, frames: list[PortraitFrame], depths: list[np.ndarray], motions: int) -> "PersonFrames":
        """Join frames and depths, motion after motion, view after view."""
        columns = [[getattr(frame, part.name) for frame in frames] for part in fields(PortraitFrame)]
        stacked = (np.stack(column) for column in (*columns, depths))
        return cls(*(values.reshape(motions, -1, *values.shape[1:]) for values in stacked))


class SubjectSource(Protocol):
    """Where subjects come from.

    Attributes:
        has_motions: there are persons with several motions.
        has_views: one motion can be seen from several sides.
    """

    has_motions: bool
    has_views: bool

    def load(self, seed: int, still: bool) -> SubjectFrames:
        """Load the subject of a seed; a still one shows one motion in all its frames."""
        ...


def ask_worker(pool: Executor, make: Callable[..., ResultT], *arguments: object) -> Future[ResultT]:
    """Let a worker process make something.

    Raises:
        UserError: one was ended.
    """
    with _naming_ended_workers():
        return pool.submit(make, *arguments)


def worker_result(future: Future[ResultT]) -> ResultT:
    """Wait for what a worker process makes.

    Raises:
        UserError: one was ended.
    """
    with _naming_ended_workers():
        return future.result()


@contextmanager
def _naming_ended_workers() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended from outside (out of memory?); run the same command again"
        ) from error


class ClipSubjects:
    """Subjects from a database of clips: two random frames of a random clip, with what was stored about them.

    Source is the first frame, driving and target are the second. A clip has one camera for each motion, so the frames
    of a still subject are one and the same.

    Args:
        path: LMDB database or folder of shards, as `generate_lmdb/vfhq` packs it.

    Raises:
        InputFileError: as `ClipDataset`.
    """

    has_motions = True
    has_views = False

    def __init__(self, path: str | Path) -> None:
        self.dataset = ClipDataset(path)

    def load(self, seed: int, still: bool) -> SubjectFrames:
        """Load the subject of a seed.

        Raises:
            InputFileError: the clip's record is damaged.
        """
        rng = np.random.default_rng(seed)
        index = int(rng.integers(len(self.dataset)))
        source, driving = rng.integers(self.dataset.frame_count(index), size=2).tolist()
        driving = source if still else driving
        target = self._frame(index, driving)
        return SubjectFrames(self._frame(index, source), target, target)

    def _frame(self, index: int, frame: int) -> PortraitFrame:
        item = self.dataset.load_frames(index, frame, frame)
        params = HeadParams(*(part[None] for part in (item.shape, item.expression, item.pose, item.eye_pose)))
        label = join_label(item.camera[None], params)[0]
        return PortraitFrame(
            *(part.numpy() for part in (item.driving_image, item.driving_mask[:1], label, item.driving_motion))
        )


class FolderSubjects:
    """Subjects from a folder of `write_synthetic_portraits`: frames of a random person's clip, views of each frame.

    Source and target are seen from different sides if there are extra views; so still subjects, with one frame, and
    sets of single portraits make sense with `--views` only.

    Args:
        root: folder that holds manifest.jsonl.

    Attributes:
        has_motions: there are clips.
        has_views: all frames have extra views.

    Raises:
        InputFileError: the manifest is missing, damaged or empty.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        clips: dict[tuple[int, int], list[str]] = {}
        views = []
        for row in _read_manifest(self.root / MANIFEST):
            clips.setdefault((row["person"], row["motion"]), []).append(row["file"])
            views.append(row["views"])
        self.views = min(views)
        self._clips = list(clips.values())
        self.has_motions = max(len(files) for files in self._clips) > 1
        self.has_views = self.views > 0

    def load(self, seed: int, still: bool) -> SubjectFrames:
        """Load the subject of a seed.

        Raises:
            InputFileError: a file of it is missing or damaged.
        """
        rng = np.random.default_rng(seed)
        files = self._clips[int(rng.integers(len(self._clips)))]
        source, driving = rng.integers(len(files), size=2).tolist()
        driving = source if still else driving
        views = rng.permutation(self.views + 1).tolist()
        frames = ((source, views[0]), (driving, int(rng.integers(self.views + 1))), (driving, views[-1]))
        return SubjectFrames(*(self._frame(files[number], view) for number, view in frames))

    def _frame(self, file: str, view: int) -> PortraitFrame:
        picture = self.root / file
        folder = picture.parents[1]
        main = PreparedPortrait(picture.stem, picture, folder)
        motion = main.load_motion()
        if motion is None:
            raise InputFileError(picture, "has no motion_feats file", "write the set again")
        seen = main
        if view:
            name = f"{picture.stem}_v{view:02d}"
            root = folder / VIEWS
            seen = PreparedPortrait(name, root / picture.parent.name / f"{name}{picture.suffix}", root)
        image, mask = (to_uint8(load_image(path)).numpy() for path in (seen.image_path, seen.segmentation_path))
        return PortraitFrame(image, mask[:1], seen.load_frame_label(simplified=False), motion)


def _read_manifest(path: Path) -> list[dict]:
    if not path.is_file():
        raise InputFileError(path, "no such file", "make the set with portrait4d/write_synthetic_portraits.py")
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [{key: row[key] for key in ("file", "person", "motion", "views")} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise InputFileError(path, f"not a manifest of portraits ({error})", "write the set again") from error
    if not rows:
        raise InputFileError(path, "lists no portrait", "write the set again")
    return rows
