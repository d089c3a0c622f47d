"""The 68 landmarks that follow the head in depth: crop, heat-maps by FAN-4, decoding, and inputs of a depth network.

Boxes are (x1, y1, x2, y2), points (x, y) in pixels of the picture, x right, y down. Source: preprocess-networks.md §3.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from data_preprocess.fan import FAN_INPUT_SIZE, HEATMAP_SIZE, LANDMARKS, Fan
from data_preprocess.landmarks_2d import cut_box
from data_preprocess.opencv_resize import resize_opencv
from portrait4d.data.image_io import from_uint8, to_uint8

_SHARE_UPWARDS = 0.12
_PIXELS_PER_SCALE = 200
_BOX_PER_SCALE = 192  # the upstream library has 195
_GAUSSIAN_RADIUS = 6
_GAUSSIAN_SIGMA = 3.25


class FanFrame(NamedTuple):
    """The square of a picture that the network sees.

    Attributes:
        centre: (x, y) in pixels of the picture.
        scale: the square's side in units of 200 pixels.
    """

    centre: tuple[float, float]
    scale: float

    @property
    def side(self) -> float:
        """Side of the square in pixels of the picture."""
        return _PIXELS_PER_SCALE * self.scale

    def to_image(self, points: Tensor, resolution: int) -> Tensor:
        """Map points (..., 2) of a map of `resolution` pixels a side, counted from its corner, to the picture."""
        centre = torch.tensor(self.centre, dtype=torch.float64, device=points.device)
        return points.double() * (self.side / resolution) + centre - self.side / 2

    @property
    def corners(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First (x, y) of the pixels that are cut, and the first ones after them; they may lie outside the picture."""
        points = torch.tensor([[1.0, 1.0], [FAN_INPUT_SIZE, FAN_INPUT_SIZE]])
        (x1, y1), (x2, y2) = self.to_image(points, FAN_INPUT_SIZE).trunc().int().tolist()
        return (x1, y1), (x2, y2)


class Landmarks68(NamedTuple):
    """Landmarks of B faces.

    Attributes:
        points: (B, 68, 2) float32, pixels of the picture, x right, y down, iBUG order.
        scores: (B, 68) float32, the peaks of the heat-maps.
    """

    points: Tensor
    scores: Tensor


@torch.no_grad()
def detect_landmarks68(network: Fan, images: Sequence[Tensor], boxes: Tensor, whole_pixels: bool = True) -> Landmarks68:
    """Find the landmarks of one face per picture.

    Args:
        network: on any device.
        images: B pictures (3, H, W) in [-1, 1], or one tensor of them; sizes may differ. Name a picture twice for two
            faces.
        boxes: (B, 4) around the faces, as the detector gives them, not enlarged.
        whole_pixels: cut coordinates to integers, as published files have them; False keeps the fractions.

    Returns:
        Landmarks on the CPU.

    Raises:
        ValueError: other shapes, NaN in `images`, or a box that is empty, not finite, or misses its picture.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != len(images):
        raise ValueError(f"boxes: expected shape ({len(images)}, 4), got {tuple(boxes.shape)}")
    if not len(boxes):
        return Landmarks68(torch.zeros(0, LANDMARKS, 2), torch.zeros(0, LANDMARKS))
    frames = [fan_frame(box) for box in boxes]
    crops = torch.stack([cut_fan_crop(image, frame) for image, frame in zip(images, frames, strict=True)])
    points, scores = decode_heatmaps(network(crops.to(network.stem_conv.weight.device)))
    pairs = zip(points.cpu(), frames, strict=True)
    return Landmarks68(torch.stack([place_points(one, frame, whole_pixels) for one, frame in pairs]), scores.cpu())


def fan_frame(box: Tensor) -> FanFrame:
    """Return the square that the network sees of a face with the box (4,).

    Raises:
        ValueError: a box that is empty or not finite.

    Source: preprocess-networks.md §3.1.
    """
    x1, y1, x2, y2 = box.tolist()
    width, height = x2 - x1, y2 - y1
    if not (math.isfinite(width + height) and width > 0 and height > 0):
        raise ValueError(f"box: expected x1 < x2, y1 < y2, got {box.tolist()}")
    centre = (x2 - width / 2, y2 - height / 2 - _SHARE_UPWARDS * height)
    return FanFrame(centre, (width + height) / _BOX_PER_SCALE)


def cut_fan_crop(image: Tensor, frame: FanFrame) -> Tensor:
    """Cut the frame from a picture (3, H, W) in [-1, 1], black outside it: (3, 256, 256) in [-1, 1].

    Raises:
        ValueError: a frame that misses the picture, or has no pixel.
    """
    crop = cut_box(image, torch.tensor(frame.corners).flatten())
    return from_uint8(resize_opencv(to_uint8(crop), (FAN_INPUT_SIZE, FAN_INPUT_SIZE)))


def decode_heatmaps(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Find the peaks of heat-maps (B, K, 64, 64), moved by a quarter pixel towards the larger neighbour.

    Returns:
        points: (B, K, 2) float32 (x, y) in pixels of the map, counted from its corner.
        scores: (B, K) the peaks' heights.

    Raises:
        ValueError: another shape.

    Source: preprocess-networks.md §3.3.
    """
    if heatmaps.ndim != 4 or heatmaps.shape[2:] != (HEATMAP_SIZE, HEATMAP_SIZE):
        raise ValueError(f"heatmaps: expected shape (B, K, 64, 64), got {tuple(heatmaps.shape)}")
    flat = heatmaps.flatten(2)
    scores, peak = flat.max(-1)
    x, y = peak % HEATMAP_SIZE, peak // HEATMAP_SIZE
    inner = (x > 0) & (x < HEATMAP_SIZE - 1) & (y > 0) & (y < HEATMAP_SIZE - 1)

    def towards(step: int) -> Tensor:
        """Return the sign of the slope along a step of the flat map, 0 at the map's border."""
        after, before = ((peak + one).clamp(0, HEATMAP_SIZE**2 - 1) for one in (step, -step))
        slope = flat.gather(-1, after[..., None]) - flat.gather(-1, before[..., None])
        return slope[..., 0].sign() * inner

    shifts = torch.stack([towards(1), towards(HEATMAP_SIZE)], -1)
    return torch.stack([x, y], -1).float() + 0.25 * shifts.float() + 0.5, scores.float()


def place_points(points: Tensor, frame: FanFrame, whole_pixels: bool = True) -> Tensor:
    """Map points (..., 2) of heat-maps into the picture, float32; cut to integers if `whole_pixels`."""
    placed = frame.to_image(points, HEATMAP_SIZE)
    return (placed.trunc() if whole_pixels else placed).float()


def draw_depth_maps(points: Tensor) -> Tensor:
    """Draw points as the 13-pixel Gaussians that the depth network of the 3-D landmarks reads beside the crop.

    The peak lies one pixel before the point, and near the upper and left border the kernel is shifted: the network was
    trained with maps like that.

    Args:
        points: (..., 2) (x, y) in pixels of a heat-map, as `decode_heatmaps` gives them.

    Returns:
        (..., 256, 256) in [0, 1].

    Source: preprocess-networks.md §3.4.
    """
    x, y = (_depth_profile(points[..., axis].double() * (FAN_INPUT_SIZE / HEATMAP_SIZE)) for axis in (0, 1))
    return (y[..., :, None] * x[..., None, :]).float()


def _depth_profile(centre: Tensor) -> Tensor:
    """Return the kernel (..., 256) along one axis for places (...,) in pixels."""
    low, high = (centre - _GAUSSIAN_RADIUS).floor(), (centre + _GAUSSIAN_RADIUS).floor()
    first, skipped = low.clamp(min=1) - 1, (-low).clamp(min=1) - 1
    pixel = torch.arange(FAN_INPUT_SIZE, dtype=torch.float64, device=centre.device)
    place = pixel - first[..., None] + skipped[..., None]
    drawn = (pixel >= first[..., None]) & (pixel < high[..., None]) & (centre > 0)[..., None]
    return torch.exp(-((place - _GAUSSIAN_RADIUS) ** 2) / (2 * _GAUSSIAN_SIGMA**2)) * drawn
