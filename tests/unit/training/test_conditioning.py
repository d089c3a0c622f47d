"""Swapped conditionings: who gets whose, how often, and one coin for all."""

import pytest
import torch

from portrait4d.training.conditioning import sample_conditioning, swap_conditioning

ROWS = torch.arange(4.0)[:, None] * torch.ones(1, 3)


def test_a_draw_below_the_probability_takes_the_predecessors() -> None:
    draws = torch.tensor([[0.1], [0.5], [0.49], [0.9]])
    assert swap_conditioning(ROWS, draws, 0.5)[:, 0].tolist() == [3, 1, 1, 3]


def test_one_draw_decides_for_all() -> None:
    assert swap_conditioning(ROWS, torch.tensor([[0.3]]), 0.5)[:, 0].tolist() == [3, 0, 1, 2]
    assert torch.equal(swap_conditioning(ROWS, torch.tensor([[0.7]]), 0.5), ROWS)


def test_certain_never_and_unconditioned() -> None:
    draws = torch.tensor([[0.0], [0.5], [0.7], [1 - 2**-24]])
    assert swap_conditioning(ROWS, draws, 1.0)[:, 0].tolist() == [3, 0, 1, 2]
    assert torch.equal(swap_conditioning(ROWS, draws, 0.0), ROWS)
    assert not swap_conditioning(ROWS, draws, None).any()
    assert not sample_conditioning(ROWS, None).any()


def test_a_lone_sample_is_its_own_predecessor() -> None:
    assert torch.equal(sample_conditioning(ROWS[:1], 1.0), ROWS[:1])


def test_frequency() -> None:
    rows = torch.arange(4000.0)[:, None]
    generator = torch.Generator().manual_seed(0)
    swapped = (sample_conditioning(rows, 0.25, generator=generator) != rows).float().mean()
    assert swapped.item() == pytest.approx(0.25, abs=0.03)
    coins = [bool((sample_conditioning(ROWS, 0.25, True, generator) != ROWS).any()) for _ in range(800)]
    assert sum(coins) / 800 == pytest.approx(0.25, abs=0.06)
    for _ in range(50):
        changed = (sample_conditioning(ROWS, 0.5, True, generator) != ROWS).any(dim=1)
        assert changed.all() or not changed.any()


def test_another_number_of_draws_is_refused() -> None:
    with pytest.raises(ValueError, match=r"draws: expected shape \(4, 1\) or \(1, 1\), got \(4,\)"):
        swap_conditioning(ROWS, torch.zeros(4), 0.5)
