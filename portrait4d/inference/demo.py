"""The package's examples, and a stand-in for a network that is missing."""

from collections.abc import Sequence
from pathlib import Path

import torch

from portrait4d.config.load import load_config
from portrait4d.config.networks import ReconstructorConfig
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.checkpoints import save_reconstructor
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.synthetic_heads.ellipsoid_head import VERSION, build_ellipsoid_head

NETWORK_CONFIG = "reconstructor-demo-128.yaml"
EXAMPLES = Path(__file__).parents[1] / "examples"


def write_untrained_network(path: Path, config: str = NETWORK_CONFIG, overrides: Sequence[str] = ()) -> None:
    """Write a network with seeded random weights on the ellipsoid head, a small one unless `config` says otherwise."""
    torch.manual_seed(0)
    head = HeadModel.from_assets(build_ellipsoid_head(), VERSION)
    save_reconstructor(path, Reconstructor(load_config(ReconstructorConfig, config, overrides), head))
