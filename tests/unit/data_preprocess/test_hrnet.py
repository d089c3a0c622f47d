"""HRNet: residual blocks and the exchange between branches in closed form, shapes of the backbone."""

import pytest
import torch
from torch import nn

from data_preprocess.hrnet import FEATURES, BasicBlock, ExchangeModule, HRNetW18
from tests.helpers.hash_fill import hash_tensor

NORM = (1 + 1e-5) ** -0.5
"""What a fresh normalisation multiplies with."""


def positive(i: int, shape: tuple[int, ...]) -> torch.Tensor:
    return hash_tensor(i, shape) + 1.5


def silent(module: nn.Module) -> nn.Module:
    """Set all convolutions of a module to zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    return module.eval().requires_grad_(False)


def test_block_adds_to_its_input() -> None:
    block = silent(BasicBlock(2))
    x = hash_tensor(0, (1, 2, 5, 4))
    assert torch.equal(block(x), x.relu())
    block.conv1.weight[:, :, 1, 1] = torch.eye(2)
    block.conv2.weight[:, :, 1, 1] = torch.eye(2)
    torch.testing.assert_close(block(x), (x.relu() * NORM**2 + x).relu())


@pytest.fixture
def module() -> ExchangeModule:
    """Three branches that pass their features on, and no exchange yet."""
    return silent(ExchangeModule((2, 3, 4)))


@pytest.fixture
def features() -> list[torch.Tensor]:
    return [positive(i, (1, width, 8 >> i, 12 >> i)) for i, width in enumerate((2, 3, 4))]


def test_branches_keep_their_features(module: ExchangeModule, features: list[torch.Tensor]) -> None:
    for x, y in zip(features, module(features), strict=True):
        assert torch.equal(x, y)


def test_coarse_features_are_enlarged(module: ExchangeModule, features: list[torch.Tensor]) -> None:
    nn.init.ones_(module.fuse_layers[0][2][0].weight)
    fine, *others = module(features)
    enlarged = features[2].sum(1, keepdim=True).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(fine, features[0] + NORM * enlarged)
    assert all(torch.equal(x, y) for x, y in zip(features[1:], others, strict=True))


def test_fine_features_are_halved_with_a_rectifier_in_between(
    module: ExchangeModule, features: list[torch.Tensor]
) -> None:
    first, last = module.fuse_layers[2][0]
    first[0].weight[:, :, 1, 1] = torch.diag(torch.tensor([1.0, -1.0]))  # the second channel becomes negative: lost
    last[0].weight[:, :, 1, 1] = -torch.ones(4, 2)  # negative sums stay: no rectifier at the end of the path
    coarse = module(features)[2]
    expected = features[2] - NORM**2 * features[0][:, :1, ::4, ::4]
    torch.testing.assert_close(coarse, expected.relu())
    assert (coarse < features[2]).all()


def test_backbone_joins_the_branches_at_a_quarter_of_the_size() -> None:
    backbone = HRNetW18().eval().requires_grad_(False)
    images = hash_tensor(1, (2, 3, 64, 96))
    together = backbone(images)
    assert together.shape == (2, FEATURES, 16, 24) and FEATURES == 270
    torch.testing.assert_close(together, torch.cat([backbone(image[None]) for image in images]), rtol=0, atol=1e-5)
    # The coarsest branch, 2 x 3 pixels here, is enlarged bilinearly: the places between its pixels are straight lines.
    coarse = together[:, -144:]
    assert torch.allclose(coarse.diff(n=2, dim=3)[..., 4:10], torch.zeros(()), atol=1e-4) and coarse.std() > 1e-3
