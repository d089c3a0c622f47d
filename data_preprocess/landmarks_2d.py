"""98 WFLW landmarks of faces by H3R (Jin et al. 2020, "Heatmap Regression via Randomized Rounding") with HRNet-W18.

Boxes are (x1, y1, x2, y2), points (x, y), in pixels of the picture, x right, y down.
Source: preprocess-networks.md §2, preprocess-pipeline.md §4.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_preprocess.hrnet import FEATURES, HRNetW18
from data_preprocess.published_weights import load_published
from portrait4d.data.image_io import resize_picture, to_uint8

LANDMARKS = 98
INPUT_SIZE = 256
DETECTION_ENLARGEMENT = 1.5
"""How much larger than a detected box the network's crop is."""

TRACKING_ENLARGEMENT = 1.8
"""How much larger than the bounding box of the last picture's landmarks the crop is."""

_HEATMAP_STRIDE = 4
_PEAKS = 9
_MEAN_RGB = (0.485, 0.456, 0.406)
_STD_RGB = (0.229, 0.224, 0.225)


class LandmarkNetwork(nn.Module):
    """Backbone and heat-map head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = HRNetW18()
        self.head = nn.Sequential(
            nn.Conv2d(FEATURES, FEATURES, 1, bias=False),
            nn.BatchNorm2d(FEATURES),
            nn.ReLU(),
            nn.Conv2d(FEATURES, 2 * LANDMARKS, 1, bias=False),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, 3, 256, 256), normalised as `landmark_input` does, to heat maps (B, 98, 64, 64), any range."""
        return self.head(self.backbone(inputs))[:, LANDMARKS:]  # the first half is of use in training only


def load_landmark_network(path: str | Path | None = None) -> LandmarkNetwork:
    """Build the network with published weights, on the CPU.

    Args:
        path: the published `model.pth`, or the same tensors as `.safetensors`; None looks in the places of
            `registry.find_weights`.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing, damaged, or does not hold exactly this network.
    """
    return load_published(LandmarkNetwork, "h3r", path, published_name=published_name)


def published_name(name: str) -> str:
    """Return the name that the published state dict gives to our tensor `name` (preprocess-networks.md §2.4)."""
    return f"heatmap_head.head.layers.{name.removeprefix('head.')}" if name.startswith("head.") else name


@torch.no_grad()
def detect_landmarks98(
    network: LandmarkNetwork, images: Sequence[Tensor], boxes: Tensor, enlargement: float = DETECTION_ENLARGEMENT
) -> Tensor:
    """Find the landmarks of one face per picture.

    Args:
        network: on any device.
        images: B pictures (3, H, W) in [-1, 1], or one tensor of them; sizes may differ. Name a picture twice for two
            faces.
        boxes: (B, 4) around the faces, which need not lie inside the pictures.
        enlargement: `DETECTION_ENLARGEMENT` for boxes of a detector, `TRACKING_ENLARGEMENT` for `bounding_boxes` of
            earlier landmarks.

    Returns:
        (B, 98, 2) float64 on the CPU.

    Raises:
        ValueError: another shape, NaN in `images`, or a box whose crop misses its picture.
    """
    corners = crop_corners(enlarge_boxes(boxes.cpu(), enlargement))
    if len(images) != len(corners):
        raise ValueError(f"boxes: expected one box for each of {len(images)} pictures, got {len(corners)}")
    if not len(corners):
        return torch.zeros(0, LANDMARKS, 2, dtype=torch.float64)
    inputs = [landmark_input(cut_box(image, row)) for image, row in zip(images, corners, strict=True)]
    points = decode_heatmaps(network(torch.stack(inputs).to(next(network.parameters()).device)))
    low, high = corners[:, None, :2].double(), corners[:, None, 2:].double()
    return points.cpu().double() / (INPUT_SIZE / (high - low)) + low


def enlarge_boxes(boxes: Tensor, factor: float) -> Tensor:
    """Return squares about the centres of boxes (B, 4), of the boxes' area times the factor squared.

    The last pixel of a box counts as inside, so that sides are x2 - x1 + 1.

    Raises:
        ValueError: another shape, or a box that is not finite or ends before it begins.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: expected shape (B, 4), got {tuple(boxes.shape)}")
    if not (torch.isfinite(boxes).all() and (boxes[:, :2] <= boxes[:, 2:]).all()):
        raise ValueError(f"boxes: expected finite x1 <= x2, y1 <= y2, got {boxes.tolist()}")
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (factor * (boxes[:, 2:] - boxes[:, :2] + 1).prod(dim=1).sqrt() / 2)[:, None]
    return torch.cat([middles - half, middles + half], dim=1)


def bounding_boxes(points: Tensor) -> Tensor:
    """Return the boxes (B, 4) around points (B, N, 2)."""
    return torch.cat([points.amin(dim=1), points.amax(dim=1)], dim=1)


def crop_corners(boxes: Tensor) -> Tensor:
    """Return boxes (B, 4) with their numbers cut towards zero, int64; sides may then differ by a pixel."""
    return boxes.trunc().long()


def cut_box(image: Tensor, corners: Tensor) -> Tensor:
    """Cut a box out of a picture, black where it reaches beyond.

    Args:
        image: (3, H, W) in [-1, 1].
        corners: (4,) integers; x2 and y2 are the first column and row after the box.

    Returns:
        (3, y2 - y1, x2 - x1) in [-1, 1].

    Raises:
        ValueError: the box misses the picture.
    """
    x1, y1, x2, y2 = corners.tolist()
    height, width = image.shape[1:]
    if max(x1, 0) >= min(x2, width) or max(y1, 0) >= min(y2, height):
        raise ValueError(f"corners: expected a box in a picture of {width} x {height} pixels, got {corners.tolist()}")
    return functional.pad(image, (-x1, x2 - width, -y1, y2 - height), value=-1)


def landmark_input(crop: Tensor) -> Tensor:
    """Bring a crop (3, H, W) in [-1, 1] to the network's size and colours.

    Returns:
        (3, 256, 256), normalised with the mean and standard deviation of ImageNet; on the CPU.
    """
    x = to_uint8(resize_picture(crop, (INPUT_SIZE, INPUT_SIZE), "bilinear")) / 255
    return (x - x.new_tensor(_MEAN_RGB).view(3, 1, 1)) / x.new_tensor(_STD_RGB).view(3, 1, 1)


def decode_heatmaps(heatmaps: Tensor) -> Tensor:
    """Return the points (B, K, 2) of heat maps (B, K, 64, 64), in pixels of the 256-pixel input.

    Each is the mean of the nine highest places of its map, weighted with the softmax of their heights, times 4.
    """
    heights, places = heatmaps.flatten(2).topk(_PEAKS, dim=2)
    rows = torch.div(places, heatmaps.shape[3], rounding_mode="floor")
    columns = places - rows * heatmaps.shape[3]
    shares = heights.softmax(dim=2)[..., None]
    return _HEATMAP_STRIDE * (shares * torch.stack([columns, rows], dim=-1)).sum(dim=2)
