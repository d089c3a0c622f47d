"""Light for pictures of open heads: key with shadow, fill, rim, sky and ground; soft skin, gloss, hair, tone mapping.

Vectors are (N, 3) in world axes, colours linear RGB (N, 3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from portrait4d.ops.rasterize import rasterize_orthographic
from portrait4d.synthetic_heads.appearance import Light


@dataclass(frozen=True)
class Lamps:
    """A person's light as tensors: `directions` (3, 3) and `colours` (3, 3) of key, fill, rim; `sky`, `ground` (3,)."""

    directions: Tensor
    colours: Tensor
    sky: Tensor
    ground: Tensor

    @classmethod
    def of(cls, light: Light, device: torch.device) -> "Lamps":
        """Move a light to a device."""
        directions = torch.tensor([light.key, light.fill, light.rim], device=device)
        colours = torch.tensor([light.key_colour, light.fill_colour, light.rim_colour], device=device)
        return cls(
            directions, colours, torch.tensor(light.sky, device=device), torch.tensor(light.ground, device=device)
        )


@dataclass(frozen=True)
class Shadow:
    """A depth map (S, S) seen from the key light: `frame` (3, 3) rows right, up, towards the light."""

    depth: Tensor
    frame: Tensor
    centre: Tensor
    scale: float
    far: float

    def visibility(self, points: Tensor, bias: Tensor | float) -> Tensor:
        """Return how much of the key light (N,) in [0, 1] reaches points (N, 3), softened over 3 x 3 texels."""
        size = len(self.depth)
        local = (points - self.centre) @ self.frame.T
        column = ((local[:, 0] * self.scale + 1) * size - 1) / 2
        row = ((local[:, 1] * self.scale + 1) * size - 1) / 2
        mine = self.far - local[:, 2]
        total = torch.zeros_like(mine)
        number = torch.arange(len(mine), device=mine.device)
        row = row + (number * 0.7548776662466927 % 1 - 0.5) * 1.7  # spread what nine taps would show as bands
        column = column + (number * 0.5698402909980532 % 1 - 0.5) * 1.7
        for dy in (-1.8, 0.0, 1.8):
            for dx in (-1.8, 0.0, 1.8):
                i = (row + dy).round().long().clamp(0, size - 1)
                j = (column + dx).round().long().clamp(0, size - 1)
                nearest = self.depth[i, j]
                gap = mine - nearest - bias
                total += torch.where(nearest > 0, (1 - gap / 0.012).clamp(0, 1), torch.ones_like(gap))
        return total / 9


def cast_shadow(vertices: Tensor, faces: Tensor, lamps: Lamps, size: int) -> Shadow:
    """Render the depth map of triangles (T, 3) of vertices (N, 3) from the key light."""
    toward = normalize(lamps.directions[0], dim=0)
    right = normalize(torch.linalg.cross(toward.new_tensor([0.0, 1.0, 0.0]), toward), dim=0)
    frame = torch.stack([right, torch.linalg.cross(toward, right), toward])
    centre = vertices.new_tensor([0.0, 0.0, 0.0])
    local = (vertices - centre) @ frame.T
    scale, far = 1 / 0.62, 3.0
    points = torch.stack([local[:, 0], local[:, 1], far - local[:, 2]], dim=1)
    depth = rasterize_orthographic(points[None], faces, size, scale, cull_backfaces=False).depth[0]
    return Shadow(depth, frame, centre, scale, far)


@dataclass(frozen=True)
class Surface:
    """What light meets: unit `normal` and `view` (N, 3), `ambient` and `shadow` (N,) in [0, 1]."""

    normal: Tensor
    view: Tensor
    ambient: Tensor
    shadow: Tensor


def _key_and_others(lamps: Lamps, surface: Surface) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return direction, colour and visibility of each lamp."""
    open_air = 0.35 + 0.65 * surface.ambient
    visible = (surface.shadow, open_air, open_air)
    return list(zip(lamps.directions, lamps.colours, visible, strict=True))


def diffuse_light(lamps: Lamps, surface: Surface, wrap: tuple[float, float, float]) -> Tensor:
    """Return the light (N, 3) that a soft surface scatters; `wrap` lets each channel reach round the edge."""
    soft = surface.normal.new_tensor(wrap)
    total = torch.zeros_like(surface.normal)
    for direction, colour, visible in _key_and_others(lamps, surface):
        cosine = (surface.normal @ direction)[:, None]
        lit = ((cosine + soft) / (1 + soft)).clamp_min(0)
        shade = visible[:, None] ** (1 - 0.7 * soft)
        total = total + colour * lit * shade
    up = (0.5 + 0.5 * surface.normal[:, 1:2]).clamp(0, 1)
    tint = surface.ambient[:, None].clamp(1e-3, 1) ** surface.normal.new_tensor([0.85, 1.12, 1.22])
    return total * (0.45 + 0.55 * tint) + (lamps.ground + up * (lamps.sky - lamps.ground)) * tint


def gloss_light(lamps: Lamps, surface: Surface, exponent: float, facing: float = 0.028) -> Tensor:
    """Return the mirrored light (N, 3): Blinn's lobe of an exponent, scaled by Schlick's term."""
    total = torch.zeros_like(surface.normal)
    fresnel = facing + (1 - facing) * (1 - (surface.normal * surface.view).sum(1).clamp(0, 1)) ** 5
    for direction, colour, visible in _key_and_others(lamps, surface):
        half = normalize(surface.view + direction, dim=1)
        lobe = (surface.normal * half).sum(1).clamp_min(0) ** exponent * (exponent + 8) / 25
        lit = ((surface.normal @ direction).clamp(0, 0.25) * 4) * visible
        total = total + colour * (lobe * lit * fresnel.clamp(0, 0.5))[:, None]
    return total * surface.ambient[:, None]


def hair_light(lamps: Lamps, surface: Surface, tangent: Tensor, colour: Tensor, shine: Tensor) -> Tensor:
    """Return light (N, 3) from hair: diffuse by the normal, two lobes along the strand (Kajiya and Kay, 1989)."""
    total = torch.zeros_like(surface.normal)
    for direction, lamp, visible in _key_and_others(lamps, surface):
        cosine = surface.normal @ direction
        lit = ((cosine + 0.35) / 1.35).clamp_min(0) * visible
        along = (tangent @ direction).clamp(-1, 1)
        across = (1 - along**2).sqrt()
        base = colour * (lit * (0.35 + 0.65 * across))[:, None]
        half = normalize(surface.view + direction, dim=1)
        slide = normalize(tangent + 0.10 * surface.normal, dim=1)
        sheen = (1 - (slide * half).sum(1) ** 2).clamp_min(0).sqrt()
        slide2 = normalize(tangent - 0.16 * surface.normal, dim=1)
        sheen2 = (1 - (slide2 * half).sum(1) ** 2).clamp_min(0).sqrt()
        gate = ((cosine + 0.2) / 1.2).clamp(0, 1) * visible * shine
        bright = 0.075 * sheen**70 * gate
        warm = 0.55 * sheen2**16 * gate
        total = total + lamp * (base + bright[:, None] + colour * warm[:, None])
    up = (0.5 + 0.5 * surface.normal[:, 1:2]).clamp(0, 1)
    return total + colour * (lamps.ground + up * (lamps.sky - lamps.ground)) * surface.ambient[:, None]


def tone_map(colour: Tensor) -> Tensor:
    """Take linear RGB to sRGB-like values in [0, 1]: x / (1 + 0.18 x), gamma 2.2."""
    colour = colour.clamp_min(0)
    return (colour / (1 + 0.18 * colour)).clamp(0, 1) ** (1 / 2.2)
