"""Faces in pictures: boxes, scores and five points by RetinaFace, and which of them to go on with.

Boxes are (x1, y1, x2, y2), points (x, y), in pixels of the picture, x right, y down; they may reach beyond its edges.
Source: preprocess-networks.md §1.4 to §1.6, preprocess-pipeline.md §4.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from data_preprocess.opencv_resize import resize_opencv
from data_preprocess.retinaface_network import HeadOutputs, RetinaFace
from portrait4d.data.image_io import to_uint8

MEAN_BGR = (104.0, 117.0, 123.0)
STRIDES = (8, 16, 32)
PRIOR_SIDES_PIXELS = ((16, 32), (64, 128), (256, 512))
"""Sides of the two square priors of a cell, per stride."""

FaceChoice = Literal["largest", "center", "all"]
"""Which faces of a picture to keep."""

_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2


@dataclass(frozen=True)
class DetectionSettings:
    """How faces are found.

    Attributes:
        height: pixels to which the height of pictures is brought; the width follows.
        score_threshold: faces must score more.
        overlap_threshold: a face that overlaps a better one by more (intersection over union) is dropped.
    """

    height: int = 640
    score_threshold: float = 0.8
    overlap_threshold: float = 0.4


@dataclass(frozen=True)
class FaceBoxes:
    """Faces of one picture on the CPU, float32, best score first.

    Attributes:
        boxes: (K, 4).
        scores: (K,) in (0, 1].
        points: (K, 5, 2) image-left eye, image-right eye, nose tip, image-left and image-right mouth corner.
    """

    boxes: Tensor
    scores: Tensor
    points: Tensor

    def __len__(self) -> int:
        """Return K."""
        return len(self.boxes)

    def __getitem__(self, rows: Tensor | slice) -> "FaceBoxes":
        """Return some of the faces."""
        return FaceBoxes(self.boxes[rows], self.scores[rows], self.points[rows])


@torch.no_grad()
def detect_faces(network: RetinaFace, images: Tensor, settings: DetectionSettings | None = None) -> list[FaceBoxes]:
    """Find the faces of pictures of one size.

    Args:
        network: on any device.
        images: (B, 3, H, W) in [-1, 1], on any device.
        settings: None for the published ones.

    Returns:
        B results; a picture without a face has K = 0.

    Raises:
        ValueError: another shape, or NaN in `images`.
    """
    settings = settings or DetectionSettings()
    inputs, ratio = detection_inputs(images, settings.height)
    outputs = network(inputs.to(next(network.parameters()).device))
    priors = prior_boxes(*inputs.shape[2:]).to(outputs.scores.device)
    return [
        select_faces(decode_faces(HeadOutputs(*picture), priors, inputs.shape[2:], ratio), settings)
        for picture in zip(*outputs, strict=True)
    ]


def detection_inputs(images: Tensor, height: int) -> tuple[Tensor, float]:
    """Bring pictures to the detector's height and colours.

    Args:
        images: (B, 3, H, W) RGB in [-1, 1].
        height: of the result in pixels.

    Returns:
        (B, 3, height, round(W ratio)), blue, green, red in 0 to 255 less the mean colour; and ratio = height / H.

    Raises:
        ValueError: another shape, or NaN in `images`.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"images: expected shape (B, 3, H, W), got {tuple(images.shape)}")
    ratio = height / images.shape[2]
    size = max(1, round(images.shape[3] * ratio)), height
    resized = torch.stack([resize_opencv(to_uint8(image), size, 1 / ratio) for image in images]).flip(1).float()
    return resized - resized.new_tensor(MEAN_BGR).view(3, 1, 1), ratio


def prior_boxes(height: int, width: int) -> Tensor:
    """Return the priors (N, 4) = centre x, centre y, width, height in shares of an input of `height` x `width` pixels.

    Order as in `HeadOutputs`: strides, rows, columns, sizes. Priors at the edges are not cut.
    """
    levels = []
    for stride, sides in zip(STRIDES, PRIOR_SIDES_PIXELS, strict=True):
        y = (torch.arange(-(-height // stride), dtype=torch.float64) + 0.5) * stride / height
        x = (torch.arange(-(-width // stride), dtype=torch.float64) + 0.5) * stride / width
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[:, :, None]
        shares = torch.tensor([[side / width, side / height] for side in sides], dtype=torch.float64)
        levels.append(torch.cat(torch.broadcast_tensors(centres, shares), dim=-1).reshape(-1, 4))
    return torch.cat(levels).float()


def decode_faces(outputs: HeadOutputs, priors: Tensor, input_size: tuple[int, int], ratio: float) -> FaceBoxes:
    """Turn the network's outputs for one picture into one face per prior, on the outputs' device.

    Args:
        outputs: (N, 4), (N,), (N, 10).
        priors: (N, 4) from `prior_boxes`.
        input_size: (height, width) of the network's input.
        ratio: pixels of the input per pixel of the picture.
    """
    height, width = input_size
    extent = priors.new_tensor([width, height])
    centres, sizes = priors[:, :2], priors[:, 2:]
    middle = centres + outputs.locations[:, :2] * _CENTRE_VARIANCE * sizes
    sides = sizes * torch.exp(outputs.locations[:, 2:] * _SIZE_VARIANCE)
    low = middle - sides / 2
    boxes = torch.cat([low * extent, (low + sides) * extent], dim=1) / ratio
    points = centres[:, None] + outputs.landmarks.unflatten(1, (5, 2)) * _CENTRE_VARIANCE * sizes[:, None]
    return FaceBoxes(boxes, outputs.scores, points * extent / ratio)


def select_faces(faces: FaceBoxes, settings: DetectionSettings) -> FaceBoxes:
    """Keep faces above the score threshold, best first, without those that overlap a better one too much."""
    rows = (faces.scores > settings.score_threshold).nonzero()[:, 0]
    rows = rows[torch.argsort(faces.scores[rows], descending=True, stable=True)]
    found = FaceBoxes(faces.boxes[rows].cpu(), faces.scores[rows].cpu(), faces.points[rows].cpu())
    return found[suppress_overlaps(found.boxes, settings.overlap_threshold)]


def suppress_overlaps(boxes: Tensor, threshold: float) -> Tensor:
    """Return the rows that remain when boxes (K, 4), best first, drop all later ones that they overlap (greedy NMS).

    Two overlap if their intersection over union is more than `threshold`; the last pixel of a box counts as inside, so
    that sides are x2 - x1 + 1.
    """
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(dim=1)
    rest, kept = torch.arange(len(boxes)), []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[rest, :2])
        high = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low + 1).clamp(min=0).prod(dim=1)
        rest = rest[shared / (areas[best] + areas[rest] - shared) <= threshold]
    return torch.stack(kept) if kept else rest


def choose_faces(faces: FaceBoxes, choice: FaceChoice, image_size: tuple[int, int]) -> FaceBoxes:
    """Keep the largest face (width + height), the one whose centre is nearest to the picture's, or all.

    Of equal ones the one with the best score is kept. No face gives no face.

    Args:
        faces: of one picture.
        choice: which.
        image_size: (height, width) of the picture in pixels.

    Raises:
        ValueError: another choice.
    """
    if choice not in get_args(FaceChoice):
        raise ValueError(f"choice: expected one of {', '.join(get_args(FaceChoice))}, got {choice!r}")
    if choice == "all" or not len(faces):
        return faces
    if choice == "largest":
        row = int((faces.boxes[:, 2:] - faces.boxes[:, :2]).sum(dim=1).argmax())
    else:
        height, width = image_size
        middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        row = int((middles - middles.new_tensor([width / 2, height / 2])).norm(dim=1).argmin())
    return faces[row : row + 1]
