"""Weights that a run begins with, taken by name from a published pickle, or from a network or state of ours.

A tensor is copied where name and shape agree; where the first dimension here is exactly twice as long, into the second
half; else what is here stays. Source: training-genhead.md §4.4, training-recon-v1.md §2.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from portrait4d.files.errors import InputFileError
from portrait4d.models.checkpoints import HEAD, read_safetensors
from portrait4d.models.upstream_networks import content_from_upstream
from portrait4d.models.upstream_pickles import read_network_pickle
from portrait4d.training.snapshots import own_tensors, read_state
from portrait4d.training.tasks import Task

_STYLE_AVERAGE, _RECONSTRUCTOR_STYLE = "mapping.average", "average_style"


def load_starting_weights(path: Path, task: Task) -> list[str]:
    """Copy weights into a task's networks and their average; return a line for each network.

    Raises:
        InputFileError: if the file is missing, damaged, or has nothing for the generator.
    """
    found = read_starting_weights(path)
    modules = {**task.networks, "average": task.average}
    lines, copied_to_generator = [], 0
    for key, module in modules.items():
        tensors = found.get(key, {})
        copied = copy_matching(module, tensors)
        copied_to_generator += copied if key == "G" else 0
        lines.append(f"{key}: {copied} of {len(own_tensors(module))} tensors from {path}, which has {len(tensors)}")
    if not copied_to_generator:
        raise InputFileError(path, "has no tensor that fits the generator of this configuration", "give another file")
    return lines


def read_starting_weights(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read the tensors for "G", "D" and "average" that a file has, by our names.

    Raises:
        InputFileError: if the file is missing or damaged.
    """
    if not path.is_file():
        raise InputFileError(path, "no such file", "give a published .pkl, a network or a state of ours")
    if path.suffix == ".pkl":
        return _read_pickle(path)
    if path.name.startswith("state-"):
        tensors, _ = read_state(path)
        return {
            key: {name.removeprefix(f"{key}."): t for name, t in tensors.items() if name.startswith(f"{key}.")}
            for key in ("G", "D", "average")
        }
    description, tensors = read_safetensors(path)
    own = _with_style_average({name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)})
    return {"D": own} if description.get("network") == "discriminator" else {"G": own, "average": own}


@torch.no_grad()
def copy_matching(module: nn.Module, tensors: dict[str, Tensor]) -> int:
    """Copy tensors into a module by name, see above; return how many were."""
    copied = 0
    for name, own in own_tensors(module).items():
        given = tensors.get(name)
        if given is None:
            continue
        if given.shape == own.shape:
            own.copy_(given)
        elif given.ndim == own.ndim > 0 and given.shape[1:] == own.shape[1:] and len(own) == 2 * len(given):
            own[len(given) :].copy_(given)
        else:
            continue
        copied += 1
    return copied


def _read_pickle(path: Path) -> dict[str, dict[str, Tensor]]:
    records = read_network_pickle(path, ["G", "D", "G_ema"])
    keys = {"G": "G", "D": "D", "G_ema": "average"}
    return {
        keys[entry]: _with_style_average(content_from_upstream(record, path).tensors)
        for entry, record in records.items()
        if record is not None
    }


def _with_style_average(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Offer a GenHead's average style under the name that reconstructors have for it, too."""
    if _STYLE_AVERAGE in tensors and _RECONSTRUCTOR_STYLE not in tensors:
        return {**tensors, _RECONSTRUCTOR_STYLE: tensors[_STYLE_AVERAGE]}
    return tensors
