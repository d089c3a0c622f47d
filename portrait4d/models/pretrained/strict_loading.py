"""Files of weights that must hold exactly the tensors a network needs, under their published names."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from portrait4d.files.errors import InputFileError
from portrait4d.models.pretrained.registry import EXTERNAL_WEIGHTS, find_weights, load_tensors

_NAMES_SHOWN = 20


def load_exact_tensors(
    key: str, shapes: Mapping[str, Sequence[int]], path: str | Path | None = None, unused: str = ""
) -> dict[str, Tensor]:
    """Read tensors whose names and shapes are known, and refuse a file that lacks one or holds others.

    Args:
        key: of `EXTERNAL_WEIGHTS`.
        shapes: published name -> shape.
        path: the file; None looks in the places of `registry.find_weights`.
        unused: regular expression of further names that the file may hold.

    Returns:
        published name -> float32 tensor, on the CPU, in the order of `shapes`.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing or damaged, or holds other tensors.
    """
    path = find_weights(key) if path is None else Path(path)
    found = load_tensors(path)
    remedy = f"use {EXTERNAL_WEIGHTS[key].source}"
    missing = [name for name in shapes if name not in found]
    if missing:
        raise InputFileError(path, f"{len(missing)} of {len(shapes)} tensors are missing: {_shorten(missing)}", remedy)
    unknown = [name for name in found if name not in shapes and not re.fullmatch(unused, name)]
    if unknown:
        raise InputFileError(path, f"{len(unknown)} tensors have no use here: {_shorten(unknown)}", remedy)
    for name, shape in shapes.items():
        if found[name].shape != tuple(shape):
            problem = f"{name}: expected shape {tuple(shape)}, got {tuple(found[name].shape)}"
            raise InputFileError(path, problem, remedy)
    return {name: found[name].float() for name in shapes}


def load_exact_network(
    network: nn.Module,
    key: str,
    path: str | Path | None = None,
    unused: str = "",
    published_name: Callable[[str], str] = str,
) -> None:
    """Fill all floating tensors of a network, see `load_exact_tensors`; counters of batches stay as they are.

    Args:
        network: changed in place.
        key, path, unused: as there.
        published_name: our name -> name in the file.
    """
    state = network.state_dict()
    names = {ours: published_name(ours) for ours, value in state.items() if value.is_floating_point()}
    shapes = {theirs: state[ours].shape for ours, theirs in names.items()}
    counters = r"(.*\.)?num_batches_tracked"
    tensors = load_exact_tensors(key, shapes, path, f"{counters}|{unused}" if unused else counters)
    network.load_state_dict(state | {ours: tensors[theirs] for ours, theirs in names.items()})


def _shorten(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
