"""Paint hair, brows, lashes, beards, clothes and glasses of an open head per pixel."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from portrait4d.synthetic_heads.appearance import Appearance
from portrait4d.synthetic_heads.figure import Material, PosedFigure
from portrait4d.synthetic_heads.lighting import Lamps, Surface, diffuse_light, gloss_light, hair_light
from portrait4d.synthetic_heads.noise import smooth_noise
from portrait4d.synthetic_heads.paint import Pixels, skin_albedo, skin_light


def _smooth(x: Tensor, low: float, high: float) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def paint_scalp_hair(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of scalp hair: fine strands across each ribbon, darker inner layers and roots."""
    place, side, random, layer, length, _ = px.aux.unbind(1)
    fine = smooth_noise(torch.stack([side * 2.6 + 31 * random, random * 97, place * 1.5], 1))[:, 0]
    colour = px.paint.new_tensor(person.hair_colour)
    tone = (1 + 0.20 * fine + 0.30 * (random - 0.5)) * (0.62 + 0.38 * _smooth(place * length, 0, 16))
    tips = 1 + 0.25 * place
    colour = colour * (tone * tips).clamp_min(0.1)[:, None]
    ambient = (0.30 + 0.70 * layer**1.2) * (0.55 + 0.45 * _smooth(place * length, 0, 12)) * (1 - 0.25 * side.abs() ** 3)
    tangent = normalize(px.paint, dim=1)
    across = normalize(torch.linalg.cross(px.normal, tangent), dim=1)
    normal = normalize(px.normal + across * (0.45 * side + 0.25 * fine)[:, None], dim=1)
    facing = (normal * px.view).sum(1, keepdim=True)
    normal = normalize(normal + px.view * (-facing).clamp_min(0), dim=1)
    shadow = px.shadow * (0.45 + 0.55 * layer)
    curly = person.hair is not None and person.hair.curl > 3
    shine = (0.35 if curly else 1.0) * (1 + 0.35 * fine).clamp_min(0)
    return hair_light(lamps, Surface(normal, px.view, ambient, shadow), tangent, colour, shine)


def paint_brows(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of brow hair."""
    return _short_hair(px, px.paint.new_tensor(person.face.brow), lamps, 0.12)


def paint_lashes(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of lashes, nearly black."""
    dark = 0.35 * px.paint.new_tensor(person.face.brow) * (1 - 0.8 * person.face.make_up_amount)
    return _short_hair(px, dark + 0.006, lamps, 0.1)


def paint_beard(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of beard hair, a little redder than the hair."""
    colour = px.paint.new_tensor(person.hair_colour) * px.paint.new_tensor([0.95, 0.82, 0.75])
    return _short_hair(px, colour, lamps, 0.5)


def _short_hair(px: Pixels, colour: Tensor, lamps: Lamps, shine: float) -> Tensor:
    place, side, random, layer, _, _ = px.aux.unbind(1)
    colour = colour * (0.75 + 0.5 * random)[:, None]
    ambient = (0.45 + 0.55 * layer) * (0.6 + 0.4 * place)
    surface = Surface(px.normal, px.view, ambient, 0.3 + 0.7 * px.shadow)
    return hair_light(lamps, surface, normalize(px.paint, dim=1), colour, torch.full_like(place, shine))


def cloth_share(paint: Tensor, person: Appearance) -> Tensor:
    """Return where the torso is covered by cloth (N,), 1 or 0 with a soft edge, at rest positions (N, 3) in mm."""
    azimuth, distance = _neck_coordinates(paint)
    front = azimuth.cos().clamp_min(0)
    edge = {
        "v": 66 + 70 * front**6,
        "scoop": 76 + 40 * front**2,
        "high": 56 + 0 * front,
        "crew": 64 + 8 * front,
    }[person.neckline]
    return _smooth(distance - edge, -0.6, 0.6)


def _neck_coordinates(paint: Tensor) -> tuple[Tensor, Tensor]:
    z = paint[:, 2] + 24 + 0.09 * (-80 - paint[:, 1])
    return torch.atan2(paint[:, 0], z), torch.hypot(paint[:, 0], z)


def paint_torso(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of neck, shoulders and cloth with folds and weave."""
    p = px.paint
    share = cloth_share(p, person)
    folds = smooth_noise(torch.stack([p[:, 0] / 26, p[:, 1] / 60, p[:, 2] / 40], 1) + person.face.skin_seed)[:, 1:]
    weave = smooth_noise(p * torch.tensor([1.0, 0.55, 1.0], device=p.device))
    normal = normalize(px.normal - (0.35 * folds + 0.06 * weave[:, 1:]) * share[:, None], dim=1)
    surface = Surface(normal, px.view, px.aux[:, 4].clamp(0.02, 1), px.shadow)
    cloth = p.new_tensor(person.cloth) * (1 + 0.08 * weave[:, 0])[:, None]
    skin = skin_albedo(p, px, person) * skin_light(lamps, surface) + 0.8 * gloss_light(lamps, surface, 20.0)
    cloth = cloth * diffuse_light(lamps, surface, (0.15, 0.13, 0.12))
    return skin + share[:, None] * (cloth - skin)


def paint_collar(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of the hem."""
    azimuth, _ = _neck_coordinates(px.paint)
    rib = 0.9 + 0.1 * torch.cos(azimuth * 110)
    surface = Surface(px.normal, px.view, torch.full_like(azimuth, 0.8), px.shadow)
    return px.paint.new_tensor(person.cloth) * 0.88 * rib[:, None] * diffuse_light(lamps, surface, (0.15, 0.12, 0.1))


def paint_glasses(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of a glossy frame."""
    frame = px.paint.new_tensor([(0.012, 0.011, 0.012), (0.10, 0.045, 0.02), (0.30, 0.24, 0.16)][person.seed % 3])
    surface = Surface(px.normal, px.view, torch.full_like(px.shadow, 0.9), px.shadow)
    return frame * diffuse_light(lamps, surface, (0.0, 0.0, 0.0)) + 2.2 * gloss_light(lamps, surface, 50.0, 0.05)


HAIR_PAINTERS = {
    Material.HAIR: paint_scalp_hair,
    Material.BROW: paint_brows,
    Material.LASH: paint_lashes,
    Material.BEARD: paint_beard,
    Material.TORSO: paint_torso,
    Material.COLLAR: paint_collar,
    Material.GLASSES: paint_glasses,
}
"""Painters of this module by material."""
