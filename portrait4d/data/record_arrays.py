"""Record fields as checked arrays, for the two kinds that trainings read."""

import math
from dataclasses import dataclass

import numpy as np

from portrait4d.data.image_io import decode_image, decode_pixels, read_image_size
from portrait4d.data.portrait_folder import MOTION_DIM
from portrait4d.data.records import CLIP, STILL, Fields, require_fields
from portrait4d.geometry.head_params import LABEL_DIM


@dataclass(frozen=True)
class ClipArrays:
    """Arrays of one clip, views of the record.

    Attributes:
        images: (F, H, W, 3) uint8 RGB.
        masks: (F, H, W, C) uint8, C = 1 or 3.
        labels: (F, 437) float32.
        motions: (F, 548) float32.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    motions: np.ndarray


def still_side(fields: Fields) -> int:
    """Return the side in pixels of a still record's picture; width and height of the record are always 512.

    Raises:
        ValueError: a field is missing, or the picture is none or not square.
    """
    require_fields(STILL, fields)
    width, height = read_image_size(fields["image"], "image")
    if width != height:
        raise ValueError(f"image: expected a square picture, got {width} x {height} pixels")
    return width


def still_picture(fields: Fields, name: str) -> np.ndarray:
    """Decode `name`, "image" or "seg", of a still record to (3, H, W) uint8 RGB.

    Raises:
        ValueError: the field is missing or no readable picture.
    """
    require_fields(STILL, fields)
    return decode_image(fields[name], name).numpy()


def mask_coverage(fields: Fields) -> np.ndarray:
    """Decode the mask of a still record to (H, W) uint8, the first channel."""
    rows = decode_pixels(fields["seg"], "seg")
    return rows if rows.ndim == 2 else rows[..., 0]


def still_label(fields: Fields) -> np.ndarray:
    """Return a copy of the label (437,) of a still record.

    Raises:
        ValueError: the field is missing or has another length.
    """
    return _floats(fields, "labels", 1, LABEL_DIM)[0].copy()


def still_motion(fields: Fields) -> np.ndarray:
    """Return a copy of the motion vector (548,) of a still record.

    Raises:
        ValueError: the field is missing or shorter.
    """
    return _floats(fields, "mots", 1, MOTION_DIM)[0, :MOTION_DIM].copy()


def clip_arrays(fields: Fields) -> ClipArrays:
    """View a clip record as arrays; sizes follow from the lengths of its fields.

    Raises:
        ValueError: a field is missing or its length fits no clip of square frames.
    """
    require_fields(CLIP, fields)
    frames = fields["num"]
    images = np.frombuffer(fields["images"], np.uint8)
    side = math.isqrt(images.size // (3 * frames)) if frames > 0 else 0
    if not side or images.size != 3 * frames * side * side:
        raise ValueError(f"images: expected {frames} square RGB pictures, got {images.size} bytes")
    masks = np.frombuffer(fields["segs"], np.uint8)
    channels = masks.size // (frames * side * side)
    if channels not in (1, 3) or masks.size != frames * side * side * channels:
        raise ValueError(f"segs: expected {frames} masks of {side} pixels with 1 or 3 channels, got {masks.size} bytes")
    return ClipArrays(
        images.reshape(frames, side, side, 3),
        masks.reshape(frames, side, side, channels),
        _floats(fields, "labels", frames, LABEL_DIM),
        _floats(fields, "mots", frames, MOTION_DIM)[:, :MOTION_DIM],
    )


def _floats(fields: Fields, name: str, rows: int, columns: int) -> np.ndarray:
    if name not in fields:
        raise ValueError(f"{name}: expected float32 numbers, got no such field")
    data = fields[name]
    width = len(data) // (4 * rows)
    fits = width == columns if name == "labels" else width >= columns
    if len(data) != 4 * rows * width or not fits:
        raise ValueError(f"{name}: expected {rows} x {columns} float32 numbers, got {len(data)} bytes")
    return np.frombuffer(data, "<f4").reshape(rows, width)
