"""Masks that tell GenHead's rays where eyes and mouth are seen (networks-stylegan.md §5.3, step 1).

The head's mesh, drawn at picture size S, gives hard masks; rays see them resized. Kernel sizes are those of 512 pixels
and scale with S.
"""

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.ops.resize import resize_antialiased
from portrait4d.ops.upfirdn2d import blur2d
from portrait4d.rendering.mesh_maps import PartMasks

REFERENCE_SIZE = 512
EYE_BLUR, MOUTH_BLUR = 1.0, 2.0
OPENING_RADIUS = 3
"""Blur widths and half the opening's window, in pixels of a 512-pixel picture."""


@torch.no_grad()
def ray_masks(drawn: PartMasks, resolution: int, coarse_resolution: int) -> PartMasks:
    """Turn masks drawn at S pixels into those of a ray grid.

    A coarser grid has them resized with antialiasing. With a ray for every pixel they are blurred; the mouth's mask
    passes an opening first, and that at `coarse_resolution` is added.

    Args:
        drawn: hard masks (B, 1, S, S) of `render_part_masks`.
        resolution: rays per side R, at most S.
        coarse_resolution: rays per side of the usual grid.

    Returns:
        Masks (B, 1, R, R).

    Raises:
        ValueError: if there are more rays than pixels.
    """
    size = drawn.eye.shape[-1]
    if resolution > size:
        raise ValueError(f"resolution: expected at most {size} rays per side, got {resolution}")
    if resolution < size:
        return PartMasks(*(resize_antialiased(mask, resolution) for mask in drawn))
    scale = size / REFERENCE_SIZE
    eye = blur2d(drawn.eye, EYE_BLUR * scale)
    mouth = blur2d(open_mask(drawn.mouth, round(OPENING_RADIUS * scale)), MOUTH_BLUR * scale)
    coarse = resize_antialiased(resize_antialiased(drawn.mouth, coarse_resolution), size)
    return PartMasks(eye, (mouth + coarse).clamp_max(1), drawn.head)


def open_mask(mask: Tensor, radius: int) -> Tensor:
    """Remove parts of a mask (B, 1, H, W) narrower than 2 radius + 1 pixels: erosion, then dilation by that square."""
    window = {"kernel_size": 2 * radius + 1, "stride": 1, "padding": radius}
    eroded = -functional.max_pool2d(-mask, **window)
    return functional.max_pool2d(eroded, **window)
