"""What the training loop asks of a training: networks, phases, and the gradients of a phase for a chunk of images.

An iteration sees a batch in chunks. Chunk k of n holds the images k, k + n, k + 2 n, ... of the batch, and processes
take the chunks in turns, so the same chunks come up however many processes there are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from portrait4d.config.training import OptimConfig, RunConfig, StartConfig
from portrait4d.training.distributed import Ranks, keyed_generator
from portrait4d.training.schedules import AdamSettings, average_beta, lazy_settings, scale_kimg

ChunkT = TypeVar("ChunkT")
Record = Callable[[str, Tensor | float], None]
"""Takes statistics: name and values."""


class StartedConfig(Protocol):
    """A training's configuration, whatever else it has."""

    start: StartConfig


@dataclass(frozen=True)
class Phase:
    """A part of an iteration that ends with a step of one network's optimiser.

    Attributes:
        name: such as "Gmain".
        network: which network learns, a key of `Task.networks`.
        interval: it comes in every `interval`-th iteration, the first one included.
        gain: factor on its losses, so that a rare phase counts as much as a frequent one.
    """

    name: str
    network: str
    interval: int = 1
    gain: float = 1.0


@dataclass(frozen=True)
class Moment:
    """Where a run stands: images seen by all processes, and iterations done."""

    images_seen: int = 0
    iteration: int = 0


@dataclass(frozen=True)
class Step:
    """One chunk's turn in a phase.

    Attributes:
        phase: what is learnt.
        moment: when.
        generator, host_generator: all randomness of this turn, on the device and on the CPU.
        backward: takes a loss (scalar, gain included) and adds its gradients.
        record: takes statistics.
    """

    phase: Phase
    moment: Moment
    generator: torch.Generator
    host_generator: torch.Generator
    backward: Callable[[Tensor], None]
    record: Record


class Task(ABC, Generic[ChunkT]):
    """A training.

    Attributes:
        config: its configuration; `run`, `optim`: sections of it.
        ranks: this process.
        networks: what learns, by key, in training mode.
        average: the averaged twin of networks["G"], in evaluation mode.
        phases: in their order in an iteration.
        optimisers: by network.
    """

    config: StartedConfig
    run: RunConfig
    optim: OptimConfig
    ranks: Ranks
    networks: dict[str, nn.Module]
    average: nn.Module
    phases: Sequence[Phase]
    optimisers: dict[str, torch.optim.Optimizer]

    @abstractmethod
    def load_chunks(self, moment: Moment) -> list[ChunkT]:
        """Fetch this process's share of the next batch, in chunks."""

    @abstractmethod
    def compute_gradients(self, chunk: ChunkT, step: Step) -> None:
        """Add the gradients of a phase for a chunk, through `step.backward`."""

    @abstractmethod
    def draw_pictures(self) -> dict[str, Tensor]:
        """Render the picture grid of the averaged network: {"_sr": (3, H, W) in [-1, 1], ...}."""

    @abstractmethod
    def draw_reals(self) -> Tensor:
        """Return the grid (3, H, W) in [-1, 1] of what `draw_pictures` is compared with."""

    @abstractmethod
    def skip_batches(self, count: int) -> None:
        """Go on behind `count` batches that this process has consumed."""

    def average_start(self) -> float | None:
        """Return the ramp of the averaging, see `average_beta`; None, no ramp, if there were weights to start from."""
        return self.optim.average_ramp if self.config.start.weights is None else None

    def end_iteration(self, record: Record) -> None:
        """Do what is due once in an iteration, such as adapting an augmentation."""

    def validate(self) -> dict[str, float]:
        """Measure the averaged network on held-out data; an empty result: there is nothing to measure."""
        return {}

    def extra_state(self) -> dict[str, float]:
        """Return further numbers that a resumed run needs."""
        return {}

    def load_extra_state(self, state: dict[str, float]) -> None:
        """Take `extra_state` back."""

    def close(self) -> None:
        """Stop workers."""

    def average_beta(self, moment: Moment) -> float:
        """Return the share of the averaged weights that an iteration keeps."""
        half_life = scale_kimg(self.optim.average_kimg, self.run.batch)
        return average_beta(moment.images_seen, self.run.batch, half_life, self.average_start())

    def chunk_generators(
        self, moment: Moment, key: str, chunk: int, attempt: int = 0
    ) -> tuple[torch.Generator, torch.Generator]:
        """Return the randomness, on the device and on the CPU, of this process's chunk `chunk` in the phase `key`."""
        number = self.ranks.rank + self.ranks.count * chunk
        keys = (self.run.seed, moment.iteration, key, number, attempt)
        return keyed_generator(self.ranks.device, *keys), keyed_generator("cpu", *keys, "host")

    @property
    def autocast(self) -> torch.autocast:
        """The context in which networks run."""
        dtype = getattr(torch, self.optim.precision)
        return torch.autocast(self.ranks.device.type, dtype, enabled=dtype != torch.float32)


def split_chunks(batch: Sequence[Tensor], count: int) -> list[list[Tensor]]:
    """Split a batch's tensors (B, ...) into `count` chunks, chunk k the images k, k + count, ..."""
    return [[tensor[chunk::count] for tensor in batch] for chunk in range(count)]


def lazy_phases(network: str, interval: int | None) -> list[Phase]:
    """Return the phases of a network: <network>main and, with an interval, <network>reg."""
    if interval is None:
        return [Phase(f"{network}main", network)]
    return [Phase(f"{network}main", network), Phase(f"{network}reg", network, interval, float(interval))]


def build_adam(parameters: Sequence, optim: OptimConfig, rate: float, interval: int | None) -> torch.optim.Adam:
    """Build Adam for a network that is regularised every `interval` iterations, see `lazy_settings`.

    Args:
        parameters: parameters or parameter groups; a group's "scale" multiplies its learning rate.
        optim: momenta and eps.
        rate: learning rate before the correction.
        interval: None without regularisation.
    """
    settings = lazy_settings(AdamSettings(rate, optim.beta1, optim.beta2, optim.eps), interval)
    adam = torch.optim.Adam(
        parameters, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True
    )
    for group in adam.param_groups:
        group["full_lr"] = group["lr"] = group["lr"] * group.get("scale", 1.0)
    return adam
