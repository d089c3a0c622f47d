"""Endless batches from a data set: the same for a seed and rank whatever the number of workers, resumable anywhere.

Ranks deal out one shared order (`sampling.shuffled_order`): global position i belongs to rank i mod ranks. What is
random about an item (which frames of a clip) is drawn from a generator seeded with (seed, position). So a run is
described by how many batches it has consumed, and goes on exactly there.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch.utils.data import Dataset

from portrait4d.data.sampling import shuffled_order
from portrait4d.data.worker_errors import build_loader, unwrap_batch

ItemT = TypeVar("ItemT", bound=tuple)
_MIX = 0x9E3779B97F4A7C15


class LoadableDataset(Protocol[ItemT]):
    """What is loaded from: numbered items, and a generator for what is random about them."""

    def __len__(self) -> int: ...

    def load(self, index: int, generator: torch.Generator | None = None) -> ItemT:
        """Load item `index`."""
        ...


@dataclass(frozen=True)
class LoadingConfig:
    """How batches are made.

    Attributes:
        batch: items per batch of this rank.
        seed: of the order and of what is random about items.
        rank, ranks: which share of the order this process takes.
        workers: processes that read ahead; 0 reads in this one.
        prefetch: batches that each worker reads ahead.
        pin_memory: put batches in page-locked memory, for copies to a GPU that do not block; None: if there is a GPU.
    """

    batch: int
    seed: int = 0
    rank: int = 0
    ranks: int = 1
    workers: int = 0
    prefetch: int = 2
    pin_memory: bool | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("workers", 0), ("prefetch", 1), ("ranks", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank: expected 0 to {self.ranks - 1}, got {self.rank}")


class _Key(NamedTuple):
    index: int
    position: int


class _Positioned(Dataset):
    """A data set whose items are drawn by place in the order."""

    def __init__(self, dataset: LoadableDataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, key: _Key) -> tuple:
        mixed = (self.seed * _MIX + key.position * 0xBF58476D1CE4E5B9 + 1) & (2**63 - 1)
        return self.dataset.load(key.index, torch.Generator().manual_seed(mixed))


class _Batches:
    """Batch sampler: keys of this rank's batches, from batch number `start` on, for ever."""

    def __init__(self, count: int, config: LoadingConfig, start: int) -> None:
        self.count, self.config, self.start = count, config, start

    def __iter__(self) -> Iterator[list[_Key]]:
        config = self.config
        first = self.start * config.batch * config.ranks + config.rank
        order = islice(shuffled_order(self.count, config.seed, first), 0, None, config.ranks)
        position = first
        while True:
            keys = [_Key(index, position + k * config.ranks) for k, index in enumerate(islice(order, config.batch))]
            position += config.batch * config.ranks
            yield keys


class BatchLoader(Generic[ItemT]):
    """Iterate over batches for ever. Items' tensors get a leading B.

    Args:
        dataset: what to load.
        config: how.
        batches_done: how many batches an earlier run has consumed.

    Attributes:
        batches_done: batches handed out so far, earlier runs included: all that is needed to resume.

    Raises:
        ValueError: an empty data set.
    """

    def __init__(self, dataset: LoadableDataset[ItemT], config: LoadingConfig, batches_done: int = 0) -> None:
        if not len(dataset):
            raise ValueError("dataset: expected at least one item, got none")
        if batches_done < 0:
            raise ValueError(f"batches_done: expected at least 0, got {batches_done}")
        self.batches_done = batches_done
        self.config = config
        self._items = len(dataset)
        ahead = {"prefetch_factor": config.prefetch, "worker_init_fn": _start_worker} if config.workers else {}
        loader = build_loader(
            _Positioned(dataset, config.seed),
            batch_sampler=_Batches(len(dataset), config, batches_done),
            num_workers=config.workers,
            pin_memory=torch.cuda.is_available() if config.pin_memory is None else config.pin_memory,
            **ahead,
        )
        self._batches = iter(loader)

    def __iter__(self) -> Iterator[ItemT]:
        return self

    def __next__(self) -> ItemT:
        batch = unwrap_batch(next(self._batches))
        self.batches_done += 1
        return batch

    @property
    def epoch(self) -> int:
        """How many times the whole data set has been gone through by all ranks together."""
        return self.batches_done * self.config.batch * self.config.ranks // self._items

    def close(self) -> None:
        """Stop the workers."""
        shutdown = getattr(self._batches, "_shutdown_workers", None)
        if shutdown:
            shutdown()


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a run; the main one decides
        signal.signal(number, signal.SIG_IGN)
