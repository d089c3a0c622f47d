"""A small benchmark on the open head world, quick to render."""

import json
from dataclasses import replace
from pathlib import Path

from portrait4d.config.load import plain_config
from portrait4d.config.recon_metrics import SyntheticProtocol
from portrait4d.inference.synthetic_benchmark import load_protocol, world_sums


def small_protocol(identities: int = 2) -> SyntheticProtocol:
    """Return synthetic-v1 with few persons, three frames a clip, and one view from the side."""
    zeros = {"shape_sums": (0.0,) * identities, "motion_sums": (0.0,) * (identities + 1)}
    small = replace(
        load_protocol("synthetic-v1"),
        name="small",
        identities=identities,
        moments=(2,),
        view_frame=2,
        yaws_deg=(0.0, 30.0),
        **zeros,
    )
    shapes, motions = world_sums(small)
    return replace(small, shape_sums=tuple(shapes), motion_sums=tuple(motions))


def write_protocol(path: Path, protocol: SyntheticProtocol) -> Path:
    """Write a definition as a file."""
    path.write_text(json.dumps(plain_config(protocol)))
    return path
