"""Networks that nobody filled: nothing is drawn, shapes are there, PyTorch's compiler is not imported."""

import subprocess
import sys

import torch
from torch import nn

from portrait4d.models.undrawn import Undrawn

LOAD = """
import sys
from portrait4d.models.checkpoints import load_network
from portrait4d.models.pretrained.bundled import bundled_path
from portrait4d.synthetic_heads.head_template import build_open_head
for name in ("portrait4d", "genhead"):
    load_network(bundled_path(name), build_open_head=build_open_head)
sys.exit("torch._dynamo" in sys.modules)
"""


def test_no_random_number_is_drawn() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with Undrawn():
        layer = nn.Conv2d(2, 3, 5)
        nn.init.kaiming_normal_(layer.weight)
        constant = torch.randn(4, 5, generator=torch.Generator())
    assert layer.weight.shape == (3, 2, 5, 5) and constant.shape == (4, 5)
    assert torch.equal(torch.rand(3), expected)


def test_weights_are_drawn_outside() -> None:
    with Undrawn():
        pass
    assert torch.empty(1000).normal_(generator=torch.Generator().manual_seed(1)).std() > 0.5


def test_loading_does_not_import_the_compiler() -> None:
    assert subprocess.run([sys.executable, "-c", LOAD], check=False).returncode == 0
