"""crop-*.npz: portrait and regressor crops of real photos, their landmarks, and the smoothing of a track."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from data_preprocess.landmarks_2d import TRACKING_ENLARGEMENT, bounding_boxes, enlarge_boxes
from data_preprocess.portrait_crop import (
    FIVE_POINTS_OF_98,
    REGRESSOR,
    CropTransform,
    Placement,
    PortraitCrop,
    crop_portrait,
)
from data_preprocess.track_smoothing import PlacementSmoother
from portrait4d.data.image_io import to_uint8
from tests.golden.comparison import Context, Result, compare, everywhere
from tests.golden.preprocess_cases import load_photo

EXACT, MATHS = everywhere(0), everywhere(1e-9)
LEVELS = everywhere(2 / 255)
"""For pictures that another JPEG decoder than the recording's has read."""


def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare transforms, crops and landmarks of every picture, then the smoothed track."""
    golden = np.load(path)
    for prefix in sorted({name.split("_")[0] for name in golden.files} - {"smooth"}):
        case = {name.removeprefix(f"{prefix}_"): golden[name] for name in golden.files if name.startswith(prefix)}
        yield from _check_picture(path, context, prefix, case)
    smoother = PlacementSmoother()
    track = zip(golden["smooth_scale"].tolist(), golden["smooth_shift"].tolist(), strict=True)
    smoothed = [smoother.smooth(Placement(scale, tuple(shift)), frame) for frame, (scale, shift) in enumerate(track)]
    for array, name in (("scale", "smooth_scale_out"), ("shift", "smooth_shift_out")):
        yield compare(path, name, np.array([getattr(one, array) for one in smoothed]), golden[name], MATHS)


def _check_picture(path: Path, context: Context, prefix: str, case: Mapping[str, np.ndarray]) -> Iterator[Result]:
    photo = load_photo(context, case)
    if photo is None:
        yield Result(path.name, f"{prefix}_photo", np.inf, np.inf, False, f"{case['photo']} is not there: give --real")
        return
    (top, bottom), step = case["rows"], int(case["step"])
    image = photo[:, top:bottom:step, ::step]
    points98, points68 = (torch.from_numpy(case[f"landmarks{n}"]) for n in (98, 68))
    portrait = crop_portrait(image, points98, points68)
    regressor = crop_portrait(image, points98, kind=REGRESSOR)
    box = bounding_boxes(points98[None])
    upwards = points98[list(FIVE_POINTS_OF_98)] * torch.tensor([1, -1]) + torch.tensor([0, image.shape[1] - 1])
    values = {
        "five_points": upwards,
        "transform": transform_row(portrait.transform),
        "five_points_crop": five_points_up(portrait),
        "landmarks98_crop": portrait.landmarks98,
        "landmarks68_crop": portrait.landmarks68,
        "recon_transform": transform_row(regressor.transform),
        "recon_five_points": five_points_up(regressor),
        "landmark_box": box[0],
        "enlarged_box": enlarge_boxes(box, TRACKING_ENLARGEMENT)[0],
    }
    for array, value in values.items():
        yield compare(path, f"{prefix}_{array}", np.asarray(value), case[array], MATHS)
    yield compare(path, f"{prefix}_resized", portrait.transform.resized_size, case["resized"], EXACT)
    yield compare(path, f"{prefix}_corner", portrait.transform.corner, case["corner"], EXACT)
    same_decoder = crc32(rgb_bytes(image)) == case["image_checksum"]
    for crop, array, checksum in (
        (portrait.image, "crop", "crop_checksum"),
        (regressor.image, "recon_crop", "recon_checksum"),
    ):
        rows = rgb_bytes(crop)
        step = len(rows) // len(case[array])
        levels, digest = (EXACT, EXACT) if same_decoder else (LEVELS, everywhere(np.inf))
        yield compare(path, f"{prefix}_{array}", rows[::step, ::step], case[array], levels)
        yield compare(path, f"{prefix}_{checksum}", crc32(rows), case[checksum], digest)


def transform_row(transform: CropTransform) -> np.ndarray:
    """Return (width, height, scale, shift x, shift y) of a transform as golden files hold them."""
    return np.array([*transform.image_size, transform.placement.scale, *transform.placement.shift])


def five_points_up(crop: PortraitCrop) -> np.ndarray:
    """Return the five points of a crop, y up, counted from its lower edge."""
    x, y = crop.landmarks98[list(FIVE_POINTS_OF_98)].T
    return torch.stack([x, crop.transform.kind.size - y], -1).numpy()


def rgb_bytes(image: Tensor) -> np.ndarray:
    """Return a picture (3, H, W) in [-1, 1] as uint8 rows (H, W, 3), red, green, blue."""
    return np.ascontiguousarray(to_uint8(image).numpy().transpose(1, 2, 0))
