"""Networks that come with the package: small ones of the open head world, trained on no photo."""

from pathlib import Path
from typing import Literal

from portrait4d.files.errors import AssetMissingError

BUNDLED_NETWORKS = {"portrait4d": "demo-portrait4d.safetensors", "genhead": "demo-genhead.safetensors"}
"""File in `portrait4d/pretrained_models` of each: the reconstructor of one portrait, the maker of heads."""

_FOLDER = Path(__file__).resolve().parents[2] / "pretrained_models"


def bundled_path(name: Literal["portrait4d", "genhead"]) -> Path:
    """Return where a bundled network belongs, there or not."""
    return _FOLDER / BUNDLED_NETWORKS[name]


def bundled_network(name: Literal["portrait4d", "genhead"]) -> Path:
    """Return the file of a bundled network, what a script takes when no --network is given.

    Raises:
        AssetMissingError: if this installation lacks it.
    """
    path = bundled_path(name)
    if not path.is_file():
        raise AssetMissingError(
            f"the bundled demonstration network {path.name}",
            [path],
            "the repository or a complete package, or give --network another one",
        )
    return path
