"""OpenCV's bilinear resize of 8-bit pictures, to the bit, without OpenCV.

Weights have 11 bits, rows and columns are resized one after the other, and nothing is averaged when a picture shrinks,
except by exactly one half, where OpenCV takes means of 2 x 2 pixels. Source: preprocess-networks.md §1.4, §3.1.
"""

import torch
from torch import Tensor

_ONE = 1 << 11


def resize_opencv(image: Tensor, size: tuple[int, int], step: float | None = None) -> Tensor:
    """Resize a picture as `cv2.resize(..., interpolation=INTER_LINEAR)` does.

    Args:
        image: (C, H, W) uint8.
        size: (width, height) of the result in pixels.
        step: source pixels per pixel of the result, the same for both axes; None for W / width and H / height.

    Returns:
        (C, height, width) uint8.

    Raises:
        ValueError: another type or shape, or a size below 1 pixel.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image: expected uint8 (C, H, W), got {image.dtype} {tuple(image.shape)}")
    width, height = size
    if min(size) < 1:
        raise ValueError(f"size: expected at least 1 x 1 pixels, got {width} x {height}")
    old_height, old_width = image.shape[1:]
    if (old_width, old_height) == size:
        return image
    pixels = image.int()
    if step is None and (old_width, old_height) == (2 * width, 2 * height):
        return ((pixels.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).sum((2, 4)) + 2) >> 2).to(torch.uint8)
    low, share = _places(old_width, width, step or old_width / width, image.device)
    outside = (low < 0) | (low >= old_width - 1)
    low, high = low.clamp(0, old_width - 1), (low + 1).clamp(0, old_width - 1)
    weight_low, weight_high = _weights(share.masked_fill(outside, 0))
    rows = pixels[:, :, low] * weight_low + pixels[:, :, high] * weight_high
    low, share = _places(old_height, height, step or old_height / height, image.device)
    weight_low, weight_high = (weight[:, None] for weight in _weights(share))
    upper = (weight_low * (rows[:, low.clamp(0, old_height - 1)] >> 4)) >> 16
    lower = (weight_high * (rows[:, (low + 1).clamp(0, old_height - 1)] >> 4)) >> 16
    return ((upper + lower + 2) >> 2).clamp(0, 255).to(torch.uint8)


def _places(old: int, new: int, step: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the pixel at or before each place of the result, and the share of the one after it in float32."""
    places = ((torch.arange(new, dtype=torch.float64, device=device) + 0.5) * step - 0.5).float()
    low = places.floor()
    return low.long(), places - low


def _weights(share: Tensor) -> tuple[Tensor, Tensor]:
    return ((1 - share) * _ONE).round().int(), (share * _ONE).round().int()
