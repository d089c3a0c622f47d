"""FAN-4: a 256-pixel face crop to heat-maps of 68 landmarks, by four stacked hourglasses.

Source: preprocess-networks.md §3.2.
"""

from torch import Tensor, nn
from torch.nn import functional

from portrait4d.models.pretrained.motion_encoder import (
    HOURGLASS_DEPTH,
    ConvBlock,
    Hourglass,
    published_block_name,
    published_hourglass_name,
)

LANDMARKS = 68
FAN_INPUT_SIZE = 256
HEATMAP_SIZE = 64
STACKS = 4
_CHANNELS = 256


class Stack(nn.Module):
    """One estimate of the heat-maps; all but the last also give the features that the next stack starts from."""

    def __init__(self, is_last: bool) -> None:
        super().__init__()
        self.hourglass = Hourglass(HOURGLASS_DEPTH, _CHANNELS, plain=True)
        self.top_block = ConvBlock(_CHANNELS, _CHANNELS)
        self.top_conv = nn.Conv2d(_CHANNELS, _CHANNELS, 1)
        self.top_norm = nn.BatchNorm2d(_CHANNELS)
        self.heatmaps = nn.Conv2d(_CHANNELS, LANDMARKS, 1)
        self.features_back = None if is_last else nn.Conv2d(_CHANNELS, _CHANNELS, 1)
        self.heatmaps_back = None if is_last else nn.Conv2d(LANDMARKS, _CHANNELS, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (B, 256, 64, 64) to heat-maps (B, 68, 64, 64) and the next stack's features."""
        x = functional.relu(self.top_norm(self.top_conv(self.top_block(self.hourglass(features)))))
        heatmaps = self.heatmaps(x)
        if self.features_back is None or self.heatmaps_back is None:
            return heatmaps, features
        return heatmaps, features + self.features_back(x) + self.heatmaps_back(heatmaps)


class Fan(nn.Module):
    """The network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_conv = nn.Conv2d(3, 64, 7, 2, 3)
        self.stem_norm = nn.BatchNorm2d(64)
        self.block1 = ConvBlock(64, 128)
        self.block2 = ConvBlock(128, 128)
        self.block3 = ConvBlock(128, _CHANNELS)
        self.stacks = nn.ModuleList(Stack(k == STACKS - 1) for k in range(STACKS))

    def forward(self, crops: Tensor) -> Tensor:
        """Map crops (B, 3, 256, 256) RGB in [-1, 1] to the heat-maps of the last stack (B, 68, 64, 64).

        Raises:
            ValueError: another shape.
        """
        return self.all_heatmaps(crops)[-1]

    def all_heatmaps(self, crops: Tensor) -> list[Tensor]:
        """Return the heat-maps of every stack, each (B, 68, 64, 64); see `forward`."""
        if crops.ndim != 4 or crops.shape[1:] != (3, FAN_INPUT_SIZE, FAN_INPUT_SIZE):
            raise ValueError(f"crops: expected shape (B, 3, 256, 256), got {tuple(crops.shape)}")
        x = functional.relu(self.stem_norm(self.stem_conv((crops + 1) / 2)))
        features = self.block3(self.block2(functional.avg_pool2d(self.block1(x), 2)))
        estimates = []
        for stack in self.stacks:
            heatmaps, features = stack(features)
            estimates.append(heatmaps)
        return estimates


def published_name(name: str) -> str:
    """Return the name that the published state dict gives to our tensor `name`."""
    module, _, rest = name.partition(".")
    if module != "stacks":
        return f"{_STEM_NAMES[module]}.{published_block_name(rest) if 'block' in module else rest}"
    number, part, rest = rest.split(".", 2)
    if part == "hourglass":
        rest = published_hourglass_name(rest)
    elif part == "top_block":
        rest = published_block_name(rest)
    return f"{_STACK_NAMES[part]}{number}.{rest}"


_STEM_NAMES = {"stem_conv": "conv1", "stem_norm": "bn1", "block1": "conv2", "block2": "conv3", "block3": "conv4"}
_STACK_NAMES = {
    "hourglass": "m",
    "top_block": "top_m_",
    "top_conv": "conv_last",
    "top_norm": "bn_end",
    "heatmaps": "l",
    "features_back": "bl",
    "heatmaps_back": "al",
}
