"""Inception-V3 as FID uses it: pictures to 2048 features or 1008 class probabilities. Frozen.

The network of the 2015 TensorFlow graph (Szegedy et al. 2015, "Rethinking the Inception Architecture"), which differs
from the later ImageNet ones in 1008 classes, average pools that leave out their padding, and a maximum pool in the last
block. Modules carry the names of the public state dict, so that it loads as it is. Source: metrics.md section 2.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.files.errors import InputFileError
from portrait4d.models.pretrained.registry import EXTERNAL_WEIGHTS, find_weights, load_tensors

INPUT_SIZE = 299
FEATURES = 2048
CLASSES = 1008
_NORM_EPSILON = 1e-3


class Conv(nn.Module):
    """Convolution without bias, normalisation, ReLU. Odd kernels with stride 1 keep the size where `pad` says so."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: tuple[int, int], stride: int = 1, pad: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if pad else (0, 0)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=_NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        return functional.relu(self.bn(self.conv(x)))


class MixedA(nn.Module):
    """35 x 35: 1x1, 5x5, two 3x3, pool; 64 + 64 + 96 + `pool_channels` channels."""

    def __init__(self, channels: int, pool_channels: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(channels, 64, (1, 1))
        self.branch5x5_1 = Conv(channels, 48, (1, 1))
        self.branch5x5_2 = Conv(48, 64, (5, 5))
        self.branch3x3dbl_1 = Conv(channels, 64, (1, 1))
        self.branch3x3dbl_2 = Conv(64, 96, (3, 3))
        self.branch3x3dbl_3 = Conv(96, 96, (3, 3))
        self.branch_pool = Conv(channels, pool_channels, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, 224 + pool_channels, H, W)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        branches = [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double]
        return torch.cat([*branches, self.branch_pool(_average_pool(x))], dim=1)


class MixedB(nn.Module):
    """35 x 35 to 17 x 17: 3x3, two 3x3, pool; 288 to 768 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = Conv(288, 384, (3, 3), 2, pad=False)
        self.branch3x3dbl_1 = Conv(288, 64, (1, 1))
        self.branch3x3dbl_2 = Conv(64, 96, (3, 3))
        self.branch3x3dbl_3 = Conv(96, 96, (3, 3), 2, pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 288, H, W) to (B, 768, (H - 1) // 2, (W - 1) // 2)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], dim=1)


class MixedC(nn.Module):
    """17 x 17, 768 channels: 1x1, one and two factorised 7x7 with `inner` channels, pool."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(768, 192, (1, 1))
        self.branch7x7_1 = Conv(768, inner, (1, 1))
        self.branch7x7_2 = Conv(inner, inner, (1, 7))
        self.branch7x7_3 = Conv(inner, 192, (7, 1))
        self.branch7x7dbl_1 = Conv(768, inner, (1, 1))
        self.branch7x7dbl_2 = Conv(inner, inner, (7, 1))
        self.branch7x7dbl_3 = Conv(inner, inner, (1, 7))
        self.branch7x7dbl_4 = Conv(inner, inner, (7, 1))
        self.branch7x7dbl_5 = Conv(inner, 192, (1, 7))
        self.branch_pool = Conv(768, 192, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 768, H, W) to the same shape."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average_pool(x))], dim=1)


class MixedD(nn.Module):
    """17 x 17 to 8 x 8: 3x3, factorised 7x7 then 3x3, pool; 768 to 1280 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(768, 192, (1, 1))
        self.branch3x3_2 = Conv(192, 320, (3, 3), 2, pad=False)
        self.branch7x7x3_1 = Conv(768, 192, (1, 1))
        self.branch7x7x3_2 = Conv(192, 192, (1, 7))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = Conv(192, 192, (3, 3), 2, pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 768, H, W) to (B, 1280, (H - 1) // 2, (W - 1) // 2)."""
        single = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([single, seven, functional.max_pool2d(x, 3, 2)], dim=1)


class MixedE(nn.Module):
    """8 x 8 to 2048 channels: 1x1, forked 3x3, forked two 3x3, average or (the last block) maximum pool."""

    def __init__(self, channels: int, maximum_pool: bool) -> None:
        super().__init__()
        self.maximum_pool = maximum_pool
        self.branch1x1 = Conv(channels, 320, (1, 1))
        self.branch3x3_1 = Conv(channels, 384, (1, 1))
        self.branch3x3_2a = Conv(384, 384, (1, 3))
        self.branch3x3_2b = Conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = Conv(channels, 448, (1, 1))
        self.branch3x3dbl_2 = Conv(448, 384, (3, 3))
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1))
        self.branch_pool = Conv(channels, 192, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, 2048, H, W)."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, 1, 1) if self.maximum_pool else _average_pool(x)
        branches = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        branches += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(branches, dim=1)


class Inception(nn.Module):
    """The network. Frozen: it stays in evaluation mode whatever `train` says."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, (3, 3), 2, pad=False)
        self.Conv2d_2a_3x3 = Conv(32, 32, (3, 3), pad=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = Conv(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Conv(80, 192, (3, 3), pad=False)
        self.Mixed_5b = MixedA(192, 32)
        self.Mixed_5c = MixedA(256, 64)
        self.Mixed_5d = MixedA(288, 64)
        self.Mixed_6a = MixedB()
        self.Mixed_6b = MixedC(128)
        self.Mixed_6c = MixedC(160)
        self.Mixed_6d = MixedC(160)
        self.Mixed_6e = MixedC(192)
        self.Mixed_7a = MixedD()
        self.Mixed_7b = MixedE(1280, maximum_pool=False)
        self.Mixed_7c = MixedE(2048, maximum_pool=True)
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Inception":
        """Stay in evaluation mode: the batch statistics belong to the weights."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 2048) of pictures (B, 3, H, W) uint8 RGB, of any size; they are resized and scaled here.

        Raises:
            ValueError: another shape or type.
        """
        x = functional.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(prepare(images)))), 3, 2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))

    def class_probabilities(self, features: Tensor) -> Tensor:
        """Return class probabilities (B, 1008) of features (B, 2048), without the bias, as the inception score does."""
        return functional.softmax(features @ self.fc.weight.T, dim=1)


def prepare(images: Tensor) -> Tensor:
    """Resize pictures (B, 3, H, W) uint8 to (B, 3, 299, 299) and scale them to (x - 128) / 128.

    Bilinear without antialias as in the 2015 graph: pixel i of the result lies at i H / 299 of the picture, pixel
    corners and not centres falling together, and places beyond the last pixel repeat it.

    Raises:
        ValueError: another shape or type.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f"images: expected (B, 3, H, W) uint8, got {tuple(images.shape)} {images.dtype}")
    x = images.float()
    for axis in (2, 3):
        if x.shape[axis] != INPUT_SIZE:
            x = _resize_axis(x, axis)
    return (x - 128) / 128


def load_inception(path: str | Path | None = None) -> Inception:
    """Build the network with public weights, on the CPU.

    Args:
        path: the public state dict, or the same tensors as `.safetensors`; None looks in the places of
            `registry.find_weights`. Tensors without use here are ignored.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing, damaged, or lacks tensors.
    """
    path = find_weights("inception") if path is None else Path(path)
    published = load_tensors(path)
    with torch.device("meta"):
        network = Inception()
    wanted = network.state_dict()
    counters = [name for name in wanted if name.endswith("num_batches_tracked")]
    remedy = f"use {EXTERNAL_WEIGHTS['inception'].source}"
    missing = [name for name in wanted if name not in published and name not in counters]
    if missing:
        problem = f"{len(missing)} of {len(wanted) - len(counters)} tensors are missing: {', '.join(missing[:4])}, ..."
        raise InputFileError(path, problem, remedy)
    for name, tensor in wanted.items():
        if name in counters:
            wanted[name] = torch.zeros((), dtype=torch.int64)  # without use in evaluation mode
            continue
        if published[name].shape != tensor.shape:
            shapes = f"expected shape {tuple(tensor.shape)}, got {tuple(published[name].shape)}"
            raise InputFileError(path, f"{name}: {shapes}", remedy)
        wanted[name] = published[name].float()
    network.load_state_dict(wanted, assign=True)
    return network.requires_grad_(False)


def _average_pool(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _resize_axis(x: Tensor, axis: int) -> Tensor:
    count = x.shape[axis]
    places = torch.arange(INPUT_SIZE, device=x.device, dtype=torch.float32) * (count / INPUT_SIZE)
    low = places.long().clamp(max=count - 1)
    high = (low + 1).clamp(max=count - 1)
    share = (places - low).view(-1, 1) if axis == 2 else places - low
    first = x.index_select(axis, low)
    return first + (x.index_select(axis, high) - first) * share
