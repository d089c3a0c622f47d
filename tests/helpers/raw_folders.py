"""Raw folders as the database generators read them: painted heads, ellipses as masks, seeded motion vectors."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from portrait4d.data.image_io import encode_image
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, FITTED_LABELS, MOTION_DIM, MOTION_VECTORS, SEGMENTATIONS
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world, project_points
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams, join_label
from portrait4d.synthetic_heads.ellipsoid_head import VERSION, build_ellipsoid_head
from portrait4d.synthetic_heads.ellipsoid_portrait import paint_portrait, sample_look

FOLDERS = (ALIGNED_IMAGES, SEGMENTATIONS, FITTED_LABELS, MOTION_VECTORS)


@lru_cache(maxsize=1)
def _head() -> HeadModel:
    return HeadModel.from_assets(build_ellipsoid_head(), VERSION)


def painted_label(yaw_rad: float, pitch_rad: float = 0.0, smile: float = 0.0) -> torch.Tensor:
    """Return the label (1, 437) of an upright ellipsoid head seen from the side by `yaw_rad`, jaw and eyes turned."""
    cam2world = orbit_cam2world(torch.tensor(yaw_rad), torch.tensor(pitch_rad))
    expression = torch.zeros(1, EXPRESSION_DIM)
    expression[0, 0] = smile
    pose = torch.tensor([[0.0, 0.0, 0.0, 0.1, 0.02, 0.03]])
    eyes = torch.tensor([[0.0, 0.1, 0.02, 0.0, 0.05, -0.01]])
    params = HeadParams(torch.zeros(1, SHAPE_DIM), expression, pose, eyes)
    return join_label(join_camera(cam2world, intrinsics_from_fov())[None], params)


def painted_picture(label: torch.Tensor, seed: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Paint the head of a label: picture and mask (3, side, side) in [-1, 1]; the mask is the landmarks' ellipse."""
    from portrait4d.geometry.head_params import split_label

    camera, params = split_label(label)
    look = sample_look(np.random.default_rng(seed))
    picture = paint_portrait(look, camera[0], params.pose[0], params.expression[0], side)
    outline = project_points(_head()(params), camera)[0] * side
    low, high = outline.min(0).values, outline.max(0).values
    centre, radius = (low + high) / 2, (high - low) / 2 * 1.02
    x = torch.arange(side) + 0.5
    inside = ((x[None] - centre[0]) / radius[0]) ** 2 + ((side - x[:, None] - centre[1]) / radius[1]) ** 2 < 1
    return picture, (inside.float() * 2 - 1).expand(3, -1, -1)


def write_portrait(root: Path, stem: str, seed: int, side: int, yaw_rad: float, kind: str = "PNG") -> None:
    """Write one portrait of a raw folder: picture, mask, label, motion vector."""
    label = painted_label(yaw_rad, 0.02 * seed, 0.1 * seed)
    picture, mask = painted_picture(label, seed, side)
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    suffix = ".png" if kind == "PNG" else ".jpg"
    (root / ALIGNED_IMAGES / f"{stem}{suffix}").write_bytes(encode_image(picture, kind))
    (root / SEGMENTATIONS / f"{stem}{suffix}").write_bytes(encode_image(mask, kind))
    np.save(root / FITTED_LABELS / f"{stem}.npy", label[0].numpy())
    motion = np.random.default_rng(seed).normal(size=MOTION_DIM).astype(np.float32)
    np.save(root / MOTION_VECTORS / f"{stem}.npy", motion)


def write_stills(root: Path, count: int, side: int = 32, distinct: int = 6) -> Path:
    """Write `count` portraits numbered from 0 in FFHQ's folders, and as many of the mirrored half; few are distinct."""
    for number in range(count):
        first = number < distinct
        for base in (0, 70000):
            folder = root / f"{base // 1000:02d}000"
            stem = f"{base + number:05d}"
            if first:
                yaw = 0.15 * number * (1 if base else -1)
                write_portrait(folder, stem, number, side, yaw, "JPEG" if number == 1 else "PNG")
                continue
            _copy(folder, f"{base + number % distinct:05d}", stem)
    return root


def write_clips(root: Path, clips: int, frames: int, side: int = 32, distinct: int = 4) -> Path:
    """Write clips of `frames` frames each, few of them distinct."""
    for clip in range(clips):
        folder = root / f"clip-{clip:03d}"
        for frame in range(frames):
            stem = f"{frame:05d}"
            if frame < distinct and clip < 2:
                write_portrait(folder, stem, 10 * clip + frame, side, 0.1 * frame - 0.1)
            else:
                source = root / f"clip-{clip % 2:03d}"
                _copy(folder, f"{frame % distinct:05d}", stem, source)
    return root


def _copy(folder: Path, old: str, new: str, source: Path | None = None) -> None:
    for name in FOLDERS:
        place = (source or folder) / name
        path = next(path for path in place.iterdir() if path.stem == old)
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{new}{path.suffix}").hardlink_to(path)
