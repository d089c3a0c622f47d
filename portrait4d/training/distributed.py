"""Several processes that train one network together: who is who, sums over all, equal weights everywhere.

One process needs none of this and pays nothing for it. Started by `launch.py` or by torchrun.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed

# An optimiser's first step imports this. Its default arguments then keep the process group of that moment for good, and
# the group's threads now and then abort the process at its end; imported before there is a group, they keep none.
import torch.distributed.nn.functional
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run.

    Attributes:
        rank: number of this process, 0 is the one that writes.
        count: processes.
        device: where this process computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor up over all processes, in place."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def broadcast(self, modules: Iterable[nn.Module]) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.count > 1:
            for module in modules:
                for tensor in module.state_dict().values():
                    torch.distributed.broadcast(tensor, 0)

    def share_decision(self, number: float) -> float:
        """Return the first process's number."""
        if self.count == 1:
            return float(number)  # without a word to a GPU, which would have to finish its work first
        decided = torch.tensor([float(number)], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(decided, 0)
        return float(decided)

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            torch.distributed.barrier()


@contextmanager
def joined_ranks(rank: int, count: int, device_type: str, init_method: str) -> Iterator[Ranks]:
    """Join the processes of a run for the time of the block: NCCL between GPUs, gloo between CPUs.

    Args:
        rank, count: this process and their number.
        device_type: "cuda" or "cpu".
        init_method: where they meet, such as "file:///tmp/x/meeting" or "env://".
    """
    local = int(os.environ.get("LOCAL_RANK", rank))
    device = torch.device("cuda", local % torch.cuda.device_count()) if device_type == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if count == 1:
        yield Ranks(rank, count, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=init_method, rank=rank, world_size=count)
    try:
        yield Ranks(rank, count, device)
    finally:
        torch.distributed.destroy_process_group()


def keyed_generator(device: torch.device | str, *key: int | str) -> torch.Generator:
    """Return a generator whose numbers follow from the key alone.

    Every step's randomness has such a key (seed, iteration, phase, number of the chunk), so a resumed run needs no
    generator states, and several processes together draw what one would.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "little"))


def flatten_gradients(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], Tensor]:
    """Return the parameters that have gradients, and all gradients in one vector, float32."""
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    if not with_gradient:
        return [], torch.zeros(0)
    return with_gradient, torch.cat([parameter.grad.flatten().float() for parameter in with_gradient])


def spread_gradients(parameters: list[nn.Parameter], flat: Tensor) -> None:
    """Write a vector of `flatten_gradients` back."""
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype)
