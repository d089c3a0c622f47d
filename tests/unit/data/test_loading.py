"""Orders and batches: the same whatever the workers, resumable anywhere, dealt out to ranks without loss."""

from itertools import islice
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.data.loading import BatchLoader, LoadingConfig
from portrait4d.data.sampling import grid_size, shuffled_order, subset_indices
from portrait4d.files.errors import InputFileError


class Drawn(NamedTuple):
    index: Tensor
    number: Tensor


class Numbers:
    """Items that tell their index and a random number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def load(self, index: int, generator: torch.Generator | None = None) -> Drawn:
        return Drawn(torch.tensor(index), torch.rand((), generator=generator))


def batches(config: LoadingConfig, count: int, items: int = 10, done: int = 0) -> list[tuple[list[int], list[float]]]:
    loader = BatchLoader(Numbers(items), config, done)
    result = [(batch.index.tolist(), batch.number.tolist()) for batch in islice(loader, count)]
    assert loader.batches_done == done + count
    loader.close()
    return result


def test_order_by_the_letter_of_its_definition() -> None:
    count, seed = 9, 4
    rng = np.random.RandomState(seed)
    order = np.arange(count)
    rng.shuffle(order)
    window, expected = int(np.rint(count / 2)), []
    for position in range(200):
        here = position % count
        expected.append(order[here])
        there = (here - rng.randint(window)) % count
        order[here], order[there] = order[there], order[here]
    assert list(islice(shuffled_order(count, seed), 200)) == expected
    assert list(islice(shuffled_order(count, seed, start=77), 123)) == expected[77:]


def test_order_across_blocks_of_draws() -> None:
    start = 2**16 - 5
    whole = list(islice(shuffled_order(11, 1), start + 20))
    assert list(islice(shuffled_order(11, 1, start), 20)) == whole[start:]


def test_every_item_comes_about_equally_often() -> None:
    counts = np.bincount(list(islice(shuffled_order(50, 0), 50 * 40)), minlength=50)
    assert counts.min() >= 30 and counts.max() <= 50


def test_ranks_deal_out_one_order() -> None:
    shared = list(islice(shuffled_order(10, 3), 24))
    dealt = [None] * 24
    for rank in range(2):
        got = sum((indices for indices, _ in batches(LoadingConfig(4, 3, rank, 2), 3)), [])
        dealt[rank::2] = got
    assert dealt == shared


def test_workers_and_resuming_change_nothing() -> None:
    alone = batches(LoadingConfig(3, seed=1), 8)
    assert batches(LoadingConfig(3, seed=1, workers=2), 8) == alone
    assert batches(LoadingConfig(3, seed=1), 5, done=3) == alone[3:]
    assert batches(LoadingConfig(3, seed=2), 8) != alone
    numbers = sum((numbers for _, numbers in alone), [])
    assert len(set(numbers)) == len(numbers), "items are drawn anew each time"


class Damaged(Numbers):
    """Numbers of which the last cannot be read."""

    def load(self, index: int, generator: torch.Generator | None = None) -> Drawn:
        if index == self.count - 1:
            raise InputFileError("some.db", f"record {index} is damaged", "pack it again")
        return super().load(index, generator)


@pytest.mark.parametrize("workers", [0, 1])
def test_problems_of_items_come_out_as_they_were(workers: int) -> None:
    loader = BatchLoader(Damaged(4), LoadingConfig(4, workers=workers))
    with pytest.raises(InputFileError, match="^some.db: record 3 is damaged; pack it again$") as caught:
        next(loader)
    assert str(caught.value.path) == "some.db" and loader.batches_done == 0
    loader.close()


def test_epochs_are_counted() -> None:
    loader = BatchLoader(Numbers(10), LoadingConfig(4, ranks=2))
    next(loader)
    assert loader.epoch == 0
    next(loader)
    assert loader.epoch == 1


def test_subsets() -> None:
    assert subset_indices(5).tolist() == [0, 1, 2, 3, 4]
    kept = subset_indices(20, 7, seed=1)
    assert len(set(kept.tolist())) == 7 and kept.tolist() == sorted(kept.tolist())
    assert subset_indices(3, 9, copies=2).tolist() == [0, 1, 2, 0, 1, 2]
    assert grid_size(512) == (7, 4) and grid_size(64) == (8, 8)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="rank: expected 0 to 1, got 2"):
        LoadingConfig(4, rank=2, ranks=2)
    with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
        LoadingConfig(0)
    with pytest.raises(ValueError, match="dataset: expected at least one item"):
        BatchLoader(Numbers(0), LoadingConfig(1))
    with pytest.raises(ValueError, match="count, start"):
        next(shuffled_order(0, 0))
