"""The photos to animate: found, tracked once and kept, encoded by the network."""

import hashlib
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.image_io import load_image, resize_picture, to_uint8
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, PortraitFolder, PreparedPortrait
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError
from portrait4d.files.home import expand_home
from portrait4d.geometry.head_params import LABEL_DIM, split_label
from portrait4d.inference.driving_sources import list_pictures, read_prepared
from portrait4d.inference.head_states import HeadState
from portrait4d.inference.reenact import Frame, Reenactor
from portrait4d.inference.tracking import CropPlace, TrackedFrame, TrackerMaker
from portrait4d.models.outputs import SourceFeatures

LONGEST_SIDE = 1920
"""Of photos that heads are pasted back into; larger ones are made smaller."""

_KEPT = 64
_ARRAYS = {"image": 3, "label": 1, "landmarks_pixels": 2, "motion": 1, "image_size": 1, "crop_to_image": 2}
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Source:
    """A head to animate.

    Attributes:
        name: of the picture, without suffix.
        frame: what the network takes of it, on the device.
        features: what the network makes of it.
        state: its pose and expression in the photo.
        photo: (3, H, W) in [-1, 1].
        place: of the network's crop in the photo.
    """

    name: str
    frame: Frame
    features: SourceFeatures
    state: HeadState
    photo: Tensor
    place: CropPlace


def list_sources(paths: Sequence[Path]) -> list[Path | PreparedPortrait]:
    """List photos and prepared portraits in order: those named, and those in the folders named, sorted.

    A picture in `align_images` of a prepared folder is taken as prepared.

    Raises:
        InputFileError: no such file or folder, or nothing in it.
    """
    found: list[Path | PreparedPortrait] = []
    for path in map(expand_home, paths):
        if (path / ALIGNED_IMAGES).is_dir():
            found += PortraitFolder(path).items()
        elif path.is_file() and path.parent.name == ALIGNED_IMAGES:
            found.append(PreparedPortrait(path.stem, path, path.parent.parent))
        else:
            found += list_pictures(path)
    return found


def load_sources(
    paths: Sequence[Path], reenactor: Reenactor, make_tracker: TrackerMaker, cache: Path | None
) -> list[Source]:
    """Track and encode sources.

    Args:
        paths: see `list_sources`.
        reenactor: the loaded network.
        make_tracker: finds the face of photos.
        cache: folder where tracked photos are kept; None: nowhere.

    Raises:
        InputFileError: a picture that cannot be read, or without a face.
    """
    sources = []
    for found in list_sources(paths):
        if isinstance(found, PreparedPortrait):
            tracked = read_prepared(found, reenactor.network.config.motion_kind != "flame")
            sources.append(encode(found.stem, tracked, tracked.image, reenactor))
        else:
            photo = load_image(found)
            tracked = track_photo(found, photo, make_tracker, cache)
            sources.append(encode(found.stem, tracked, photo, reenactor))
    return sources


def track_photo(path: Path, photo: Tensor, make_tracker: TrackerMaker, cache: Path | None) -> TrackedFrame:
    """Track the face of a photo, or take what was kept of it.

    Args:
        path: of the photo.
        photo: (3, H, W) in [-1, 1].
        make_tracker: finds the face.
        cache: folder of the latest 64 tracked photos, by their bytes and the tracker's name; None: keep nothing. If it
            cannot be written, nothing is kept either.

    Raises:
        InputFileError: there is no face in it.
    """
    kept = None
    if cache is not None:
        digest = hashlib.sha256(make_tracker.name.encode() + b"\0" + path.read_bytes()).hexdigest()
        kept = expand_home(cache) / f"{digest[:32]}.npz"
        if (known := _load(kept)) is not None:
            return known
    rows = to_uint8(photo).permute(1, 2, 0).contiguous().numpy()
    tracked = make_tracker().track([rows])[0]
    if tracked is None:
        raise InputFileError(path, "no face found", make_tracker.hint)
    if kept is not None:
        with suppress(OSError):
            _save(kept, tracked)
    return tracked


def encode(name: str, tracked: TrackedFrame, photo: Tensor, reenactor: Reenactor) -> Source:
    """Encode a tracked photo by the network."""
    size, device = reenactor.network.config.image_resolution, reenactor.device
    crop_size = tracked.image.shape[-1]
    image = tracked.image if crop_size == size else resize_picture(tracked.image, (size, size))
    camera, params = split_label(torch.from_numpy(tracked.label)[None].to(device))
    motion = torch.from_numpy(tracked.motion)[None].to(device)
    if reenactor.network.config.motion_kind == "flame":
        motion = params.flame_motion()
    frame = Frame(image[None].to(device), camera, params, motion)
    photo, place = _shrink(photo, tracked.crop.resized(crop_size, size))
    state = HeadState.from_label(tracked.label, tracked.motion)
    return Source(name, frame, reenactor.encode_source(frame), state, photo, place)


def _shrink(photo: Tensor, place: CropPlace) -> tuple[Tensor, CropPlace]:
    """Bring a photo to at most `LONGEST_SIDE` pixels a side."""
    width, height = place.image_size
    factor = LONGEST_SIDE / max(width, height)
    if factor >= 1:
        return photo, place
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    factors = np.array(size)[:, None] / [[width], [height]]
    matrix = factors * place.crop_to_image
    matrix[:, 2:] += (factors - 1) / 2
    return resize_picture(photo, size), CropPlace(size, matrix)


def _save(path: Path, tracked: TrackedFrame) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            image=tracked.image.cpu().numpy(),
            label=tracked.label,
            landmarks_pixels=tracked.landmarks_pixels,
            motion=tracked.motion,
            image_size=np.array(tracked.crop.image_size),
            crop_to_image=tracked.crop.crop_to_image,
        )
    oldest_last = sorted(path.parent.glob("*.npz"), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in oldest_last[_KEPT:]:
        old.unlink(missing_ok=True)


def _load(path: Path) -> TrackedFrame | None:
    """Load what was kept, None if it is not there or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
        if any(arrays[name].ndim != axes for name, axes in _ARRAYS.items()) or arrays["label"].shape != (LABEL_DIM,):
            return None
        width, height = (int(side) for side in arrays["image_size"])
    except _UNREADABLE:
        return None
    place = CropPlace((width, height), arrays["crop_to_image"])
    image = torch.from_numpy(arrays["image"])
    return TrackedFrame(image, arrays["label"], arrays["landmarks_pixels"], arrays["motion"], place)
