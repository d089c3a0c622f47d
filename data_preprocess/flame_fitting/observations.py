"""What fitting reads of a picture: its landmarks, and the head to start from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_preprocess.bfm_to_flame.flame_files import FLAME_PARAMS, FlameShape, load_flame_shape
from data_preprocess.flame_fitting.energies import target_points
from data_preprocess.flame_fitting.solver import START_TRANSLATION
from portrait4d.data.image_io import read_image_size
from portrait4d.data.portrait_folder import SIMPLIFIED_LABELS, PreparedPortrait
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.head_fit import HeadFit
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, split_label

START_FOLDERS = {"bfm2flame": FLAME_PARAMS, "simplified": SIMPLIFIED_LABELS, "neutral": None}
"""Ways to start, and the folders that hold the heads to start from."""


@dataclass(frozen=True)
class Observation:
    """A picture to fit: `targets` (70, 2) pixels of a 512 picture, y up, and the head to start from."""

    portrait: PreparedPortrait
    targets: np.ndarray
    start: FlameShape


def load_observation(portrait: PreparedPortrait, start: str, start_root: Path) -> Observation:
    """Load landmarks and start of a picture.

    Args:
        portrait: its root holds the landmarks.
        start: a key of START_FOLDERS.
        start_root: holds the folder of heads to start from.

    Raises:
        InputFileError: a file is missing, damaged, or holds something else; or the picture is not square.
    """
    size = _picture_size(portrait.image_path)
    targets = target_points(portrait.load_landmarks98(), portrait.load_landmarks68(), size)
    return Observation(portrait, targets, _load_start(portrait, start, start_root))


def stack_start(observations: list[Observation], shared_shape: bool, device: torch.device) -> HeadFit:
    """Stack the heads to start from, the camera at its usual place; a shared shape (1, 300) is their mean."""
    shape, expression, rotation, jaw = (
        torch.from_numpy(np.stack([getattr(observation.start, name) for observation in observations])).to(device)
        for name in ("shape", "expression", "rotation_rad", "jaw_rad")
    )
    if shared_shape:
        shape = shape.mean(0, keepdim=True)
    translation = torch.tensor(START_TRANSLATION, device=device).repeat(len(observations), 1)
    return HeadFit(shape, expression, rotation, jaw, torch.zeros_like(jaw), translation)


def stack_targets(observations: list[Observation], device: torch.device) -> Tensor:
    """Stack the landmarks, (B, 70, 2)."""
    return torch.from_numpy(np.stack([observation.targets for observation in observations])).to(device)


def _load_start(portrait: PreparedPortrait, start: str, root: Path) -> FlameShape:
    if start == "bfm2flame":
        return load_flame_shape(root / FLAME_PARAMS / f"{portrait.stem}.npy")
    if start == "simplified":
        mapped = PreparedPortrait(portrait.stem, portrait.image_path, root)
        _, params = split_label(torch.from_numpy(mapped.load_frame_label(simplified=True))[None])
        arrays = (params.shape[0], params.expression[0], params.pose[0, :3], params.pose[0, 3:], torch.zeros(3))
        return FlameShape(*(array.numpy() for array in arrays))
    return FlameShape(*(np.zeros(size, np.float32) for size in (SHAPE_DIM, EXPRESSION_DIM, 3, 3, 3)))


def _picture_size(path: Path) -> int:
    try:
        width, height = read_image_size(path.read_bytes(), path.name)
    except (OSError, ValueError) as error:
        raise InputFileError(path, "not a readable picture (damaged?)") from error
    if width != height:
        raise InputFileError(path, f"expected a square picture, got {width} x {height} pixels")
    return width
