"""Networks stored in half precision: half the bytes, whole types after loading, the bundled ones among them."""

from pathlib import Path

import pytest
import torch

from portrait4d.files.errors import UserError
from portrait4d.models.checkpoints import load_reconstructor, read_safetensors, save_network
from portrait4d.models.pretrained.bundled import BUNDLED_NETWORKS, bundled_network
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.synthetic_heads.ellipsoid_head import build_open_head
from tests.conftest import build_tiny


def test_numbers_are_stored_in_half_and_loaded_whole(tiny: Reconstructor, tiny_network: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_network(path, tiny, torch.float16)
    assert path.stat().st_size < 0.6 * tiny_network.stat().st_size
    stored = read_safetensors(path)[1]
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    loaded, whole = load_reconstructor(path, build_open_head).state_dict(), tiny.state_dict()
    assert {name: value.dtype for name, value in loaded.items()} == {name: v.dtype for name, v in whole.items()}
    for name, tensor in stored.items():
        assert torch.equal(loaded[name], whole[name].to(tensor.dtype).to(whole[name].dtype)), name
        assert (loaded[name] - whole[name]).abs().max() <= 2**-11 * whole[name].abs().max() + 2**-25, name


def test_numbers_that_half_precision_cannot_hold_are_refused(tiny: Reconstructor, tmp_path: Path) -> None:
    network = build_tiny(tiny.head)
    network.average_style.fill_(7e4)
    with pytest.raises(UserError, match=r"average_style has numbers up to 7e\+04"):
        save_network(tmp_path / "half.safetensors", network, torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", list(BUNDLED_NETWORKS))
def test_bundled_networks_are_small_half_and_without_the_head(name: str) -> None:
    path = bundled_network(name)
    description, tensors = read_safetensors(path)
    assert description["head"]["name"] == "open-head"
    assert not [key for key in tensors if key.startswith("head.")]
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}
    assert path.stat().st_size <= 16e6
