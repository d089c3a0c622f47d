"""RetinaFace with ResNet-50 (Deng et al. 2019, "RetinaFace: Single-stage Dense Face Localisation in the Wild").

Three levels of a feature pyramid, a context module each, and 1x1 heads for two priors per cell. Frozen.
Source: preprocess-networks.md §1.2 and §1.3.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_preprocess.published_weights import load_published
from data_preprocess.resnet50 import ResNet50, StageOutputs, conv_norm

_CHANNELS = 256
_PRIORS_PER_CELL = 2


class HeadOutputs(NamedTuple):
    """What the network says of each prior, strides 8, 16, 32 in turn, then rows, columns, sizes.

    Attributes:
        locations: (B, N, 4) offsets of centre and logarithmic size.
        scores: (B, N) probability of a face.
        landmarks: (B, N, 10) offsets of five points, x and y in turn.
    """

    locations: Tensor
    scores: Tensor
    landmarks: Tensor


class FeaturePyramid(nn.Module):
    """Stages brought to 256 channels; the coarser of two levels is enlarged and merged into the finer."""

    def __init__(self) -> None:
        super().__init__()
        self.output1 = conv_norm(512, _CHANNELS, 1, activate=True)
        self.output2 = conv_norm(1024, _CHANNELS, 1, activate=True)
        self.output3 = conv_norm(2048, _CHANNELS, 1, activate=True)
        self.merge1 = conv_norm(_CHANNELS, _CHANNELS, 3, activate=True)
        self.merge2 = conv_norm(_CHANNELS, _CHANNELS, 3, activate=True)

    def forward(self, stages: StageOutputs) -> list[Tensor]:
        """Map the stages' outputs to three levels (B, 256, H/s, W/s), s = 8, 16, 32."""
        fine, middle, coarse = self.output1(stages[0]), self.output2(stages[1]), self.output3(stages[2])
        middle = self.merge2(middle + functional.interpolate(coarse, size=middle.shape[2:]))
        fine = self.merge1(fine + functional.interpolate(middle, size=fine.shape[2:]))
        return [fine, middle, coarse]


class ContextModule(nn.Module):
    """Receptive fields of 3, 5 and 7 pixels side by side, made of 3x3 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = _CHANNELS // 2, _CHANNELS // 4
        self.field3 = conv_norm(_CHANNELS, half, 3)
        self.field5_1 = conv_norm(_CHANNELS, quarter, 3, activate=True)
        self.field5_2 = conv_norm(quarter, quarter, 3)
        self.field7_2 = conv_norm(quarter, quarter, 3, activate=True)
        self.field7_3 = conv_norm(quarter, quarter, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 256, H, W) to the same shape."""
        shared = self.field5_1(x)
        fields = [self.field3(x), self.field5_2(shared), self.field7_3(self.field7_2(shared))]
        return functional.relu(torch.cat(fields, dim=1))


class RetinaFace(nn.Module):
    """The detector's network."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ResNet50()
        self.pyramid = FeaturePyramid()
        self.contexts = nn.ModuleList(ContextModule() for _ in range(3))
        self.class_heads = _build_heads(2)
        self.box_heads = _build_heads(4)
        self.landmark_heads = _build_heads(10)

    def forward(self, inputs: Tensor) -> HeadOutputs:
        """Map (B, 3, H, W), blue, green, red in 0 to 255 less the mean colour, to the outputs of all priors."""
        levels = self.pyramid(self.body(inputs))
        levels = [context(level) for context, level in zip(self.contexts, levels, strict=True)]
        return HeadOutputs(
            locations=_apply_heads(self.box_heads, levels, 4),
            scores=_apply_heads(self.class_heads, levels, 2).softmax(dim=-1)[..., 1],
            landmarks=_apply_heads(self.landmark_heads, levels, 10),
        )


def load_retinaface(path: str | Path | None = None) -> RetinaFace:
    """Build the network with published weights, on the CPU.

    Args:
        path: the published `Resnet50_Final.pth`, or the same tensors as `.safetensors`; None looks in the places of
            `registry.find_weights`.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing, damaged, or does not hold exactly this network.
    """
    return load_published(RetinaFace, "retinaface", path, published_name=published_name, unused=("body.fc.",))


def published_name(name: str) -> str:
    """Return the name that the published state dict gives to our tensor `name` (preprocess-networks.md §1.3)."""
    part, _, rest = name.partition(".")
    if part == "pyramid":
        return f"fpn.{rest}"
    if part == "contexts":
        level, field, rest = rest.split(".", 2)
        return f"ssh{int(level) + 1}.{_FIELD_NAMES[field]}.{rest}"
    if part in _HEAD_NAMES:
        level, _, rest = rest.partition(".")
        return f"{_HEAD_NAMES[part]}.{level}.conv1x1.{rest}"
    return name


_FIELD_NAMES = {
    "field3": "conv3X3",
    "field5_1": "conv5X5_1",
    "field5_2": "conv5X5_2",
    "field7_2": "conv7X7_2",
    "field7_3": "conv7x7_3",
}
_HEAD_NAMES = {"class_heads": "ClassHead", "box_heads": "BboxHead", "landmark_heads": "LandmarkHead"}


def _build_heads(values: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(_CHANNELS, _PRIORS_PER_CELL * values, 1) for _ in range(3))


def _apply_heads(heads: nn.ModuleList, levels: list[Tensor], values: int) -> Tensor:
    outputs = [head(level) for head, level in zip(heads, levels, strict=True)]
    return torch.cat([output.permute(0, 2, 3, 1).reshape(len(output), -1, values) for output in outputs], dim=1)
