"""Synthesis network: which style goes where, noise, conformance of GenHead's planes and background at full size."""

import pytest
import torch
from torch import nn

from portrait4d.config.gan_networks import ConvPyramidConfig, GenHeadConfig
from portrait4d.models.stylegan_mapping import MappingNetwork, Truncation
from portrait4d.models.stylegan_synthesis import SynthesisNetwork
from portrait4d.models.upstream_gan_names import rename_genhead
from tests.helpers.hash_fill import fill_equalised, hash_tensor
from tests.helpers.published_weights import filled_state, load_filled, summarise
from tests.helpers.waves import wave


def small() -> SynthesisNetwork:
    torch.manual_seed(0)
    network = SynthesisNetwork(ConvPyramidConfig(16, 128, 12), 6, 5)
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    return network


def test_picture_grows_from_4_pixels_and_blocks_share_styles():
    network = small()
    assert network.num_styles == 6
    styles = wave(2, 6, 6).requires_grad_()
    picture = network(styles, "none")
    assert picture.shape == (2, 5, 16, 16)
    picture.square().sum().backward()
    assert (styles.grad.abs().sum((0, 2)) > 0).all()
    block4, block8 = network.blocks["4"], network.blocks["8"]
    x, image = block4(None, None, styles[:, 0:2])
    x, image = block8(x, image, styles[:, 1:4])
    _, image = network.blocks["16"](x, image, styles[:, 3:6])
    torch.testing.assert_close(picture, image)


def test_noise_modes():
    network, styles = small(), wave(1, 6, 6)
    const = network(styles, "const")
    assert torch.equal(const, network(styles, "const"))
    assert not torch.equal(const, network(styles, "none"))
    drawn = [network(styles, "random", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_gradients_reach_every_parameter():
    network = small()
    network(wave(2, 6, 6), "random", torch.Generator().manual_seed(0)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_another_number_of_styles_is_refused():
    with pytest.raises(ValueError, match=r"styles: expected shape \(B, 6, style_dim\), got \(1, 5, 6\)"):
        small()(wave(1, 5, 6))


class Published(nn.Module):
    """Mapping and synthesis of one of GenHead's two generators, by the names they have in GenHead."""

    def __init__(self, part: str, config: GenHeadConfig) -> None:
        super().__init__()
        self.part = part
        if part == "backbone":
            self.mapping = MappingNetwork(config.mapping, 14)
            self.backbone = SynthesisNetwork(config.backbone, 512, 192)
        else:
            self.background_mapping = MappingNetwork(config.background_mapping, 10)
            self.background = SynthesisNetwork(config.background, 512, 32)


def published(part: str) -> Published:
    state = filled_state("genhead", f"{part}.", fill_equalised, rename_genhead)
    return load_filled(lambda: Published(part, GenHeadConfig()), state)


def test_background_conformance():
    network = published("background")
    with torch.no_grad():
        picture = network.background(network.background_mapping(hash_tensor(1000, [1, 512])), "const")
    assert picture.shape == (1, 32, 64, 64)
    expected = [-0.0736704, 1.35016, 0.0148624, 0.184508, 0.0163767, -0.511715]
    assert summarise(picture) == pytest.approx(expected, abs=2e-6, rel=1e-5)


def test_styles_and_planes_conformance():
    network = published("backbone")
    with torch.no_grad():
        styles = network.mapping(hash_tensor(1000, [1, 512]), hash_tensor(1001, [1, 325]), Truncation(0.7, 14))
        planes = {mode: network.backbone(styles, mode) for mode in ("const", "none")}
    expected = [0.339685, 0.664354, -0.263609, -0.196428, -0.263609, -0.0648106]
    assert summarise(styles) == pytest.approx(expected, abs=2e-6, rel=1e-5)
    expected = [-0.0454095, 1.74799, 0.207679, 0.044926, -0.149785, 0.116911]
    assert summarise(planes["const"]) == pytest.approx(expected, abs=5e-6, rel=1e-5)
    expected = [-0.0489104, 1.76185, 0.153576, 0.0180813, -0.220448, 0.0605036]
    assert summarise(planes["none"]) == pytest.approx(expected, abs=5e-6, rel=1e-5)
