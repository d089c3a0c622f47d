"""Antialiased resizing of square pictures and masks (`resize_aa`, training-genhead.md section 0)."""

import torch
from torch import Tensor
from torch.nn import functional


def resize_antialiased(picture: Tensor, size: int) -> Tensor:
    """Resize a picture to `size` pixels a side; one of that size is returned as it is.

    Args:
        picture: (B, C, H, W), floating; half types are resized in float32, which CPUs need, and rounded once.
        size: pixels per side of the result.

    Returns:
        (B, C, size, size) of the picture's type.
    """
    if picture.shape[-2:] == (size, size):
        return picture
    work = picture.to(torch.promote_types(picture.dtype, torch.float32))
    resized = functional.interpolate(work, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return resized.to(picture.dtype)
