"""How a checkpoint names an open head model that is rebuilt instead of stored."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import numpy as np

from portrait4d.geometry.flame_assets import HeadAssets


@dataclass(frozen=True)
class OpenHead:
    """Identity of a generated head: `name`, `version`, and the `sha256` of the arrays it must give."""

    name: str
    version: int
    sha256: str

    def as_dict(self) -> dict[str, str | int]:
        """Return plain values for JSON."""
        return asdict(self)


OpenHeadBuilder = Callable[[str, int], HeadAssets]
"""(name, version) to the arrays of an open head; raises ValueError for one it does not know."""


def digest_assets(assets: HeadAssets) -> str:
    """Return the SHA-256 of all arrays of a head model, in field order, with their shapes and types."""
    digest = hashlib.sha256()
    for field in fields(assets):
        value = getattr(assets, field.name)
        for name, array in sorted(value.items()) if isinstance(value, dict) else [(field.name, value)]:
            array = np.ascontiguousarray(array)
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
