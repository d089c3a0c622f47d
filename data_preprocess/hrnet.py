"""HRNetV2-W18 (Wang et al. 2020, "Deep High-Resolution Representation Learning"): pictures to features of all scales.

Branches of falling resolution run side by side and exchange features after every four blocks. Modules carry the names
of the public state dicts. Source: preprocess-networks.md §2.2.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_preprocess.resnet50 import bottleneck_stage, conv_norm

WIDTHS = (18, 36, 72, 144)
"""Channels of the branches, at 1/4, 1/8, 1/16, 1/32 of the picture's size."""

FEATURES = sum(WIDTHS)

_STEM_CHANNELS = 64
_STEM_WIDTH = 256
_BLOCKS = 4


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + x)


class ExchangeModule(nn.Module):
    """Four blocks per branch, then each branch receives the sum of all, brought to its size and channels."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(_BLOCKS))) for width in widths)
        rows = ([_build_path(widths, source, target) for source in range(len(widths))] for target in range(len(widths)))
        self.fuse_layers = nn.ModuleList(nn.ModuleList(row) for row in rows)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map features (B, widths[i], H / 2^i, W / 2^i) to the same shapes."""
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        return [
            functional.relu(sum(path(x) for path, x in zip(paths, features, strict=True))) for paths in self.fuse_layers
        ]


class HRNetW18(nn.Module):
    """The backbone: (B, 3, H, W), H and W multiples of 32, to features (B, 270, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM_CHANNELS, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.conv2 = nn.Conv2d(_STEM_CHANNELS, _STEM_CHANNELS, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.layer1 = bottleneck_stage(_STEM_CHANNELS, _STEM_CHANNELS, 4)
        first = conv_norm(_STEM_WIDTH, WIDTHS[0], 3, activate=True)
        self.transition1 = nn.ModuleList([first, _build_branch(_STEM_WIDTH, WIDTHS[1])])
        self.stage2 = _build_stage(1, WIDTHS[:2])
        self.transition2 = nn.ModuleList([nn.Identity()] * 2 + [_build_branch(WIDTHS[1], WIDTHS[2])])
        self.stage3 = _build_stage(4, WIDTHS[:3])
        self.transition3 = nn.ModuleList([nn.Identity()] * 3 + [_build_branch(WIDTHS[2], WIDTHS[3])])
        self.stage4 = _build_stage(3, WIDTHS)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised pictures to the features of all branches, enlarged to the size of the first and joined."""
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer1(functional.relu(self.bn2(self.conv2(x))))
        features = self.stage2([transition(x) for transition in self.transition1])
        features = self.stage3([*features, self.transition2[-1](features[-1])])
        features = self.stage4([*features, self.transition3[-1](features[-1])])
        size = features[0].shape[2:]
        return torch.cat([functional.interpolate(x, size=size, mode="bilinear") for x in features], dim=1)


def _build_stage(modules: int, widths: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(*(ExchangeModule(widths) for _ in range(modules)))


def _build_branch(in_channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(in_channels, width, 3, stride=2, activate=True))


def _build_path(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
    """Build what brings the features of branch `source` to the size and channels of branch `target`."""
    if source == target:
        return nn.Identity()
    if source > target:
        enlarge = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*conv_norm(widths[source], widths[target], 1), enlarge)
    halvings = [conv_norm(widths[source], widths[source], 3, 2, activate=True) for _ in range(target - source - 1)]
    return nn.Sequential(*halvings, conv_norm(widths[source], widths[target], 3, 2))
