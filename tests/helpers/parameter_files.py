"""Small parameter sets in the form of the published ones."""

from pathlib import Path

import numpy as np

from portrait4d.data.sample_rows import IDENTITIES, MOTIONS
from tests.helpers.cameras import frontal_camera


def write_parameter_sets(folder: Path, rows: int = 4) -> Path:
    """Write both FFHQ sets with seeded rows, (rows / 2, 2, 325) and (rows, 112), float32; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    camera = np.repeat(frontal_camera().numpy(), rows, axis=0)
    identities = np.concatenate([camera, random.normal(size=(rows, 300))], axis=1).astype(np.float32)
    np.save(folder / IDENTITIES, identities.reshape(rows // 2, 2, 325))
    np.save(folder / MOTIONS, random.normal(scale=0.1, size=(rows, 112)).astype(np.float32))
    return folder
