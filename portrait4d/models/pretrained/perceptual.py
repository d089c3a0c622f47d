"""LPIPS: how different two pictures look, as distances of the features of VGG16 (Zhang et al. 2018). Frozen.

At five depths both pictures' features are scaled to length 1 over their channels; squared differences are weighted by
channel and averaged over the picture. Source: training-recon-v1.md §2, "LPIPS definition".
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from portrait4d.models.pretrained.strict_loading import load_exact_network

PerceptualKind = Literal["lpips", "random_vgg"]

VGG_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG16's convolutions; between the stages pictures are halved."""

RANDOM_SEED = 0
"""Of the weights of `random_vgg`."""

_INPUT_SHIFT = (-0.030, -0.088, -0.188)
_INPUT_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10
_SMALLEST_SIDE = 2 ** (len(VGG_STAGES) - 1)


class VggTrunk(nn.Module):
    """The convolutions of VGG16 (Simonyan and Zisserman 2015), named as torchvision's: features.0 to features.28."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in VGG_STAGES:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        """Yield what each stage ends with (relu1_2, 2_2, 3_3, 4_3, 5_3) of pictures (B, 3, H, W): (B, C, H', W')."""
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                yield x
            x = layer(x)
        yield x


class PerceptualDistance(nn.Module):
    """Weighted distance of VGG16's features; frozen, but pictures get gradients.

    Attributes:
        kind: "lpips", or "random_vgg" for weights that nobody trained.
    """

    def __init__(self, kind: PerceptualKind) -> None:
        super().__init__()
        self.kind = kind
        self.trunk = VggTrunk()
        self.channel_weights = nn.ParameterList(torch.empty(1, stage[-1], 1, 1) for stage in VGG_STAGES)
        for name, values in (("input_shift", _INPUT_SHIFT), ("input_scale", _INPUT_SCALE)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distances (B,) of pictures (B, 3, H, W), RGB in [-1, 1], at least 16 pixels a side; not resized.

        Raises:
            ValueError: on other or unequal shapes.
        """
        if first.ndim != 4 or first.shape[1] != 3 or min(first.shape[2:]) < _SMALLEST_SIDE:
            raise ValueError(f"first: expected shape (B, 3, H >= 16, W >= 16), got {tuple(first.shape)}")
        if second.shape != first.shape:
            raise ValueError(f"second: expected shape {tuple(first.shape)} as first, got {tuple(second.shape)}")
        features = (self.trunk((picture - self.input_shift) / self.input_scale) for picture in (first, second))
        return sum(
            ((_normalise(ours) - _normalise(theirs)).square() * weight).sum(dim=1).mean(dim=(1, 2))
            for ours, theirs, weight in zip(*features, self.channel_weights, strict=True)
        )


def load_perceptual(vgg_path: str | Path | None = None, lpips_path: str | Path | None = None) -> PerceptualDistance:
    """Build LPIPS v0.1 for VGG16 with published weights, on the CPU.

    Args:
        vgg_path: torchvision's state dict of vgg16, of which the classifier is not used.
        lpips_path: the weights of channels, `lin0.model.1.weight` to `lin4.model.1.weight`.
            Either may be `.safetensors`; None looks in the places of `registry.find_weights`.

    Raises:
        AssetMissingError: a path is None and the file is in none of its places.
        InputFileError: a file is missing or damaged, or holds other tensors.
    """
    distance = PerceptualDistance("lpips")
    load_exact_network(
        distance.channel_weights, "lpips_vgg", lpips_path, published_name=lambda name: f"lin{name}.model.1.weight"
    )
    load_exact_network(distance.trunk, "vgg16", vgg_path, unused=r"classifier\.\d\.(weight|bias)")
    return distance


@torch.no_grad()
def build_random_perceptual(seed: int = RANDOM_SEED) -> PerceptualDistance:
    """Build the same distance with random weights, for runs that must do without downloaded files. Not LPIPS.

    Convolutions are He-initialised (normal, fan-in, no bias), the same on every machine. All channels weigh 1/5, so the
    distance is the mean over the five depths of the squared distance of unit vectors: between 0 and 2.
    """
    distance = PerceptualDistance("random_vgg")
    generator = torch.Generator().manual_seed(seed)
    for layer in distance.trunk.features:
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * math.sqrt(2 / fan_in))
            layer.bias.zero_()
    for weight in distance.channel_weights:
        weight.fill_(1 / len(VGG_STAGES))
    return distance


def build_perceptual(kind: PerceptualKind) -> PerceptualDistance:
    """Build the distance that a configuration names; files are looked for in the places of `registry.find_weights`.

    Raises:
        ValueError: another name.
        AssetMissingError, InputFileError: as `load_perceptual`; `random_vgg` never takes its place by itself.
    """
    if kind not in ("lpips", "random_vgg"):
        raise ValueError(f"kind: expected lpips or random_vgg, got {kind!r}")
    return load_perceptual() if kind == "lpips" else build_random_perceptual()


def _normalise(features: Tensor) -> Tensor:
    length = (features.square().sum(dim=1, keepdim=True) + _EPSILON).sqrt()
    return features / (length + _EPSILON)
