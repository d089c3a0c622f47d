"""Uploads that stay for a while: photos as prepared portraits, driving clips as files, both under secret keys."""

import shutil
from pathlib import Path

from portrait4d.data.image_io import load_image, save_image, to_uint8
from portrait4d.data.portrait_folder import (
    ALIGNED_IMAGES,
    FITTED_LABELS,
    LANDMARKS_68,
    MOTION_VECTORS,
    PreparedPortrait,
)
from portrait4d.files.errors import UserError
from portrait4d.inference.tracking import TrackedFrame
from portrait4d.synthetic_heads.portraits import save_array
from portrait4d.webapp.state import AppState
from portrait4d.webapp.uploads import Upload, UploadLimits, accept_upload

_ARRAYS = (FITTED_LABELS, LANDMARKS_68, MOTION_VECTORS)


def add_source(state: AppState, claimed: object) -> str:
    """Take an uploaded photo, find its face, and keep the crop as a prepared portrait; return its key.

    Raises:
        UserError: it is refused, shows no face, or there is no tracker.
    """
    with state.workspace.job() as folder:
        upload = _accept(state, claimed, folder)
        if upload.kind != "picture":
            raise UserError("This is a film. Upload a photo here; films drive a head, under Reenact.")
        picture = to_uint8(load_image(upload.path)).permute(1, 2, 0).contiguous().numpy()
        tracked = state.trackers()().track([picture])[0]
    if tracked is None:
        raise UserError("No face was found in this photo. Take one that shows a single face from the front.")
    kept = state.workspace.new_folder()
    write_tracked(kept, "photo", tracked)
    return state.uploaded_sources.add(kept)


def add_clip(state: AppState, claimed: object) -> tuple[str, Upload]:
    """Take an uploaded film or picture that shall drive; return its key and what it is.

    Raises:
        UserError: it is refused.
    """
    kept = state.workspace.new_folder()
    try:
        upload = _accept(state, claimed, kept)
    except UserError:
        shutil.rmtree(kept, ignore_errors=True)
        raise
    return state.uploaded_clips.add(kept), upload


def _accept(state: AppState, claimed: object, folder: Path) -> Upload:
    limits = UploadLimits(state.config.max_bytes, state.config.max_seconds)
    return accept_upload(claimed, state.workspace.uploads, folder, limits)


def write_tracked(folder: Path, stem: str, tracked: TrackedFrame) -> None:
    """Write a tracked face as the portrait `stem` of a prepared folder."""
    for kind, array in zip(_ARRAYS, (tracked.label, tracked.landmarks_pixels, tracked.motion), strict=True):
        save_array(folder / kind / f"{stem}.npy", array)
    save_image(folder / ALIGNED_IMAGES / f"{stem}.png", tracked.image)


def copy_portrait(portrait: PreparedPortrait, folder: Path) -> None:
    """Copy one portrait into a prepared folder of its own."""
    for path in (portrait.image_path, *map(portrait.array_path, _ARRAYS)):
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
