"""motion-*.npz: alignment and PD-FGC motion encoder on a real photo, with weights made from names."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.geometry.face_alignment import motion_crop
from portrait4d.models.pretrained.motion_encoder import MotionEncoder, published_name
from tests.golden import weights
from tests.golden.comparison import Context, Result, compare, everywhere


@lru_cache(maxsize=1)
def golden_encoder(manifest: Path) -> MotionEncoder:
    """Build the encoder with the manifest's weights."""
    filled = {name: torch.from_numpy(array) for name, array in weights.fill(manifest).items()}
    encoder = MotionEncoder()
    state = {
        name: filled.get(published_name(name), value)  # counters of normalisation layers are not filled
        for name, value in encoder.state_dict().items()
    }
    encoder.load_state_dict(state)
    return encoder.eval()


@torch.no_grad()
def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare transform, crop, head pose and motion vector."""
    golden = np.load(path)
    folder = context.real / "portraits"
    if not folder.is_dir():
        yield Result(path.name, "photo", np.inf, np.inf, False, f"{folder} is not there: give --real")
        return
    stem = Path(str(golden["photo"])).stem
    portrait = next(item for item in PortraitFolder(folder).items() if item.stem == stem)
    image, landmarks = portrait.load_image()[None], torch.from_numpy(portrait.load_landmarks68())[None]
    crops, transforms = motion_crop(image, landmarks)
    codes = golden_encoder(context.find("manifest-motion-encoder.json"))(crops)
    ours = {
        "transform": transforms[0],
        "crop": crops[0, :, ::4, ::4],
        "headpose": codes.head_pose[0],
        "motion": codes.vector[0],
    }
    for array, value in ours.items():
        yield compare(path, array, value.numpy(), golden[array], everywhere(1e-4))
