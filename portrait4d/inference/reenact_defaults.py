"""What `gen_images_portrait4d.py` does unless told otherwise, which depends on the network."""

from collections.abc import Mapping
from typing import Any

from portrait4d.config.experiments import ReenactConfig
from portrait4d.models.pretrained.bundled import bundled_network


def complete_config(options: Mapping[str, Any]) -> ReenactConfig:
    """Fill in the options that are None.

    Args:
        options: fields of `ReenactConfig`. `network` None is the bundled one; `motion` None is "synthetic" (read from
            the pictures by the bundled encoder) with the bundled network, else "stored".

    Raises:
        AssetMissingError: the bundled network is wanted and not there.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if "network" not in given:
        given = {"network": bundled_network("portrait4d"), "motion": "synthetic"} | given
    return ReenactConfig(**given)
