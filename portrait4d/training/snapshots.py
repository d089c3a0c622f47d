"""What a run writes besides its log: picture grids, networks, and states to go on from.

A state is one .safetensors file: tensors "G.<name>", "D.<name>", "average.<name>", "adam.<network>.<parameter's
number>.<moment>", and the counters as JSON in its metadata. It is written under a temporary name and renamed, so an
interrupted write leaves the older states as they were. The head model is not part of it.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from portrait4d.data.image_io import save_image
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError, OutputFileError, UserError
from portrait4d.models.checkpoints import HEAD, save_network
from portrait4d.training.run_state import RunState
from portrait4d.training.tasks import Task

STATE_FORMAT = "portrait4d-training-1"
_STATE = re.compile(r"state-(\d+)\.safetensors")
_NETWORK = re.compile(r"network-snapshot-(\d+)\.safetensors")


class Snapshots:
    """The files of a run directory `folder`; only the first process writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say in one line that something could not be written within the block.

        Raises:
            UserError: the disk is full, or the like.
        """
        try:
            yield
        except OutputFileError as error:
            raise UserError(f"{error}; free space, then run again") from error
        except (OSError, SafetensorError) as error:  # safetensors says by an error of its own that the disk is full
            raise UserError(f"{self.folder}: cannot be written ({error}); free space, then run again") from error

    def save_pictures(self, task: Task, state: RunState) -> None:
        """Write fakes<kimg><suffix>.png, and once reals.png."""
        if not task.ranks.is_first:
            return
        reals = self.folder / "reals.png"
        if not reals.is_file():
            save_image(reals, task.draw_reals())
        for suffix, picture in task.draw_pictures().items():
            save_image(self.folder / f"fakes{state.images_seen // 1000:06d}{suffix}.png", picture)

    def save_network(self, task: Task, state: RunState) -> None:
        """Write the averaged network as network-snapshot-<kimg>.safetensors."""
        if task.ranks.is_first:
            save_network(self.folder / f"network-snapshot-{state.images_seen // 1000:06d}.safetensors", task.average)
            _keep_newest(self.folder, _NETWORK, task.run.keep_networks)

    def save_state(self, task: Task, state: RunState) -> None:
        """Write state-<images>.safetensors and remove older ones."""
        if not task.ranks.is_first:
            return
        tensors = {f"average.{name}": tensor for name, tensor in own_tensors(task.average).items()}
        for key, network in task.networks.items():
            tensors |= {f"{key}.{name}": tensor for name, tensor in own_tensors(network).items()}
            for number, moments in task.optimisers[key].state_dict()["state"].items():
                tensors |= {f"adam.{key}.{number}.{name}": tensor for name, tensor in moments.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"format": STATE_FORMAT, "state": json.dumps(state.as_dict())}
        with atomic_path(self.folder / f"state-{state.images_seen:010d}.safetensors") as temporary:
            save_file(tensors, temporary, metadata=metadata)
        _keep_newest(self.folder, _STATE, task.run.keep_states)

    def load_state(self, task: Task, state: RunState) -> bool:
        """Put a run where its newest state is; return whether there is one.

        Raises:
            InputFileError: if it is damaged or does not fit the networks.
        """
        found = newest_state(self.folder)
        if found is None:
            return False
        tensors, values = read_state(found)
        modules = {**task.networks, "average": task.average}
        for key, module in modules.items():
            _load_strictly(found, module, _section(tensors, f"{key}."))
        for key, optimiser in task.optimisers.items():
            _load_moments(optimiser, _section(tensors, f"adam.{key}."))
        vars(state).update(vars(RunState.from_dict(values)))
        task.load_extra_state(state.extra)
        return True

    def require_space(self, task: Task) -> None:
        """Check that the disk takes the states that will be kept, and one more while it is written.

        Raises:
            UserError: naming how much is needed.
        """
        floats = sum(p.numel() for p in task.average.parameters())
        floats += 3 * sum(p.numel() for network in task.networks.values() for p in network.parameters())
        needed = 4 * floats * (task.run.keep_states + 1)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"{self.folder}: {needed / 2**30:.1f} GiB are needed for the states of this run, {free / 2**30:.1f} "
                "GiB are free; free space, choose another --outdir or lower run.keep_states"
            )


def own_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's state without that of its head model, which the configuration names."""
    return {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(HEAD)}


def newest_state(folder: Path) -> Path | None:
    """Return the state with the most images seen in a run directory, None if there is none."""
    found = _numbered(folder, _STATE)
    return found[-1] if found else None


def read_state(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read a state file: its tensors and its counters.

    Raises:
        InputFileError: if it is damaged or no state.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if metadata.get("format") != STATE_FORMAT:
            raise InputFileError(path, f"expected a training state of format {STATE_FORMAT}")
        return tensors, json.loads(metadata["state"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputFileError(path, f"no readable state ({error})", "remove it: the one before is used then") from None


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_strictly(path: Path, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    own = own_tensors(module)
    different = sorted(own.keys() ^ tensors.keys()) or [n for n in own if own[n].shape != tensors[n].shape]
    if different:
        raise InputFileError(path, f"does not fit the networks of this run ({different[0]} ...)", "use its own config")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _load_moments(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, moment = name.split(".", 1)
        moments.setdefault(int(number), {})[moment] = tensor
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})


def _numbered(folder: Path, pattern: re.Pattern) -> list[Path]:
    """Return the files whose names match, the number in the name ascending."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _keep_newest(folder: Path, pattern: re.Pattern, count: int | None) -> None:
    if count is not None:
        for path in _numbered(folder, pattern)[:-count]:
            path.unlink()
