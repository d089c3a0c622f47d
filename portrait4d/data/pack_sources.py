"""Raw folders as records: which portraits and clips there are, each read and checked. Source: datasets.md §1, §3."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from portrait4d.data.image_io import decode_image, decode_pixels, read_image_size
from portrait4d.data.label_checks import label_problems
from portrait4d.data.portrait_folder import (
    ALIGNED_IMAGES,
    FITTED_LABELS,
    MOTION_VECTORS,
    SEGMENTATIONS,
    PortraitFolder,
    PreparedPortrait,
)
from portrait4d.data.rebalancing import FFHQ_COUNT, head_yaw_rad, load_repetitions, repetitions_from_yaw
from portrait4d.data.records import CLIP, STILL, encode_record
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.head_params import LABEL_DIM

STILL_FOLDERS = [f"{number:02d}000" for number in range(140)]
"""FFHQ's folders in order: 70 of originals, 70 of mirrored copies."""
_RECORDED_SIDE = 512
"""Width and height that the reference writes into every still record; readers go by the picture itself."""


@dataclass(frozen=True)
class ReadRules:
    """How sources are read.

    Attributes:
        resolution: side in pixels that pictures and masks must have.
        validate: decode every picture, and check that labels make sense, before it is packed.
        frames: of a clip.
        allow_short: pack clips that have fewer frames.
    """

    resolution: int
    validate: bool
    frames: int
    allow_short: bool


@dataclass(frozen=True)
class StillSource:
    """A portrait to pack `repetitions` times."""

    name: str
    portrait: PreparedPortrait
    repetitions: int

    @property
    def picture_bytes(self) -> int:
        """Size of the picture's file."""
        return _file_bytes(self.portrait.image_path)

    @property
    def mask_bytes(self) -> int:
        """Size of the mask's file."""
        return _file_bytes(self.portrait.segmentation_path)


@dataclass(frozen=True)
class ClipSource:
    """A clip to pack."""

    name: str
    folder: Path

    @property
    def picture_bytes(self) -> int:
        """Size of all its pictures' files."""
        return sum(map(_file_bytes, _visible_files(self.folder / ALIGNED_IMAGES)))


@dataclass
class Packed:
    """What became of a source: encoded records; (name, reason) of what the rules leave out, and of what is bad."""

    values: list[bytes] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)


def plan_stills(data_dir: Path, rebalance: str) -> list[StillSource]:
    """List the portraits under `data_dir`: FFHQ's 140 folders in order, else one prepared folder, else all of them.

    Args:
        data_dir: raw data.
        rebalance: "none", "auto" (by head yaw), or the path of a table of repetitions.

    Raises:
        UserError: nothing to pack, or a table that does not fit.
    """
    if not data_dir.is_dir():
        raise InputFileError(data_dir, "no such folder", "give --data_dir")
    names = [name for name in STILL_FOLDERS if (data_dir / name / ALIGNED_IMAGES).is_dir()]
    if not names and (data_dir / ALIGNED_IMAGES).is_dir():
        names = ["."]
    if not names:
        names = sorted(path.name for path in data_dir.iterdir() if (path / ALIGNED_IMAGES).is_dir())
    if not names:
        raise InputFileError(data_dir, f"no prepared folder (with {ALIGNED_IMAGES}) in it")
    portraits = [item for name in names for item in PortraitFolder(data_dir / name).items()]
    repetitions = _repetitions(portraits, rebalance)
    return [
        StillSource(str(p.image_path.relative_to(data_dir)), p, n) for p, n in zip(portraits, repetitions, strict=True)
    ]


def plan_clips(data_dir: Path) -> tuple[list[ClipSource], list[tuple[str, str]]]:
    """List the clips in `data_dir` by name, and (name, reason) of folders with incomplete sub-folders.

    Raises:
        InputFileError: no such folder, or no clip in it.
    """
    if not data_dir.is_dir():
        raise InputFileError(data_dir, "no such folder", "give --data_dir")
    clips, bad = [], []
    for folder in sorted(path for path in data_dir.iterdir() if (path / ALIGNED_IMAGES).is_dir()):
        counts = {}
        for name in (ALIGNED_IMAGES, SEGMENTATIONS, FITTED_LABELS, MOTION_VECTORS):
            counts[name] = len(_visible_files(folder / name)) if (folder / name).is_dir() else 0
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            bad.append((folder.name, f"its folders hold different numbers of files: {listed}"))
        else:
            clips.append(ClipSource(folder.name, folder))
    if not clips and not bad:
        raise InputFileError(data_dir, f"no clip (a folder with {ALIGNED_IMAGES}) in it")
    return clips, bad


def read_still(source: StillSource, rules: ReadRules) -> Packed:
    """Read one portrait as as many equal records as it has repetitions; one without a motion file is left out."""
    portrait = source.portrait
    try:
        motion = portrait.load_motion()
        if motion is None:
            return Packed(left_out=[(source.name, f"no motion vector ({MOTION_VECTORS})")])
        label = _checked_label(portrait, rules)
        image = _checked_picture(portrait.image_path, rules)
        mask = _checked_picture(portrait.segmentation_path, rules)
    except UserError as error:
        return Packed(bad=[(source.name, str(error))])
    sizes = {"channels": 3, "height": _RECORDED_SIDE, "width": _RECORDED_SIDE}
    record = sizes | {"image": image, "seg": mask, "labels": _little(label), "mots": _little(motion)}
    return Packed([encode_record(STILL, record)] * source.repetitions)


def read_clip(source: ClipSource, rules: ReadRules) -> Packed:
    """Read one clip as a record of raw frames; frames without label or motion are dropped, as the reference does."""
    try:
        portraits = PortraitFolder(source.folder).items()
        chosen = _choose_frames(source.folder, len(portraits), rules)
        if chosen is None:
            return Packed(left_out=[(source.name, f"{len(portraits)} frames, {rules.frames} are needed")])
        kept, dropped = [], []
        for number in chosen:
            portrait = portraits[number]
            complete = all(portrait.array_path(name).exists() for name in (FITTED_LABELS, MOTION_VECTORS))
            (kept if complete else dropped).append(portrait)
        left_out = [(f"{source.name}/{p.image_path.name}", "no label or no motion vector") for p in dropped]
        if not kept:
            return Packed(left_out=[*left_out, (source.name, "no frame has a label and a motion vector")])
        images = np.stack([_pixels(p.image_path, rules, colour=True) for p in kept])
        masks = [_pixels(p.segmentation_path, rules, colour=False) for p in kept]
        if len({mask.shape for mask in masks}) > 1:
            raise InputFileError(source.folder, "some masks are grey and some coloured", "make them alike")
        labels = np.stack([_checked_label(p, rules) for p in kept])
        motions = np.stack([p.load_motion() for p in kept])
    except UserError as error:
        return Packed(bad=[(source.name, str(error))])
    sizes = {"channels": 3, "height": rules.resolution, "width": rules.resolution, "num": len(kept)}
    arrays = {"images": images.data.cast("B"), "segs": np.stack(masks).data.cast("B")}
    record = sizes | arrays | {"labels": _little(labels), "mots": _little(motions)}
    return Packed([encode_record(CLIP, record)], left_out)


def _visible_files(folder: Path) -> list[Path]:
    """List a folder without the hidden files that file managers and killed runs leave there."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it reports it


def _choose_frames(folder: Path, count: int, rules: ReadRules) -> list[int] | None:
    selection = folder / f"select_index_{rules.frames}.txt"
    if not selection.is_file():
        if count < rules.frames and not rules.allow_short:
            return None
        return list(range(min(count, rules.frames)))
    try:
        chosen = sorted(int(word) for word in selection.read_text().split())
    except ValueError as error:
        raise InputFileError(selection, f"expected {rules.frames} whole numbers ({error})") from error
    complete = len(chosen) == rules.frames and chosen[0] >= 0 and chosen[-1] < count
    if not complete and rules.allow_short:
        return [number for number in chosen if 0 <= number < count] or None
    return chosen if complete else None


def _checked_label(portrait: PreparedPortrait, rules: ReadRules) -> np.ndarray:
    label = portrait.load_frame_label(simplified=False, usable=False)
    problems = label_problems(label) if rules.validate else []
    if problems:
        raise InputFileError(portrait.array_path(FITTED_LABELS), "; ".join(problems))
    return label


def _checked_picture(path: Path, rules: ReadRules) -> bytes:
    data = _read_picture(path)
    try:
        size = read_image_size(data, path.name)
        if rules.validate:
            decode_image(data, path.name)
    except ValueError as error:
        raise InputFileError(path, str(error)) from error
    _require_size(path, size, rules.resolution)
    return data


def _pixels(path: Path, rules: ReadRules, colour: bool) -> np.ndarray:
    data = _read_picture(path)
    try:
        rows = decode_image(data, path.name).permute(1, 2, 0).numpy() if colour else decode_pixels(data, path.name)
    except ValueError as error:
        raise InputFileError(path, str(error)) from error
    _require_size(path, (rows.shape[1], rows.shape[0]), rules.resolution)
    return np.ascontiguousarray(rows)


def _read_picture(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        kind = "segmentation" if path.parent.name == SEGMENTATIONS else "picture"
        raise InputFileError(path, f"no such file (missing {kind})") from error
    except OSError as error:
        raise InputFileError(path, f"cannot be read ({error.strerror})") from error


def _require_size(path: Path, size: tuple[int, int], resolution: int) -> None:
    if size != (resolution, resolution):
        problem = f"expected {resolution} x {resolution} pixels, got {size[0]} x {size[1]}"
        raise InputFileError(path, problem, "give the pictures' size as --resolution")


def _little(array: np.ndarray) -> bytes:
    return array.astype("<f4").tobytes()


def _repetitions(portraits: list[PreparedPortrait], rebalance: str) -> list[int]:
    if rebalance == "none":
        return [1] * len(portraits)
    if rebalance == "auto":
        return _repetitions_from_labels(portraits)
    table = load_repetitions(rebalance)
    try:
        return [table[int(portrait.stem) % FFHQ_COUNT] for portrait in portraits]
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{rebalance}: no number of repetitions for picture {error}; it is for FFHQ's numbered pictures, use "
            "--rebalance auto or none for others"
        ) from error


def _repetitions_from_labels(portraits: list[PreparedPortrait]) -> list[int]:
    labels = np.zeros((len(portraits), LABEL_DIM), np.float32)
    readable = np.zeros(len(portraits), bool)
    for number, portrait in enumerate(portraits):
        try:
            labels[number] = portrait.load_frame_label(simplified=False, usable=False)
            readable[number] = True
        except InputFileError:
            continue  # packing reports it
    repetitions = np.ones(len(portraits), np.int64)
    repetitions[readable] = repetitions_from_yaw(head_yaw_rad(labels[readable]))
    return repetitions.tolist()
