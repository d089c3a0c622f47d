"""Weights to start from: which tensors are copied, and which files are taken."""

from pathlib import Path

import pytest
import torch
from torch import nn

from portrait4d.config.gan_networks import DiscriminatorConfig, GenHeadConfig, tiny_discriminator
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.checkpoints import save_network
from portrait4d.models.discriminator import Discriminator
from portrait4d.models.genhead import GenHead
from portrait4d.training.distributed import Ranks
from portrait4d.training.run_state import RunState
from portrait4d.training.snapshots import Snapshots, newest_state, own_tensors
from portrait4d.training.starting_weights import copy_matching, load_starting_weights, read_starting_weights
from tests.golden.cases import standin_head
from tests.golden.kind_network import hollow_value
from tests.helpers.cli import ROOT
from tests.helpers.tiny_genhead import build_tiny_genhead
from tests.helpers.toy_training import ToyTask, toy_config
from tests.helpers.training_runs import assert_same_bits

PICKLE = ROOT / "tests/golden/network-genhead.pkl"


def task_of(generator: nn.Module, discriminator: nn.Module, average: nn.Module) -> ToyTask:
    """Return a task with other networks."""
    task = ToyTask(toy_config(), Ranks())
    task.networks, task.average = {"G": generator, "D": discriminator}, average
    return task


def module(**tensors: torch.Tensor) -> nn.Module:
    """Return a module with buffers."""
    network = nn.Module()
    for name, tensor in tensors.items():
        network.register_buffer(name, tensor)
    return network


def test_the_same_shape_is_copied_and_a_double_one_in_its_second_half() -> None:
    network = module(
        same=torch.zeros(2, 3), twice=torch.zeros(4, 3), other=torch.zeros(4, 2), deeper=torch.zeros(4, 3, 1),
        short=torch.zeros(2), number=torch.zeros(()), absent=torch.zeros(1),
    )  # fmt: skip
    ones = {
        "same": (2, 3),
        "twice": (2, 3),
        "other": (2, 3),
        "deeper": (2, 3),
        "short": (4,),
        "number": (),
        "new": (1,),
    }
    assert copy_matching(network, {name: torch.ones(shape) for name, shape in ones.items()}) == 3
    assert network.same.eq(1).all() and network.number == 1
    assert network.twice[:2].eq(0).all() and network.twice[2:].eq(1).all()
    for name in ("other", "deeper", "short", "absent"):
        assert getattr(network, name).eq(0).all(), name


def test_parameters_are_copied_whatever_they_ask_for() -> None:
    network = nn.Linear(2, 1)
    assert copy_matching(network, {"weight": torch.full((1, 2), 5.0)}) == 1
    assert network.weight.eq(5).all() and network.weight.requires_grad


def test_a_network_of_ours_starts_the_generator_and_its_average(ellipsoid: HeadModel, tmp_path: Path) -> None:
    source = build_tiny_genhead(ellipsoid)
    source.mapping.average.fill_(0.25)
    save_network(tmp_path / "g.safetensors", source)
    task = task_of(build_tiny_genhead(ellipsoid), Discriminator(tiny_discriminator()), build_tiny_genhead(ellipsoid))
    for network in (task.networks["G"], task.average):
        torch.nn.init.zeros_(network.decoder.density.weight)
    before = {name: tensor.clone() for name, tensor in task.networks["D"].state_dict().items()}
    lines = load_starting_weights(tmp_path / "g.safetensors", task)
    assert_same_bits(own_tensors(task.networks["G"]), own_tensors(source))
    assert_same_bits(own_tensors(task.average), own_tensors(source))
    assert_same_bits(task.networks["D"].state_dict(), before)
    count = len(own_tensors(source))
    assert lines[0] == f"G: {count} of {count} tensors from {tmp_path / 'g.safetensors'}, which has {count + 1}"
    assert lines[1].startswith(f"D: 0 of {len(before)} tensors")


def test_a_discriminator_alone_is_nothing_to_start_from(tmp_path: Path) -> None:
    source = Discriminator(tiny_discriminator())
    save_network(tmp_path / "d.safetensors", source)
    assert_same_bits(read_starting_weights(tmp_path / "d.safetensors")["D"], source.state_dict())
    with pytest.raises(InputFileError, match="has no tensor that fits the generator of this configuration"):
        load_starting_weights(tmp_path / "d.safetensors", ToyTask(toy_config(), Ranks()))


def test_a_state_starts_all_networks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, task = ToyTask(toy_config(), Ranks()), ToyTask(toy_config(), Ranks())
    Snapshots(tmp_path).save_state(source, RunState(images_seen=8))
    path = newest_state(tmp_path)
    lines = load_starting_weights(path, task)
    assert lines == [f"{key}: 2 of 2 tensors from {path}, which has 2" for key in ("G", "D", "average")]
    for key, network in source.networks.items():
        assert_same_bits(task.networks[key].state_dict(), network.state_dict())
    assert not task.optimisers["G"].state_dict()["state"]


def test_a_published_pickle_has_every_tensor_of_both_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    # the hollow file's head has the right names and no sense; a run has its head from its configuration
    monkeypatch.setattr("portrait4d.models.upstream_networks.head_from_upstream", lambda tensors: None)
    found = read_starting_weights(PICKLE)
    assert found.keys() == {"G", "D", "average"}
    head = standin_head()
    with torch.device("meta"):
        generator, discriminator = GenHead(GenHeadConfig(), head), Discriminator(DiscriminatorConfig())
    for key, network in (("G", generator), ("D", discriminator), ("average", generator)):
        assert copy_matching(network, found[key]) == len(own_tensors(network))
    published = hollow_value("backbone.mapping.w_avg", "float32")
    assert found["average"]["mapping.average"].eq(published).all()
    assert found["average"]["average_style"].eq(published).all()  # the name that reconstructors have for it


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pkl", None, "no such file; give a published .pkl, a network or a state of ours"),
        ("damaged.pkl", b"no pickle", ""),
        ("damaged.safetensors", b"nothing", "cannot be read as safetensors"),
        ("state-0000000008.safetensors", b"nothing", "no readable state"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputFileError) as error:
        load_starting_weights(tmp_path / name, ToyTask(toy_config(), Ranks()))
    assert str(error.value).startswith(f"{tmp_path / name}: {message}") and "\n" not in str(error.value)
