"""What visitors send: taken from the upload folder, judged by content, never by name, size or type as claimed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from portrait4d.data.image_io import load_image, read_image_size
from portrait4d.data.video_io import measure_film
from portrait4d.files.errors import InputFileError, UserError

SMALLEST_SIDE, LARGEST_SIDE = 48, 8192
MAX_PICTURE_PIXELS, MAX_FILM_PIXELS = 32_000_000, 4096 * 2304
_HEAD_BYTES = 16


@dataclass(frozen=True)
class UploadLimits:
    """How much an upload may hold.

    Attributes:
        max_bytes: of a file.
        max_seconds: of a film.
    """

    max_bytes: int
    max_seconds: float


@dataclass(frozen=True)
class Upload:
    """A picture or film that was accepted.

    Attributes:
        kind: what it is.
        path: the file, with the suffix of its true type and a name of ours.
        width, height: pixels.
        duration_s: of a film; 0 for a picture.
    """

    kind: Literal["picture", "film"]
    path: Path
    width: int
    height: int
    duration_s: float = 0.0


def accept_upload(claimed: object, uploads: Path, folder: Path, limits: UploadLimits) -> Upload:
    """Move an upload to `folder` and check it; a refused one is deleted.

    Args:
        claimed: what the browser says of it: its path, or a dictionary with "path".
        uploads: folder in which it must lie.
        folder: where it goes.
        limits: how large it may be.

    Raises:
        UserError: it is no picture and no film, damaged, or too large, long or small; the text is fit for a page.
    """
    path = _claimed_path(claimed, uploads)
    try:
        suffix = _check_bytes(path, limits)
        target = folder / f"upload{suffix}"
        os.replace(path, target)
    finally:
        path.unlink(missing_ok=True)
        if path.parent != uploads and not any(path.parent.iterdir()):
            path.parent.rmdir()
    try:
        return _check_picture(target) if suffix in (".png", ".jpg", ".webp") else _check_film(target, limits)
    except UserError as error:
        target.unlink(missing_ok=True)
        raise UserError(readable(error)) from None


def sniff_suffix(head: bytes) -> str | None:
    """Tell the suffix of a picture or film from its first 16 bytes; None if it is neither, or of another type.

    Only containers that name no other files: playlists make a decoder open what they list.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if head.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if head.startswith(b"RIFF"):
        return {b"WEBP": ".webp", b"AVI ": ".avi"}.get(head[8:12])
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return ".webm"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return ".mp4"
    return None


def readable(error: UserError) -> str:
    """Return an error's text without the paths of this machine."""
    return error.problem if isinstance(error, InputFileError) else str(error)


def _claimed_path(claimed: object, uploads: Path) -> Path:
    name = claimed.get("path") if isinstance(claimed, dict) else claimed
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError("No file arrived. Please choose it again.")
    path = Path(name)
    if path.is_symlink() or not path.resolve().is_relative_to(uploads.resolve()) or not path.is_file():
        raise UserError("This file is no longer here. Please choose it again.")
    return path.resolve()


def _check_bytes(path: Path, limits: UploadLimits) -> str:
    size = path.stat().st_size
    if not size:
        raise UserError("This file is empty.")
    if size > limits.max_bytes:
        raise UserError(f"This file has {size / 2**20:.0f} MB; at most {limits.max_bytes / 2**20:.0f} MB are accepted.")
    with path.open("rb") as file:
        suffix = sniff_suffix(file.read(_HEAD_BYTES))
    if suffix is None:
        raise UserError("This is neither a picture (PNG, JPEG, WebP) nor a film (MP4, MOV, WebM, MKV, AVI).")
    return suffix


def _check_picture(path: Path) -> Upload:
    try:
        width, height = read_image_size(path.read_bytes(), "picture")
    except ValueError:
        raise UserError("This picture is damaged, or far too large.") from None
    _check_side(width, height)
    if width * height > MAX_PICTURE_PIXELS:
        raise UserError(_too_many(width, height, MAX_PICTURE_PIXELS))
    try:
        load_image(path)
    except InputFileError:
        raise UserError("This picture is damaged or cut short.") from None
    return Upload("picture", path, width, height)


def _check_film(path: Path, limits: UploadLimits) -> Upload:
    try:
        extent = measure_film(path)
    except InputFileError:
        raise UserError("This is not a film that can be read, or it is damaged.") from None
    _check_side(extent.width, extent.height)
    if extent.width * extent.height > MAX_FILM_PIXELS:
        raise UserError(_too_many(extent.width, extent.height, MAX_FILM_PIXELS))
    if extent.duration_s > limits.max_seconds:
        raise UserError(
            f"This film lasts {_minutes(extent.duration_s)}; at most {limits.max_seconds:g} s are accepted. Cut it."
        )
    return Upload("film", path, extent.width, extent.height, extent.duration_s)


def _check_side(width: int, height: int) -> None:
    if min(width, height) < SMALLEST_SIDE:
        raise UserError(f"{width} x {height} pixels are too few to find a face in; at least {SMALLEST_SIDE} a side.")
    if max(width, height) > LARGEST_SIDE:
        raise UserError(f"{width} x {height} pixels are too many; at most {LARGEST_SIDE} a side.")


def _too_many(width: int, height: int, most: int) -> str:
    return f"{width} x {height} pixels are too many; at most {most / 1e6:.0f} million."


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
