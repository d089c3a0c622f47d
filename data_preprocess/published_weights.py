"""Networks with their published weights, loaded strictly: no tensor may be missing, left over or of another shape."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from portrait4d.files.errors import InputFileError
from portrait4d.models.pretrained.registry import EXTERNAL_WEIGHTS, find_weights, load_tensors

Network = TypeVar("Network", bound=nn.Module)

_COUNTER = "num_batches_tracked"  # of normalisation layers; without use in evaluation mode
_LISTED = 4


def load_published(
    build: Callable[[], Network],
    key: str,
    path: str | Path | None = None,
    *,
    published_name: Callable[[str], str] = str,
    unused: tuple[str, ...] = (),
    entry: str = "state_dict",
) -> Network:
    """Build a network with published weights, float32, in evaluation mode, without gradients, on the CPU.

    Args:
        build: makes the network; called on the meta device.
        key: of `EXTERNAL_WEIGHTS`.
        path: the published file or the same tensors as `.safetensors`; None looks in the places of `find_weights`.
        published_name: our name of a tensor to the file's.
        unused: beginnings of the file's names of tensors that the network does without.
        entry: see `load_tensors`.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing, damaged, or does not hold exactly this network.
    """
    path = find_weights(key) if path is None else Path(path)
    published = load_tensors(path, entry)
    with torch.device("meta"):
        network = build()
    wanted = {published_name(name): (name, tensor) for name, tensor in network.state_dict().items()}
    missing = [name for name in wanted if name not in published and not name.endswith(_COUNTER)]
    unexpected = [name for name in published if name not in wanted and not name.startswith(unused)]
    shapes = [
        f"{name} {tuple(published[name].shape)} instead of {tuple(tensor.shape)}"
        for name, (_, tensor) in wanted.items()
        if name in published and published[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} tensors {kind} ({', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        weights = EXTERNAL_WEIGHTS[key]
        problem = f"expected the {weights.title}, found {', '.join(problems)}"
        raise InputFileError(path, problem, f"get it from {weights.source}")
    zero = torch.zeros((), dtype=torch.int64)
    state = {ours: published.get(name, zero).to(tensor.dtype) for name, (ours, tensor) in wanted.items()}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)
