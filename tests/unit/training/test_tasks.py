"""What the loop and trainings share: chunks, phases, optimisers, randomness of a chunk, precision."""

import pytest
import torch
from torch import nn

from portrait4d.config.training import OptimConfig
from portrait4d.training.distributed import Ranks
from portrait4d.training.tasks import Moment, Phase, build_adam, lazy_phases, split_chunks
from tests.helpers.toy_training import ToyTask, toy_config


def test_chunks_take_turns() -> None:
    numbers, squares = torch.arange(6), torch.arange(6)[:, None] ** 2
    chunks = split_chunks([numbers, squares], 3)
    assert [chunk[0].tolist() for chunk in chunks] == [[0, 3], [1, 4], [2, 5]]
    assert [chunk[1].flatten().tolist() for chunk in chunks] == [[0, 9], [1, 16], [4, 25]]


@pytest.mark.parametrize(("batch", "chunk"), [(8, 2), (8, 1), (16, 4), (4, 4)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_same_chunks_come_up_however_many_processes_there_are(batch: int, chunk: int, count: int) -> None:
    if batch // count % chunk:
        pytest.skip("the share of a process is no multiple of the chunk")
    batch_numbers, found = torch.arange(batch), {}
    for rank in range(count):
        share = batch_numbers[rank::count]  # as data.loading deals positions out
        for number, (numbers,) in enumerate(split_chunks([share], batch // count // chunk)):
            found[rank + count * number] = numbers.tolist()
    alone = [numbers.tolist() for (numbers,) in split_chunks([batch_numbers], batch // chunk)]
    assert [found[number] for number in sorted(found)] == alone


def test_a_chunk_has_the_same_randomness_however_many_processes_there_are() -> None:
    config = toy_config()

    def draw(rank: int, count: int, chunk: int, attempt: int = 0) -> tuple[float, float]:
        task = ToyTask(config, Ranks(rank, count))
        pair = task.chunk_generators(Moment(80, 10), "Gmain", chunk, attempt)
        return tuple(float(torch.rand((), generator=generator)) for generator in pair)

    alone = [draw(0, 1, chunk) for chunk in range(4)]
    assert [draw(rank, 2, chunk) for chunk in range(2) for rank in range(2)] == alone
    assert len({value for pair in alone for value in pair}) == 8
    assert draw(0, 1, 0, attempt=1) != alone[0]


def test_lazy_phases() -> None:
    assert lazy_phases("D", 16) == [Phase("Dmain", "D"), Phase("Dreg", "D", 16, 16.0)]
    assert lazy_phases("G", None) == [Phase("Gmain", "G")]


def test_adam_is_corrected_for_lazy_regularisation() -> None:
    """Published values: G 0.0025 every 4th iteration, so 0.002 and beta2 0.99^0.8 (training-genhead.md §4.6)."""
    group = build_adam([nn.Parameter(torch.zeros(1))], OptimConfig(), 0.0025, 4).param_groups[0]
    assert group["lr"] == pytest.approx(0.002) and group["betas"] == (0.0, pytest.approx(0.99**0.8))
    assert group["eps"] == 1e-8
    group = build_adam([nn.Parameter(torch.zeros(1))], OptimConfig(), 0.002, None).param_groups[0]
    assert group["lr"] == 0.002 and group["betas"] == (0.0, 0.99)


def test_groups_of_parameters_can_learn_slower() -> None:
    slow, quick = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    adam = build_adam([{"params": [slow], "scale": 0.1}, {"params": [quick]}], OptimConfig(), 0.01, None)
    assert [group["lr"] for group in adam.param_groups] == [pytest.approx(0.001), 0.01]


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_networks_run_in_the_precision_of_the_configuration(precision: str, dtype: torch.dtype) -> None:
    task = ToyTask(toy_config(OptimConfig(precision=precision)), Ranks())
    with task.autocast:
        assert task.networks["G"](torch.ones(1, 3)).dtype == dtype


def test_the_half_life_of_the_average_follows_the_batch() -> None:
    task = ToyTask(toy_config(OptimConfig(average_ramp=None)), Ranks())
    half_life = 10_000 * task.run.batch / 32
    assert task.average_beta(Moment(10**6, 1)) == pytest.approx(0.5 ** (task.run.batch / half_life))
    task = ToyTask(toy_config(OptimConfig(average_ramp=0.05)), Ranks())
    assert task.average_beta(Moment(0, 0)) == 0.0
    assert task.average_beta(Moment(1000, 1)) == pytest.approx(0.5 ** (task.run.batch / 50))
