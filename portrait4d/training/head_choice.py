"""Which head model a training uses: the licensed FLAME or the open one, never one for the other."""

import copy
from typing import Literal

from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.flame_assets import find_flame_folder, load_flame_assets
from portrait4d.synthetic_heads.figure import open_head_model


def load_head(choice: Literal["flame", "synthetic"]) -> HeadModel:
    """Load FLAME from the user's files, or build the open head.

    Raises:
        AssetMissingError: FLAME's files are not there.
        InputFileError: one of them is damaged.
    """
    if choice == "flame":
        return HeadModel.from_assets(load_flame_assets(find_flame_folder()))
    return copy.deepcopy(open_head_model())  # that one is shared and stays on the CPU
