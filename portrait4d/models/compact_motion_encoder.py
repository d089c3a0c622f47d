"""Compact motion encoder of the open head world: a face to its motion vector (548,), without published weights.

A small residual network reads the inputs of a motion vector (expression, gaze, jaw) from a crop from brows to chin; the
vector follows from them by a fixed matrix, which is part of the weights. Meant for pictures of that world.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.config.networks import MOTION_DIMS, MotionEncoderConfig
from portrait4d.geometry.face_alignment import face_crop
from portrait4d.ops.resize import resize_antialiased

GROUPS = 8


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions whose result is added to the input (B, channels, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, channels), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        inner = self.conv1(functional.relu(self.norm1(x)))
        return x + self.conv2(functional.relu(self.norm2(inner)))


class CompactMotionEncoder(nn.Module):
    """The network and its fixed last step.

    Args:
        config: sizes.
        projection: (inputs, 548), what each input adds to motion vectors; None: zeros, for weights to be loaded.
        scale: (inputs,) usual deviations of the inputs, so that the layers answer numbers of one size; None: ones.

    Raises:
        ValueError: a projection or scale of another shape.
    """

    projection: Tensor
    scale: Tensor

    def __init__(
        self, config: MotionEncoderConfig, projection: Tensor | None = None, scale: Tensor | None = None
    ) -> None:
        super().__init__()
        self.config = config
        stages: list[nn.Module] = [nn.Conv2d(3, config.widths[0], 5, stride=2, padding=2)]
        for narrow, wide in zip(config.widths, config.widths[1:], strict=False):
            stages += [nn.ReLU(), nn.Conv2d(narrow, wide, 3, stride=2, padding=1), ResidualBlock(wide)]
        width, side = config.widths[-1], config.crop_size // 2 ** len(config.widths)
        self.stages = nn.Sequential(*stages)
        self.read_out = nn.Sequential(
            nn.GroupNorm(GROUPS, width),
            nn.ReLU(),
            nn.Conv2d(width, config.squeezed, 1),
            nn.Flatten(),
            nn.Linear(config.squeezed * side**2, config.hidden),
            nn.LayerNorm(config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.inputs),
        )
        projection = torch.zeros(config.inputs, MOTION_DIMS["pdfgc"]) if projection is None else projection
        scale = torch.ones(config.inputs) if scale is None else scale
        for name, shape in (("projection", (config.inputs, MOTION_DIMS["pdfgc"])), ("scale", (config.inputs,))):
            given = {"projection": projection, "scale": scale}[name]
            if given.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {tuple(given.shape)}")
            self.register_buffer(name, given.clone())

    def forward(self, crops: Tensor) -> Tensor:
        """Read the inputs of motion vectors, (B, inputs), from crops (B, 3, crop_size, crop_size) in [-1, 1].

        Raises:
            ValueError: another shape.
        """
        size = self.config.crop_size
        if crops.ndim != 4 or crops.shape[1:] != (3, size, size):
            raise ValueError(f"crops: expected shape (B, 3, {size}, {size}), got {tuple(crops.shape)}")
        return self.read_out(self.stages(crops)).float() * self.scale

    def crop(self, images: Tensor, landmarks_pixels: Tensor, reverse_y: bool = False) -> Tensor:
        """Cut out what `forward` takes; arguments as `encode_motion`."""
        side = images.shape[-1]
        if side > self.config.picture_size:
            images = resize_antialiased(images, self.config.picture_size)
            landmarks_pixels = landmarks_pixels * (self.config.picture_size / side)
        return face_crop(images, landmarks_pixels, self.config.crop_size, reverse_y)

    def encode_motion(self, images: Tensor, landmarks_pixels: Tensor, reverse_y: bool = False) -> Tensor:
        """Crop faces and encode them: the motion vectors (B, 548) = eye | emotion | mouth.

        Args:
            images: (B, 3, S, S) in [-1, 1], S of 64 or more.
            landmarks_pixels: (B, >= 68, 2) (x, y) in pixels of the images, 68-point order.
            reverse_y: True for landmarks with y up, from the head model; False for detected ones.

        Raises:
            ValueError: wrong shapes, or landmarks that are not finite.
        """
        return self(self.crop(images, landmarks_pixels, reverse_y)) @ self.projection
