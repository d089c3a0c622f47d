"""ResNet-50 without its classifier (He et al. 2016; stride in the 3x3 convolutions). Modules carry torchvision's names.

Source: preprocess-networks.md §1.2.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

_EXPANSION = 4


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, activate: bool = False
) -> nn.Sequential:
    """Build a convolution that keeps the size (at stride 1), without bias, a normalisation, and a ReLU if wanted."""
    layers = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if activate else nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3, 1x1 of width `width`, with four times as many channels at its end."""

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = width * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = conv_norm(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 width, ceil(H / stride), ceil(W / stride))."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def bottleneck_stage(in_channels: int, width: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """Build `blocks` bottlenecks in a row; the first one has the stride."""
    first = Bottleneck(in_channels, width, stride)
    return nn.Sequential(first, *(Bottleneck(width * _EXPANSION, width) for _ in range(blocks - 1)))


class StageOutputs(NamedTuple):
    """Outputs of the last three stages: (B, 512, H/8, W/8), (B, 1024, H/16, W/16), (B, 2048, H/32, W/32)."""

    stride8: Tensor
    stride16: Tensor
    stride32: Tensor


class ResNet50(nn.Module):
    """The convolutional part of ResNet-50."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = bottleneck_stage(64, 64, 3)
        self.layer2 = bottleneck_stage(256, 128, 4, stride=2)
        self.layer3 = bottleneck_stage(512, 256, 6, stride=2)
        self.layer4 = bottleneck_stage(1024, 512, 3, stride=2)

    def forward(self, images: Tensor) -> StageOutputs:
        """Map (B, 3, H, W) to the outputs of the last three stages; odd sizes are rounded up."""
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer1(functional.max_pool2d(x, 3, stride=2, padding=1))
        stride8 = self.layer2(x)
        stride16 = self.layer3(stride8)
        return StageOutputs(stride8, stride16, self.layer4(stride16))
