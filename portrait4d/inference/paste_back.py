"""Rendered heads laid over something else: a colour, nothing at all, or the picture that they were cut from.

Layers are colours multiplied by their opacity, in [0, 1], so that laying over is one multiplication and one addition.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.geometry.face_alignment import warp_affine
from portrait4d.inference.tracking import CropPlace
from portrait4d.models.outputs import HeadRender
from portrait4d.ops.resize import resize_antialiased

_FADED_EDGE = 0.04
"""Share of the crop's side within which a pasted head fades out at the crop's edge."""
_GROWN = 0.03
"""Share of the side by which the old head's mask grows, since masks of hair are tight."""
_SHRUNK = 0.75


class Layer(NamedTuple):
    """A picture with opacity: `colours` (3, H, W) multiplied by `alpha` (1, H, W), both in [0, 1]."""

    colours: Tensor
    alpha: Tensor

    def over(self, behind: Tensor) -> Tensor:
        """Lay it over a picture (3, H, W) in [-1, 1], or a colour (3, 1, 1): (3, H, W) in [-1, 1]."""
        return 2 * (self.colours + (1 - self.alpha) * (behind + 1) / 2) - 1

    def with_opacity(self) -> Tensor:
        """Return (4, H, W) in [-1, 1]: colours no longer multiplied, and opacity."""
        return 2 * torch.cat([(self.colours / self.alpha.clamp_min(1e-3)).clamp(0, 1), self.alpha]) - 1


def paste(layer: Layer, picture: Tensor, place: CropPlace) -> Tensor:
    """Lay a layer of a crop over the picture that the crop was cut from.

    Args:
        layer: of S pixels a side.
        picture: (3, H, W) in [-1, 1].
        place: of a crop of S pixels a side.

    Returns:
        (3, H, W), a new picture; `picture` itself where the crop misses it.
    """
    size = layer.alpha.shape[-1]
    content = torch.cat([layer.colours, layer.alpha]) * _edge_fade(place, size)
    factor = float(np.sqrt(abs(np.linalg.det(place.crop_to_image[:, :2]))))
    if factor < _SHRUNK:  # the warp does not filter
        smaller = max(1, round(size * factor))
        content, place = resize_antialiased(content[None], smaller)[0], place.resized(size, smaller)
        size = smaller
    corners = np.array([[x, y, 1] for x in (-0.5, size - 0.5) for y in (-0.5, size - 0.5)]) @ place.crop_to_image.T
    limits = np.array(place.image_size)
    left, upper = np.clip(np.floor(corners.min(0)).astype(int), 0, limits)
    right, lower = np.clip(np.ceil(corners.max(0)).astype(int) + 1, 0, limits)
    if left >= right or upper >= lower:
        return picture
    transform = torch.from_numpy(place.crop_to_image).clone()
    transform[:, 2] -= torch.tensor([left, upper])
    warped = warp_affine(content[None], transform[None], (int(lower - upper), int(right - left)))[0]
    pasted = picture.clone()
    window = (slice(None), slice(upper, lower), slice(left, right))
    pasted[window] = Layer(warped[:3], warped[3:]).over(picture[window])
    return pasted


def head_layer(render: HeadRender) -> Layer:
    """Return a rendered head (batch size 1) without its background.

    What the picture shows of the background where the head is thin is taken away.
    """
    size = render.image_sr.shape[-1]
    alpha = _enlarge((render.mask + 1) / 2, size)
    behind = _enlarge((render.background_image + 1) / 2, size)
    colours = (render.image_sr.float() + 1) / 2 - (1 - alpha) * behind
    return Layer(torch.minimum(colours.clamp_min(0), alpha)[0].cpu(), alpha[0].cpu())


def pasted_layer(render: HeadRender, old_mask: Tensor | None = None) -> Layer:
    """Return what is pasted of a render: the head, and its background where `old_mask` had the head before.

    Args:
        render: batch size 1.
        old_mask: (1, S, S) in [0, 1], what must not be seen any more; None: the head alone.
    """
    layer = head_layer(render)
    if old_mask is None:
        return layer
    alpha = torch.maximum(layer.alpha, old_mask)
    return Layer((render.image_sr[0].float().cpu().clamp(-1, 1) + 1) / 2 * alpha, alpha)


def old_head_mask(render: HeadRender) -> Tensor:
    """Return where a render's head is, grown and with a soft edge: (1, S, S) in [0, 1]."""
    mask = _enlarge((render.mask + 1) / 2, render.image_sr.shape[-1]).cpu()
    reach = 2 * round(_GROWN * mask.shape[-1]) + 1
    grown = functional.max_pool2d(mask, reach, stride=1, padding=reach // 2)
    return functional.avg_pool2d(grown, reach, stride=1, padding=reach // 2, count_include_pad=False)[0]


def _enlarge(images: Tensor, size: int) -> Tensor:
    return functional.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False).clamp(0, 1)


def _edge_fade(place: CropPlace, size: int) -> Tensor:
    """Return (1, S, S): 0 at those edges of a crop that lie within its picture, 1 further inside."""
    middle = (torch.arange(size) + 0.5) / size
    corners = np.array([[-0.5, -0.5, 1], [size - 0.5, size - 0.5, 1]]) @ place.crop_to_image.T
    ramps = []
    for first, last, length in zip(*corners, place.image_size, strict=True):
        from_edges = torch.full((size,), 1.0)
        if first > 0:
            from_edges = torch.minimum(from_edges, middle)
        if last < length - 1:
            from_edges = torch.minimum(from_edges, 1 - middle)
        ramps.append((from_edges / _FADED_EDGE).clamp(0, 1))
    return torch.minimum(ramps[1][:, None], ramps[0])[None]
