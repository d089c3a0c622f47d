"""Convolutional encoders of the source image: global, detail and background features (networks-reconstructor.md).

All three see the image (B, 3, H, W), RGB in [-1, 1], with two coordinate channels appended (§2).
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from portrait4d.config.networks import GlobalEncoderConfig

IMAGE_CHANNELS = 5
"""Red, green, blue, x, y."""

LEAKY_SLOPE = 0.01
"""Slope of the reconstructor's leaky ReLU below zero."""


def with_coordinates(image: torch.Tensor) -> torch.Tensor:
    """Append the column and the row ramp, §2: (B, 3, H, W) to (B, 5, H, W).

    x[j] = −1 + 2j/(W−1) grows to the right, y[i] = −1 + 2i/(H−1) downwards.
    """
    batch, _, height, width = image.shape
    x = torch.linspace(-1, 1, width, dtype=image.dtype, device=image.device)
    y = torch.linspace(-1, 1, height, dtype=image.dtype, device=image.device)
    ramps = torch.stack((x.expand(height, width), y[:, None].expand(height, width)))
    return torch.cat((image, ramps.expand(batch, -1, -1, -1)), dim=1)


def initialise_kaiming(module: nn.Module) -> None:
    """Initialise a convolution's weight: Kaiming normal, fan-out, ReLU gain; to be given to `Module.apply`."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResidualBlock(nn.Module):
    """Basic ResNet block without normalisation, §3: ReLU(conv2(ReLU(conv1(x))) + shortcut(x))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        spread = {"padding": dilation, "dilation": dilation, "bias": False}
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, **spread)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, **spread)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, out_channels, H / stride, W / stride) of (B, in_channels, H, W)."""
        hidden = F.relu(self.conv1(x), inplace=True)
        return F.relu(self.conv2(hidden).add_(self.shortcut(x)), inplace=True)


class SpatialPyramid(nn.Module):
    """Atrous spatial pyramid pooling without biases or normalisation, §3: (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        branches = [nn.Conv2d(in_channels, out_channels, 1, bias=False)]
        branches += [nn.Conv2d(in_channels, out_channels, 3, padding=d, dilation=d, bias=False) for d in dilations]
        self.branches = nn.ModuleList(branches)
        self.pooled = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.projection = nn.Conv2d((len(branches) + 1) * out_channels, out_channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return non-negative features (B, out_channels, H, W)."""
        maps = torch.cat([F.relu(branch(x), inplace=True) for branch in self.branches], dim=1)
        # The pooled branch is the same everywhere, so its share of the projection is a bias of each sample.
        map_weight, pooled_weight = self.projection.weight.split((maps.shape[1], self.pooled.out_channels), dim=1)
        bias = F.conv2d(F.relu(self.pooled(x.mean(dim=(2, 3), keepdim=True))), pooled_weight)
        return F.relu(F.conv2d(maps, map_weight).add_(bias), inplace=True)


class GlobalEncoder(nn.Module):
    """DeepLabV3 with a ResNet trunk without normalisation, §3: image (B, 3, S, S) to (B, out_channels, S/8, S/8)."""

    def __init__(self, config: GlobalEncoderConfig) -> None:
        super().__init__()
        w1, w2, w3, w4 = config.widths
        n1, n2, n3, n4 = config.blocks
        self.stem = nn.Conv2d(IMAGE_CHANNELS, w1, 7, stride=2, padding=3, bias=False)
        self.stage1 = _build_stage(w1, w1, n1, stride=1, dilation=1)
        self.stage2 = _build_stage(w1, w2, n2, stride=2, dilation=1)
        self.stage3 = _build_stage(w2, w3, n3, stride=1, dilation=2)
        self.stage4 = _build_stage(w3, w4, n4, stride=1, dilation=4)
        for trunk in (self.stem, self.stage1, self.stage2, self.stage3, self.stage4):
            trunk.apply(initialise_kaiming)
        self.pyramid = SpatialPyramid(w4, config.out_channels, config.aspp_dilations)
        self.output = nn.Conv2d(config.out_channels, config.out_channels, 3, padding=1, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return non-negative features (B, out_channels, H/8, W/8) of an image (B, 3, H, W) in [-1, 1]."""
        x = F.relu(self.stem(with_coordinates(image)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return F.relu(self.output(self.pyramid(x)), inplace=True)

    @torch.no_grad()
    def load_resnet_trunk(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Start the trunk from an ImageNet ResNet-34 with torchvision's tensor names, §3 (for training from scratch).

        The stem's input channel i gets 3/5 of the weight of channel i mod 3; normalisation layers are dropped.

        Raises:
            KeyError: if a convolution of the trunk is not among `weights`.
        """
        stem = weights["conv1.weight"]
        self.stem.weight.copy_(stem[:, [i % 3 for i in range(IMAGE_CHANNELS)]] * (3 / IMAGE_CHANNELS))
        for name, weight in self._resnet_stages():
            weight.copy_(weights[name])

    def resnet_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return torchvision's name and the shape of each tensor that `load_resnet_trunk` takes."""
        out_channels, _, *kernel = self.stem.weight.shape
        return {"conv1.weight": (out_channels, 3, *kernel)} | {n: tuple(w.shape) for n, w in self._resnet_stages()}

    def _resnet_stages(self) -> Iterator[tuple[str, nn.Parameter]]:
        for number in range(1, 5):
            for name, weight in getattr(self, f"stage{number}").named_parameters():
                yield f"layer{number}.{name.replace('shortcut', 'downsample.0')}", weight


def _build_stage(in_channels: int, out_channels: int, blocks: int, *, stride: int, dilation: int) -> nn.Sequential:
    first = ResidualBlock(in_channels, out_channels, stride, dilation)
    return nn.Sequential(first, *(ResidualBlock(out_channels, out_channels, 1, dilation) for _ in range(blocks - 1)))


class DetailEncoder(nn.Module):
    """Shallow encoder of fine detail, §4: image (B, 3, S, S) to (B, out_channels, S/2, S/2)."""

    def __init__(self, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        convs = [
            nn.Conv2d(IMAGE_CHANNELS, hidden_channels, 7, stride=2, padding=3),
            nn.Conv2d(hidden_channels, out_channels, 3, padding=1),
            *(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in range(3)),
        ]
        self.layers = nn.Sequential(*(layer for conv in convs for layer in (conv, nn.LeakyReLU(LEAKY_SLOPE, True))))
        self.apply(initialise_kaiming)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return features (B, out_channels, H/2, W/2) of an image (B, 3, H, W) in [-1, 1]."""
        return self.layers(with_coordinates(image))


class ResampledConv(nn.Module):
    """Convolution 3×3, leaky ReLU, then a second convolution that halves or doubles the size, §8.

    "down": the second convolution has stride 2. "up": it follows nearest-neighbour doubling. No activation after it.
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(in_channels, hidden_channels, 3, padding=1)
        self.resample = nn.Conv2d(hidden_channels, out_channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, out_channels, 2H, 2W) or (B, out_channels, H/2, W/2) of (B, in_channels, H, W)."""
        x = F.leaky_relu(self.conv(x), LEAKY_SLOPE, inplace=True)
        return self.resample(F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x)


class BackgroundEncoder(nn.Module):
    """U-Net that paints the background, §8: image (B, 3, S, S) to logits (B, out_channels, S, S)."""

    def __init__(self, widths: tuple[int, int, int, int], out_channels: int) -> None:
        super().__init__()
        w1, w2, w3, w4 = widths
        self.input_conv = nn.Conv2d(IMAGE_CHANNELS, w1, 3, stride=2, padding=1)
        self.down1 = ResampledConv(w1, w1, w2, up=False)
        self.down2 = ResampledConv(w2, w2, w3, up=False)
        self.down3 = ResampledConv(w3, w3, w4, up=False)
        self.middle = nn.Conv2d(w4, w4, 3, padding=1)
        self.up1 = ResampledConv(2 * w4, w3, w3, up=True)
        self.up2 = ResampledConv(2 * w3, w2, w2, up=True)
        self.up3 = ResampledConv(2 * w2, w1, w1, up=True)
        self.up4 = ResampledConv(2 * w1, w1, w1, up=True)
        self.output_conv = nn.Conv2d(w1, out_channels, 3, padding=1)
        self.apply(initialise_kaiming)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (B, out_channels, H, W) of an image (B, 3, H, W) in [-1, 1], H and W multiples of 16.

        The caller takes the sigmoid, then resizes.
        """
        if image.shape[-2] % 16 or image.shape[-1] % 16:
            raise ValueError(f"image: expected sides that are multiples of 16, got {tuple(image.shape[-2:])}")
        half = F.leaky_relu(self.input_conv(with_coordinates(image)), LEAKY_SLOPE, inplace=True)
        quarter = self.down1(half)
        eighth = self.down2(quarter)
        sixteenth = self.down3(eighth)
        x = F.leaky_relu(self.middle(sixteenth), LEAKY_SLOPE, inplace=True)
        x = self.up1(torch.cat((x, sixteenth), dim=1))
        x = self.up2(torch.cat((x, eighth), dim=1))
        x = self.up3(torch.cat((x, quarter), dim=1))
        return self.output_conv(self.up4(torch.cat((x, half), dim=1)))
