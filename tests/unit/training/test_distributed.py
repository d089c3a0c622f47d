"""Processes of a run: randomness by key, gradients in one vector, and a process that is alone."""

import itertools
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import nn

from portrait4d.training.distributed import Ranks, flatten_gradients, joined_ranks, keyed_generator, spread_gradients


def draw(*key: int | str) -> list[float]:
    return torch.randn(4, generator=keyed_generator("cpu", *key)).tolist()


def test_a_key_always_gives_the_same_numbers() -> None:
    first = draw(0, 5, "Gmain", 2)
    draw(0, 6, "Gmain", 2)
    torch.manual_seed(99)
    assert draw(0, 5, "Gmain", 2) == first


def test_every_part_of_a_key_counts() -> None:
    keys = list(itertools.product((0, 1), (0, 1, 10), ("Gmain", "Dmain"), (0, 1), (0, 1)))
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)
    assert draw(1, 23) != draw(12, 3)
    assert draw(1) != draw("1")


def test_generators_of_neighbouring_keys_are_independent() -> None:
    rows = torch.stack([torch.randn(4000, generator=keyed_generator("cpu", 0, step)) for step in range(8)])
    correlation = torch.corrcoef(rows) - torch.eye(8)
    assert correlation.abs().max() < 0.08  # five standard deviations of 1 / sqrt(4000)


def test_one_process_shares_with_nobody() -> None:
    with joined_ranks(0, 1, "cpu", "") as ranks:
        assert ranks == Ranks() and ranks.is_first
    values = torch.tensor([1.0, 2.0])
    assert ranks.sum(values) is values
    assert ranks.share_decision(True) == 1.0
    ranks.broadcast([nn.Linear(2, 2)])
    ranks.wait()
    assert not Ranks(rank=1, count=2).is_first


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed by /proc")
def test_no_thread_outlives_a_group(tmp_path: Path) -> None:
    """Threads of gloo that are still there when Python ends have aborted processes."""
    torch.multiprocessing.spawn(join_and_leave, (str(tmp_path / "meeting"),), 2)


def join_and_leave(rank: int, meeting: str) -> None:
    def has_threads_of_gloo() -> bool:
        names = []
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it ends just now
                names.append((thread / "comm").read_text())
        return any("gloo" in name for name in names)

    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    with joined_ranks(rank, 2, "cpu", f"file://{meeting}") as ranks:
        torch.optim.Adam([parameter]).step()  # imports modules that look for the group
        assert ranks.sum(torch.ones(3)).tolist() == [2, 2, 2]
        assert has_threads_of_gloo()
    patience = 100
    while has_threads_of_gloo() and patience:  # the system lists a thread for a moment after its end
        time.sleep(0.1)
        patience -= 1
    assert patience


def test_gradients_go_into_a_vector_and_back() -> None:
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), ())]
    half = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    parameters[0].grad = torch.arange(6.0).view(2, 3)
    parameters[2].grad = torch.tensor(7.0)
    half.grad = torch.tensor([0.5, -2.0], dtype=torch.bfloat16)
    chosen, flat = flatten_gradients([*parameters, half])
    assert [id(p) for p in chosen] == [id(p) for p in (parameters[0], parameters[2], half)]
    assert flat.dtype == torch.float32 and flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 0.5, -2]
    spread_gradients(chosen, flat * 2)
    assert parameters[0].grad.tolist() == [[0, 2, 4], [6, 8, 10]]
    assert parameters[1].grad is None and parameters[2].grad == 14
    assert half.grad.dtype == torch.bfloat16 and half.grad.tolist() == [1, -4]


def test_no_gradients_make_an_empty_vector() -> None:
    chosen, flat = flatten_gradients([nn.Parameter(torch.zeros(2))])
    assert chosen == [] and flat.shape == (0,)


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(RuntimeError):
        spread_gradients([nn.Parameter(torch.zeros(2))], torch.zeros(3))
