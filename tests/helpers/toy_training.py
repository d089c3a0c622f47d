"""A training of two linear layers, quick enough to run the loop many times, and switches to disturb it."""

import copy
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from portrait4d.config.gan_networks import DiscriminatorConfig
from portrait4d.config.training import GenHeadTraining, OptimConfig, RunConfig
from portrait4d.data.loading import BatchLoader, LoadingConfig
from portrait4d.training.distributed import Ranks
from portrait4d.training.launch import Launch
from portrait4d.training.tasks import Moment, Record, Step, Task, build_adam, lazy_phases, split_chunks

ITEMS = 20
RUN = RunConfig(
    kimg=0.064, batch=8, chunk=2, tick_kimg=0.016, workers=0, image_ticks=99, network_ticks=99, state_ticks=1
)
OPTIM = OptimConfig(generator_lr=0.05, discriminator_lr=0.05)
PAUSE = "TOY_PAUSE"
"""Environment variable "FOLDER:ITERATION": there the first process writes FOLDER/here and waits for FOLDER/go.

When SIGTERM has reached it meanwhile it writes FOLDER/noted.
"""


class Pair(NamedTuple):
    """Input (3,) and output (2,) of a regression."""

    given: Tensor
    wanted: Tensor


class Pairs:
    """Pairs whose outputs are disturbed by each item's own randomness."""

    def __len__(self) -> int:
        return ITEMS

    def load(self, index: int, generator: torch.Generator | None = None) -> Pair:
        given = torch.tensor([1.0, index / ITEMS, (index % 7) / 7])
        return Pair(given, given[:2] + 0.1 * torch.randn(2, generator=generator))


class ToyNetwork(nn.Linear):
    """A linear layer that can be saved as a network."""

    config = DiscriminatorConfig()


class ToyTask(Task[Pair]):
    """G learns a regression with random disturbances, D learns G.

    Attributes:
        bad: how many more Gmain chunks have no finite gradients, from iteration `bad_from` on.
    """

    def __init__(self, config: GenHeadTraining, ranks: Ranks, bad: int = 0, bad_from: int = 0) -> None:
        self.config, self.run, self.optim, self.ranks = config, config.run, config.optim, ranks
        self.bad, self.bad_from = bad, bad_from
        generator, discriminator = ToyNetwork(3, 2).requires_grad_(False), ToyNetwork(3, 2).requires_grad_(False)
        self.networks = {"G": generator, "D": discriminator}
        self.average = copy.deepcopy(generator).eval()
        self.phases = [*lazy_phases("G", 4), *lazy_phases("D", 3)]
        self.optimisers = {
            "G": build_adam(list(generator.parameters()), self.optim, self.optim.generator_lr, 4),
            "D": build_adam(list(discriminator.parameters()), self.optim, self.optim.discriminator_lr, 3),
        }
        self.finished_iterations = 0
        self.loader: BatchLoader[Pair] | None = None

    def skip_batches(self, count: int) -> None:
        run, ranks = self.run, self.ranks
        share = run.batch // ranks.count
        self.loader = BatchLoader(Pairs(), LoadingConfig(share, run.seed, ranks.rank, ranks.count), count)

    def load_chunks(self, moment: Moment) -> list[Pair]:
        _pause(moment, self.ranks)
        count = self.run.batch // self.ranks.count // self.run.chunk_size
        return [Pair(*part) for part in split_chunks(next(self.loader), count)]

    def compute_gradients(self, chunk: Pair, step: Step) -> None:
        network = self.networks[step.phase.network]
        noise = 0.1 * torch.randn(chunk.wanted.shape, generator=step.generator)
        wanted = chunk.wanted if step.phase.network == "G" else self.networks["G"](chunk.given)
        loss = (network(chunk.given + noise.mean()) - wanted - noise).square().mean(dim=1)
        if step.phase.name.endswith("reg"):
            loss = 0.01 * loss + 0.01 * network.weight.square().sum()
        if step.phase.name == "Gmain" and self.bad and step.moment.iteration >= self.bad_from:
            self.bad -= 1
            loss = loss * float("nan")
        step.record(f"Loss/{step.phase.network}/loss", loss)
        step.backward(loss.mean() * step.phase.gain)

    def end_iteration(self, record: Record) -> None:
        self.finished_iterations += 1

    def extra_state(self) -> dict[str, float]:
        return {"finished": float(self.finished_iterations)}

    def load_extra_state(self, state: dict[str, float]) -> None:
        self.finished_iterations = int(state["finished"])

    def draw_pictures(self) -> dict[str, Tensor]:
        return {"_sr": torch.zeros(3, 8, 8)}

    def draw_reals(self) -> Tensor:
        return torch.ones(3, 8, 8)

    def average_start(self) -> float | None:
        return self.optim.average_ramp


def build_toy(config: GenHeadTraining, ranks: Ranks) -> ToyTask:
    """Build it."""
    return ToyTask(config, ranks)


def toy_config(optim: OptimConfig = OPTIM, **run: object) -> GenHeadTraining:
    """Return the configuration of a toy training, entries of its section `run` changed."""
    return GenHeadTraining(run=replace(RUN, **run), optim=optim)


def toy_job(outdir: Path, config: GenHeadTraining | None = None, **changes: object) -> Launch:
    """Return a toy training that says nothing on the terminal."""
    job = Launch(config or toy_config(), build_toy, "toy", outdir, verbose=False)
    return replace(job, **changes)


def _pause(moment: Moment, ranks: Ranks) -> None:
    folder, _, iteration = os.environ.get(PAUSE, "::").rpartition(":")
    if ranks.is_first and iteration == str(moment.iteration):
        note = signal.getsignal(signal.SIGTERM)

        def note_and_tell(number: int, frame: FrameType | None) -> None:
            note(number, frame)
            Path(folder, "noted").touch()

        signal.signal(signal.SIGTERM, note_and_tell)
        Path(folder, "here").touch()
        while not Path(folder, "go").exists():
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, note)
