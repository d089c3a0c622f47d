"""Random views of faces for the landmark network: near and far, turned, on painted grounds, and views without a face.

Places are (x, y) as fractions of a picture or view, from its upper left corner.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.config.landmark_training import ViewConfig
from portrait4d.geometry.mirroring import LANDMARK_SWAPS

_CELLS = ((1, 1), (2, 2), (3, 1), (4, 4), (8, 8), (16, 2), (16, 16), (32, 32))
"""Rows and columns of the patterns that grounds are made of; few columns make layers, as of a landscape."""
_TILES = 4


class Faces(NamedTuple):
    """Pictures (B, 3, S, S) in [-1, 1] and where their points are, (B, 70, 2)."""

    images: Tensor
    points: Tensor


class Views(NamedTuple):
    """Views (B, 3, P, P) in [-1, 1], their points (B, 70, 2), and whether there is a face: (B,) 0 or 1."""

    images: Tensor
    points: Tensor
    presence: Tensor


def draw_views(faces: Faces, size: int, close: Tensor, config: ViewConfig, generator: torch.Generator) -> Views:
    """Draw a view of each face.

    Args:
        faces: pictures and points.
        size: P, pixels a side of the views.
        close: (B, 2, 3) what brings each face into the view of the second look, fractions to fractions.
        config: what is drawn.
        generator: on the device of the faces.
    """
    count = len(faces.images)
    near = _uniform(count, 0, 1, generator) < config.close
    transforms = torch.where(near[:, None, None], _shake(close, config, generator), _scatter(faces, config, generator))
    points = faces.points @ transforms[:, :, :2].mT + transforms[:, None, :, 2]
    grounds = draw_grounds(count, size, generator)
    images = _look(faces.images, transforms, size, grounds, _uniform(count, 0, 1, generator) < config.edge)
    return _take_faces_away(
        Views(images, points, torch.ones_like(near, dtype=images.dtype)), grounds, config, generator
    )


def mirror_faces(faces: Faces, generator: torch.Generator) -> Faces:
    """Mirror about half of the faces."""
    turned = faces.points[:, list(LANDMARK_SWAPS[70])] * faces.points.new_tensor([-1.0, 1.0])
    turned[..., 0] += 1
    chosen = _uniform(len(faces.images), 0, 1, generator) < 0.5
    return Faces(
        torch.where(chosen[:, None, None, None], faces.images.flip(-1), faces.images),
        torch.where(chosen[:, None, None], turned, faces.points),
    )


def draw_grounds(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw pictures (count, 3, size, size) in [-1, 1] without a face: colours, gradients, layers, blots, noise."""
    device = generator.device
    ground = _uniform((count, 1, 1, 1), -0.9, 0.9, generator) + 0.4 * _uniform((count, 3, 1, 1), -1, 1, generator)
    rows, columns = _CELLS[-1]
    grid = (rows + 1, columns + 1)
    for rows, columns in _CELLS:
        pattern = torch.randn(count, 3, rows + 1, columns + 1, generator=generator, device=device)
        grey = _uniform((count, 1, 1, 1), 0, 1, generator)
        pattern = torch.lerp(pattern, pattern.mean(dim=1, keepdim=True) * math.sqrt(3), grey)
        pattern = functional.interpolate(pattern, grid, mode="bilinear", align_corners=True)
        ground = ground + 0.7 * _uniform((count, 1, 1, 1), 0, 1, generator) ** 3 * pattern
    ground = functional.interpolate(ground, (size, size), mode="bilinear", align_corners=True)
    noise = torch.randn(count, 3, size, size, generator=generator, device=device)
    return (ground + _uniform((count, 1, 1, 1), 0, 1, generator) ** 6 * noise).clamp(-1, 1)


def _shake(close: Tensor, config: ViewConfig, generator: torch.Generator) -> Tensor:
    """Turn, scale and shift views of the second look a little: (B, 2, 3)."""
    count, close = len(close), close.float()
    turned = _similarity(
        torch.exp2(_uniform(count, -config.close_octaves, config.close_octaves, generator)),
        _uniform(count, -config.close_turn_deg, config.close_turn_deg, generator),
    )
    shift = config.close_shift * torch.randn(count, 2, 1, generator=generator, device=close.device)
    centred = torch.cat([close[..., :2], close[..., 2:] - 0.5], dim=2)
    moved = turned @ centred
    return torch.cat([moved[..., :2], moved[..., 2:] + 0.5 + shift], dim=2)


def _scatter(faces: Faces, config: ViewConfig, generator: torch.Generator) -> Tensor:
    """Turn and scale whole pictures, and put faces anywhere within the view: (B, 2, 3)."""
    count = len(faces.images)
    octaves = math.log2(config.smallest), math.log2(config.largest)
    turned = _similarity(
        torch.exp2(_uniform(count, *octaves, generator)),
        _uniform(count, -config.turn_deg, config.turn_deg, generator) * _uniform(count, 0, 1, generator),
    )
    points = faces.points @ turned.mT
    low, high = points.amin(dim=1), points.amax(dim=1)
    room = 1 - (high - low)
    corner = torch.where(room > 0, _uniform((count, 2), -0.03, 1.03, generator), 0.5) * room
    return torch.cat([turned, (corner - low)[..., None]], dim=2)


def _look(images: Tensor, transforms: Tensor, size: int, grounds: Tensor, goes_on: Tensor) -> Tensor:
    """Return views (B, 3, P, P) of pictures; beyond these their edge goes on, or the ground is seen."""
    skipping = transforms[:, :, 0].norm(dim=1) * size / images.shape[-1] < 0.6
    soft = functional.interpolate(functional.avg_pool2d(images[skipping], 2), images.shape[-2:], mode="bilinear")
    images = images.index_copy(0, skipping.nonzero()[:, 0], soft)  # no detail that sampling would alias
    inverse = torch.linalg.inv(transforms[:, :, :2])
    # grid_sample counts from -1 to 1 between the edges
    offset = -inverse @ transforms[:, :, 2:]
    theta = torch.cat([inverse, 2 * offset + inverse.sum(dim=2, keepdim=True) - 1], dim=2)
    grid = functional.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    views = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    outside = (grid.abs() > 1).any(dim=3)[:, None] & ~goes_on[:, None, None, None]
    return torch.where(outside, grounds, views)


def _take_faces_away(views: Views, grounds: Tensor, config: ViewConfig, generator: torch.Generator) -> Views:
    """Replace some views by a ground, by their own shuffled tiles, or blot the face out."""
    count, _, size, _ = views.images.shape
    cut, rest = size // _TILES, size - size // _TILES * _TILES
    tiles = views.images[..., : size - rest, : size - rest].unflatten(3, (_TILES, cut)).unflatten(2, (_TILES, cut))
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.rand(count, _TILES**2, generator=generator, device=tiles.device).argsort(dim=1)
    tiles = tiles.gather(1, order[:, :, None, None, None].expand_as(tiles)).unflatten(1, (_TILES, _TILES))
    shuffled = grounds.clone()
    shuffled[..., : size - rest, : size - rest] = tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    low, high = views.points.amin(dim=1)[:, :, None, None], views.points.amax(dim=1)[:, :, None, None]
    place = (torch.arange(size, device=tiles.device) + 0.5) / size
    x, y = place.expand(size, size), place[:, None].expand(size, size)
    blot = (((torch.stack([x, y]) - (low + high) / 2) / (high - low)).square().sum(dim=1, keepdim=True)) < 0.36
    kinds = torch.stack([grounds, shuffled, torch.where(blot, grounds.flip(0), views.images)])
    chosen = (_uniform(count, 0, 3, generator)).long()
    empty = _uniform(count, 0, 1, generator) < config.empty
    without = kinds[chosen, torch.arange(count, device=chosen.device)]
    return Views(torch.where(empty[:, None, None, None], without, views.images), views.points, (~empty).float())


def _similarity(scale: Tensor, turn_deg: Tensor) -> Tensor:
    """Return matrices (B, 2, 2) of scales (B,) and turns (B,)."""
    angle = torch.deg2rad(turn_deg)
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    return torch.stack([cosine, -sine, sine, cosine], dim=1).unflatten(1, (2, 2))


def _uniform(shape: int | tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)
