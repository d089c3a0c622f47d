"""What the golden files of preprocessing networks share: weights made from names, loaded as published ones; photos."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from portrait4d.data.image_io import load_image, to_uint8
from tests.golden import weights
from tests.golden.comparison import Context, Criterion, everywhere

Network = TypeVar("Network")


def load_filled(load: Callable[[Path], Network], manifest: Path) -> Network:
    """Write the manifest's weights to a file and load the network from it, as a user loads published weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({name: torch.from_numpy(array) for name, array in weights.fill(manifest).items()}, path)
        return load(path)


def load_photo(context: Context, golden: Mapping[str, np.ndarray]) -> Tensor | None:
    """Return the photo of a golden file, (3, H, W) in [-1, 1], cut to its columns; None if it is not there."""
    path = context.real / "portraits" / "align_images" / str(golden["photo"])
    if not path.is_file():
        return None
    first, last = golden.get("columns", (0, None))
    return load_image(path)[:, :, first:last]


def bgr_bytes(image: Tensor) -> np.ndarray:
    """Return a picture (3, H, W) in [-1, 1] as OpenCV has it: uint8 rows (H, W, 3), blue, green, red."""
    return np.ascontiguousarray(to_uint8(image).numpy()[::-1].transpose(1, 2, 0))


def pixels(tolerance: float, golden: np.ndarray) -> Criterion:
    """Accept if no error exceeds `tolerance` pixels (errors are relative to the largest golden value)."""
    return everywhere(tolerance / np.abs(golden).max())
