"""The 257 coefficients of a face: what the Deep3DFace network gives and the Basel Face Model takes.

Source: preprocess-networks.md §4.2, preprocess-pipeline.md §3.
"""

from typing import NamedTuple

import torch
from torch import Tensor

COEFFICIENTS = 257
_SIZES = (80, 64, 80, 3, 27, 3)
_FILE_KEYS = ("id", "exp", "tex", "angle", "gamma", "trans")


class BfmCoefficients(NamedTuple):
    """Coefficients of B faces.

    Attributes:
        identity: (B, 80) in standard deviations.
        expression: (B, 64).
        texture: (B, 80) in standard deviations.
        angle_rad: (B, 3) pitch, yaw, roll.
        lighting: (B, 27) spherical harmonics, nine of red, green and blue in turn, less 0.8 in the first of each.
        translation: (B, 3) in decimetres.
    """

    identity: Tensor
    expression: Tensor
    texture: Tensor
    angle_rad: Tensor
    lighting: Tensor
    translation: Tensor

    @classmethod
    def from_vector(cls, vector: Tensor) -> "BfmCoefficients":
        """Split vectors (B, 257).

        Raises:
            ValueError: another shape.
        """
        if vector.ndim != 2 or vector.shape[1] != COEFFICIENTS:
            raise ValueError(f"vector: expected shape (B, {COEFFICIENTS}), got {tuple(vector.shape)}")
        return cls(*vector.split(_SIZES, dim=1))

    @property
    def vector(self) -> Tensor:
        """All coefficients in a row, (B, 257)."""
        return torch.cat(self, dim=1)

    def file_entries(self, row: int) -> dict[str, Tensor]:
        """Return the coefficients of one face by the keys of published `bfm_params` files, each (1, n)."""
        return {key: values[row : row + 1] for key, values in zip(_FILE_KEYS, self, strict=True)}
