"""PD-FGC motion encoder: an aligned face crop to codes of head pose, eyes, emotion and mouth. Frozen.

A single-stack face-alignment trunk squeezes the crop into 512 numbers; four heads read one code each from them.
Source: networks-auxiliary.md §1.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.files.errors import InputFileError
from portrait4d.geometry.face_alignment import MOTION_CROP_SIZE, motion_crop
from portrait4d.models.pretrained.registry import EXTERNAL_WEIGHTS, find_weights, load_tensors

FEATURES = 512
HOURGLASS_DEPTH = 4


class MotionCodes(NamedTuple):
    """What the encoder reads from a face: `head_pose` (B, 6), `eye` (B, 6), `emotion` (B, 30), `mouth` (B, 512)."""

    head_pose: Tensor
    eye: Tensor
    emotion: Tensor
    mouth: Tensor

    @property
    def vector(self) -> Tensor:
        """The motion vector (B, 548) = eye | emotion | mouth; the head pose is left out."""
        return torch.cat([self.eye, self.emotion, self.mouth], dim=1)


class ConvBlock(nn.Module):
    """Pre-activation block of three chained 3x3 convolutions, whose outputs are joined and added to the input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, half, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(), projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        first = self.conv1(functional.relu(self.norm1(x)))
        second = self.conv2(functional.relu(self.norm2(first)))
        third = self.conv3(functional.relu(self.norm3(second)))
        return torch.cat([first, second, third], dim=1) + self.shortcut(x)


class Hourglass(nn.Module):
    """Residual blocks at full size plus the same at half the size, `depth` times nested.

    Args:
        depth: number of halvings.
        channels: of input, output and everything between.
        plain: halve by means and double by repetition, as the published landmark network does, instead of by maxima
            and bilinearly.
    """

    def __init__(self, depth: int, channels: int, plain: bool = False) -> None:
        super().__init__()
        self.plain = plain
        self.skip = ConvBlock(channels, channels)
        self.before = ConvBlock(channels, channels)
        self.inner = Hourglass(depth - 1, channels, plain) if depth > 1 else ConvBlock(channels, channels)
        self.after = ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        halved = functional.avg_pool2d(x, 2) if self.plain else functional.max_pool2d(x, 2)
        low = self.after(self.inner(self.before(halved)))
        if self.plain:
            return self.skip(x) + functional.interpolate(low, size=x.shape[-2:])
        return self.skip(x) + functional.interpolate(low, size=x.shape[-2:], mode="bilinear", align_corners=False)


class LandmarkTrunk(nn.Module):
    """Face-alignment network whose 68 heatmaps are squeezed into one feature vector (networks-auxiliary.md §1.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_conv = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.stem_norm = nn.BatchNorm2d(64)
        self.block1 = ConvBlock(64, 128)
        self.block2 = ConvBlock(128, 128)
        self.block3 = ConvBlock(128, 256)
        self.hourglass = Hourglass(HOURGLASS_DEPTH, 256)
        self.top_block = ConvBlock(256, 256)
        self.top_conv = nn.Conv2d(256, 256, 1)
        self.top_norm = nn.BatchNorm2d(256)
        self.heatmaps = nn.Conv2d(256, 68, 1)
        self.heatmaps_norm = nn.BatchNorm2d(68)
        self.squeeze = nn.Conv2d(68, 1, 3, stride=2, padding=1)
        self.linear = nn.Linear((MOTION_CROP_SIZE // 8) ** 2, FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, 224, 224) in [-1, 1] to features (B, 512)."""
        x = functional.relu(self.stem_norm(self.stem_conv(images)))
        x = functional.max_pool2d(self.block1(x), 2)
        x = self.hourglass(self.block3(self.block2(x)))
        x = functional.relu(self.top_norm(self.top_conv(self.top_block(x))))
        x = self.squeeze(functional.relu(self.heatmaps_norm(self.heatmaps(x))))
        return self.linear(functional.relu(x.flatten(1)))


class MotionEncoder(nn.Module):
    """The PD-FGC encoder. Frozen: it stays in evaluation mode whatever `train` says."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = LandmarkTrunk()
        self.head_pose_features, self.head_pose_code = _build_features(), nn.Linear(FEATURES, 6)
        self.eye_features, self.eye_code = _build_features(), nn.Linear(FEATURES, 6)
        self.emotion_features, self.emotion_code = _build_features(), nn.Linear(FEATURES, 30)
        self.mouth_features = _build_features()
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "MotionEncoder":
        """Stay in evaluation mode: the batch statistics belong to the weights."""
        return super().train(False)

    def forward(self, crops: Tensor) -> MotionCodes:
        """Encode aligned crops (B, 3, 224, 224) in [-1, 1], as `motion_crop` cuts them.

        Raises:
            ValueError: another shape.

        Source: networks-auxiliary.md §1.3.
        """
        if crops.ndim != 4 or crops.shape[1:] != (3, MOTION_CROP_SIZE, MOTION_CROP_SIZE):
            raise ValueError(f"crops: expected shape (B, 3, 224, 224), got {tuple(crops.shape)}")
        features = self.trunk(crops)
        return MotionCodes(
            head_pose=self.head_pose_code(functional.relu(self.head_pose_features(features))),
            eye=self.eye_code(functional.relu(self.eye_features(features))),
            emotion=self.emotion_code(functional.relu(self.emotion_features(features))),
            mouth=self.mouth_features(features),
        )

    def encode_motion(self, images: Tensor, landmarks_pixels: Tensor, reverse_y: bool = False) -> Tensor:
        """Crop faces and encode them: the motion vectors (B, 548) = eye | emotion | mouth.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            landmarks_pixels: (B, >= 68, 2) (x, y) in pixels of the images, 68-point order.
            reverse_y: True for landmarks with y up, from the head model; False for detected ones.

        Raises:
            ValueError: wrong shapes, or landmarks that are not finite.
        """
        crops, _ = motion_crop(images, landmarks_pixels, reverse_y)
        return self(crops).vector


def load_motion_encoder(path: str | Path | None = None) -> MotionEncoder:
    """Build the encoder with published weights, on the CPU.

    Args:
        path: the published `motion_model.pth` or the same tensors, names kept, as `.safetensors`; None looks in the
            places of `registry.find_weights`. Tensors without use here are ignored.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing, damaged, or lacks tensors.
    """
    path = find_weights("motion_encoder") if path is None else Path(path)
    published = load_tensors(path)
    encoder = MotionEncoder()
    state = encoder.state_dict()
    wanted = {ours: published_name(ours) for ours in state if not ours.endswith("num_batches_tracked")}
    remedy = f"use motion_model.pth of {EXTERNAL_WEIGHTS['motion_encoder'].source}"
    missing = [theirs for theirs in wanted.values() if theirs not in published]
    if missing:
        names = ", ".join(missing[:20]) + (f" and {len(missing) - 20} more" if len(missing) > 20 else "")
        raise InputFileError(path, f"{len(missing)} of {len(wanted)} tensors are missing: {names}", remedy)
    for ours, theirs in wanted.items():
        if published[theirs].shape != state[ours].shape:
            expected, actual = tuple(state[ours].shape), tuple(published[theirs].shape)
            raise InputFileError(path, f"{theirs}: expected shape {expected}, got {actual}", remedy)
        state[ours] = published[theirs]
    encoder.load_state_dict(state)
    return encoder


def published_name(name: str) -> str:
    """Return the name that the published state dict gives to our tensor `name` (networks-auxiliary.md §1.4)."""
    part, _, rest = name.partition(".")
    if part != "trunk":
        return f"{_HEAD_NAMES[part]}.{rest}" if part.endswith("_features") else f"{_HEAD_NAMES[part]}.1.{rest}"
    module, _, rest = rest.partition(".")
    if module == "hourglass":
        return f"model.m0.{published_hourglass_name(rest)}"
    return f"model.{_TRUNK_NAMES[module]}.{published_block_name(rest) if 'block' in module else rest}"


def published_hourglass_name(name: str) -> str:
    """Return the published name of a tensor of a `Hourglass` of depth 4."""
    level = HOURGLASS_DEPTH
    while level > 1 and name.startswith("inner."):
        level, name = level - 1, name.removeprefix("inner.")
    branch, _, rest = name.partition(".")
    block = "b2_plus_1" if branch == "inner" else f"{_HOURGLASS_NAMES[branch]}_{level}"
    return f"{block}.{published_block_name(rest)}"


def published_block_name(name: str) -> str:
    """Return the published name of a tensor of a `ConvBlock`."""
    return name.replace("norm", "bn").replace("shortcut", "downsample")


def _build_features() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(FEATURES, FEATURES), nn.ReLU(), nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, FEATURES)
    )


_HEAD_NAMES = {
    "head_pose_features": "to_headpose",
    "head_pose_code": "headpose_embed",
    "eye_features": "to_eye",
    "eye_code": "eye_embed",
    "emotion_features": "to_emo",
    "emotion_code": "emo_embed",
    "mouth_features": "to_mouth",
}
_TRUNK_NAMES = {
    "stem_conv": "conv1",
    "stem_norm": "bn1",
    "block1": "conv2",
    "block2": "conv3",
    "block3": "conv4",
    "top_block": "top_m_0",
    "top_conv": "conv_last0",
    "top_norm": "bn_end0",
    "heatmaps": "l0",
    "heatmaps_norm": "bn5",
    "squeeze": "conv6",
    "linear": "fc",
}
_HOURGLASS_NAMES = {"skip": "b1", "before": "b2", "after": "b3"}
