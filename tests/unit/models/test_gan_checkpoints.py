"""Files of GenHead and its discriminator: round trips, kinds, what a file of another kind says."""

from pathlib import Path

import pytest
import torch

from portrait4d.config.gan_networks import tiny_discriminator
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.checkpoints import (
    load_discriminator,
    load_genhead,
    load_network,
    load_reconstructor,
    read_safetensors,
    save_discriminator,
    save_genhead,
)
from portrait4d.models.discriminator import Discriminator
from portrait4d.models.genhead import GenHead
from portrait4d.synthetic_heads.ellipsoid_head import build_open_head
from tests.golden.cases import standin_head
from tests.helpers.cli import ROOT
from tests.helpers.tiny_genhead import build_tiny_genhead

PICKLE = ROOT / "tests" / "golden" / "network-genhead.pkl"


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_genhead_round_trip(ellipsoid: HeadModel, tmp_path: Path) -> None:
    network = build_tiny_genhead(ellipsoid)
    network.mapping.average.fill_(0.25)
    save_genhead(tmp_path / "g.safetensors", network)
    loaded = load_genhead(tmp_path / "g.safetensors", build_open_head)
    assert loaded.config == network.config and same(loaded, network)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_a_licensed_head_travels_inside(tmp_path: Path) -> None:
    network = build_tiny_genhead(standin_head())
    save_genhead(tmp_path / "g.safetensors", network)
    assert same(load_genhead(tmp_path / "g.safetensors"), network)


def test_discriminator_round_trip(tmp_path: Path) -> None:
    network = Discriminator(tiny_discriminator())
    save_discriminator(tmp_path / "d.safetensors", network)
    description, tensors = read_safetensors(tmp_path / "d.safetensors")
    assert description["network"] == "discriminator" and "head" not in description
    assert not [name for name in tensors if name.startswith("head.")]
    loaded = load_discriminator(tmp_path / "d.safetensors")
    assert loaded.config == network.config and same(loaded, network)


def test_kinds_are_told_apart(ellipsoid: HeadModel, tiny_network: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_genhead(path, build_tiny_genhead(ellipsoid))
    assert isinstance(load_network(path, None, build_open_head), GenHead)
    with pytest.raises(InputFileError, match="expected a reconstructor, got 'genhead'"):
        load_reconstructor(path, build_open_head)
    with pytest.raises(InputFileError, match="expected a genhead, got 'reconstructor'"):
        load_genhead(tiny_network, build_open_head)
    with pytest.raises(InputFileError, match="expected a reconstructor, got 'discriminator'"):
        load_network(PICKLE, "reconstructor", entry="D")


def test_entries_of_a_pickle(tmp_path: Path) -> None:
    assert isinstance(load_discriminator(PICKLE), Discriminator)
    with pytest.raises(InputFileError, match="has no network D_patch"):
        load_network(PICKLE, entry="D_patch")
