"""Compact landmark network of the open head world: where a face is in a picture, and whether there is one.

A residual network of three scales answers one map for each point; the point is the mean place of its map. The first
look takes the whole picture, the second one a view of the face that the first look found, upright and of one size.
Meant for pictures of that world; no published weights went into it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.config.networks import LandmarkNetworkConfig
from portrait4d.geometry.face_alignment import fit_similarity, warp_affine
from portrait4d.models.compact_motion_encoder import GROUPS, ResidualBlock
from portrait4d.ops.resize import resize_antialiased


class FaceReading(NamedTuple):
    """What the network says of B pictures.

    Attributes:
        points: (B, 70, 2) (x, y) as fractions of the picture, from its upper left corner: the 68 points and the pupils.
        presence: (B,) logarithm of the odds that there is a face.
    """

    points: Tensor
    presence: Tensor


class CompactLandmarks(nn.Module):
    """The network.

    Args:
        config: sizes.
        mean_face: (70, 2) where the points lie in the view of the second look, fractions of it; None: zeros, for
            weights to be loaded.

    Raises:
        ValueError: a mean face of another shape.
    """

    mean_face: Tensor

    def __init__(self, config: LandmarkNetworkConfig, mean_face: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        first, *widths = config.widths
        self.stem = nn.Conv2d(3, first, 5, stride=2, padding=2)
        self.down = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(narrow, wide, 3, stride=2, padding=1), ResidualBlock(wide))
            for narrow, wide in zip(config.widths, widths, strict=False)
        )
        self.deepest = ResidualBlock(widths[-1])
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.Conv2d(wide, narrow, 1) for wide, narrow in pairs)
        self.blend = nn.ModuleList(ResidualBlock(narrow) for _, narrow in pairs)
        self.to_maps = nn.Sequential(nn.GroupNorm(GROUPS, widths[0]), nn.ReLU(), nn.Conv2d(widths[0], config.points, 1))
        self.to_presence = nn.Linear(widths[-1], 1)
        mean_face = torch.zeros(config.points, 2) if mean_face is None else mean_face
        if mean_face.shape != (config.points, 2):
            raise ValueError(f"mean_face: expected shape ({config.points}, 2), got {tuple(mean_face.shape)}")
        self.register_buffer("mean_face", mean_face.clone())

    def forward(self, pictures: Tensor) -> FaceReading:
        """Read pictures (B, 3, picture_size, picture_size) in [-1, 1].

        Raises:
            ValueError: another shape.
        """
        size = self.config.picture_size
        if pictures.ndim != 4 or pictures.shape[1:] != (3, size, size):
            raise ValueError(f"pictures: expected shape (B, 3, {size}, {size}), got {tuple(pictures.shape)}")
        x, passed = self.stem(pictures), []
        for stage in self.down:
            x = stage(x)
            passed.append(x)
        x = self.deepest(x)
        presence = self.to_presence(functional.relu(x).mean(dim=(2, 3)))[:, 0]
        for reduce, blend, finer in zip(self.up, self.blend, passed[-2::-1], strict=True):
            x = blend(functional.interpolate(reduce(x), scale_factor=2.0, mode="nearest") + finer)
        return FaceReading(mean_places(self.to_maps(x).float()), presence.float())

    def find(self, images: Tensor) -> FaceReading:
        """Look twice at pictures (B, 3, S, S) in [-1, 1]; faces should not be much larger than `picture_size`.

        Returns:
            Points of the second look; the presence that is the smaller one of both.
        """
        first = self(resize_antialiased(images, self.config.picture_size))
        second = self.look_closer(images, first.points)
        return FaceReading(second.points, torch.minimum(first.presence, second.presence))

    def look_closer(self, images: Tensor, points: Tensor) -> FaceReading:
        """Read upright views of faces.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            points: (B, 70, 2) about where the points are, fractions of the pictures.

        Returns:
            Points as fractions of `images`.
        """
        size, side = self.config.picture_size, images.shape[-1]
        transforms = self.view_transforms(points)
        linear, shift = transforms[:, :, :2], transforms[:, :, 2:]
        corners = torch.full((2, 1), 0.5, dtype=torch.float64, device=images.device)  # of pixels, from their middles
        pixels = torch.cat([linear * (size / side), linear @ corners * (size / side) + shift * size - corners], dim=2)
        reading = self(warp_affine(images, pixels, (size, size)))
        found = torch.linalg.solve(linear, reading.points.double().mT - shift).mT
        return FaceReading(found.to(images.dtype), reading.presence)

    def view_transforms(self, points: Tensor) -> Tensor:
        """Return the similarities (B, 2, 3) float64 that bring faces into the view of the second look.

        Args:
            points: (B, 70, 2) any unit; the transforms lead from it to fractions of the view.

        Raises:
            ValueError: another shape, or points that are not finite.
        """
        return fit_similarity(points, self.mean_face)


def mean_places(maps: Tensor) -> Tensor:
    """Return the mean places (B, K, 2), as fractions of the picture, of maps (B, K, H, W) of logarithms of weights."""
    weights = maps.flatten(2).softmax(dim=2).unflatten(2, maps.shape[2:])
    height, width = maps.shape[2:]
    x = (torch.arange(width, device=maps.device) + 0.5) / width
    y = (torch.arange(height, device=maps.device) + 0.5) / height
    return torch.stack([weights.sum(dim=2) @ x, weights.sum(dim=3) @ y], dim=-1)
