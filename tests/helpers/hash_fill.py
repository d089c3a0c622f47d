"""Synthetic tensors and weights from integer hashes: the inputs behind the specification's conformance values.

Definitions: networks-reconstructor.md §12 (`hash_tensor`, `fill_plain`), networks-stylegan.md §11.2 (`fill_equalised`).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

_MASK = np.uint64(0xFFFFFFFF)
_MIX = np.uint64(0x45D9F3B)


def hash_tensor(i: int, shape: Sequence[int]) -> torch.Tensor:
    """Return H(i, shape): float32 in [-1, 1), a function of `i` and of each element's flat (C order) index alone."""
    count = math.prod(shape)
    h = np.arange(count, dtype=np.uint64)
    h *= np.uint64(2654435761)
    h += np.uint64(2246822519 * (i + 1) % 2**32)
    h &= _MASK
    for _ in range(2):
        h ^= h >> np.uint64(16)
        h *= _MIX
        h &= _MASK
    h ^= h >> np.uint64(16)
    values = h.astype(np.float64) / 2.0**31 - 1.0
    return torch.from_numpy(values.astype(np.float32)).reshape(tuple(shape))


def fill_plain(names_to_shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return the "plain" fill {name: float32 tensor} of a network's own floating-point state-dict names.

    Pass *all* floating names of the sub-network, relative to it: a tensor's number is the place of its name in sorted
    order. Names ending in `num_batches_tracked` (integers) are left out.
    """
    return {
        name: _plain_value(name, hash_tensor(i, shape))
        for i, name, shape in _numbered(names_to_shapes, "num_batches_tracked")
    }


def fill_equalised(names_to_shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return the "equalised" fill {name: float32 tensor} for StyleGAN networks, whose weights are scaled at run time.

    Pass all floating names of the whole sub-network. Names ending in `resample_filter` are left out: they are neither
    numbered nor filled, and keep their values.
    """
    return {
        name: _equalised_value(name, hash_tensor(i, shape))
        for i, name, shape in _numbered(names_to_shapes, "resample_filter")
    }


def shapes_of(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of the floating-point entries of a state dict, ready for either fill."""
    return {name: tuple(value.shape) for name, value in state.items() if value.is_floating_point()}


def _numbered(names_to_shapes: Mapping[str, Sequence[int]], left_out: str) -> list[tuple[int, str, Sequence[int]]]:
    names = sorted(name for name in names_to_shapes if not name.endswith(left_out))
    return [(i, name, names_to_shapes[name]) for i, name in enumerate(names)]


def _plain_value(name: str, v: torch.Tensor) -> torch.Tensor:
    if name.endswith("running_mean"):
        return 0.1 * v
    if name.endswith("running_var"):
        return 1 + 0.5 * v
    if v.ndim >= 2:
        return v * math.sqrt(6 / math.prod(v.shape[1:]))
    if v.ndim == 1 and name.endswith("weight"):
        return 1 + 0.1 * v
    return 0.1 * v


def _equalised_value(name: str, v: torch.Tensor) -> torch.Tensor:
    if name.endswith("noise_const"):
        return v
    if v.ndim >= 2:
        return v * math.sqrt(3) * (100 if "mapping.fc" in name else 1)
    if name.endswith("affine.bias") or (v.ndim == 1 and name.endswith("weight")):
        return 1 + 0.1 * v
    return 0.1 * v
