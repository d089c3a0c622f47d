"""Paint skin, eyes, mouth, hair and clothes of an open head per pixel, in coordinates of the neutral head (mm).

Paint never swims, because it depends only on where on the neutral head a pixel lies.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from portrait4d.synthetic_heads.appearance import Appearance
from portrait4d.synthetic_heads.figure import PosedFigure
from portrait4d.synthetic_heads.hair_roots import beard_density, hairline_depth
from portrait4d.synthetic_heads.lighting import Lamps, Surface, diffuse_light, gloss_light
from portrait4d.synthetic_heads.noise import fractal_noise, smooth_noise
from portrait4d.synthetic_heads.skin_mesh import UNIT


@dataclass(frozen=True)
class Pixels:
    """N pixels of one material: paint (N, 3), normal (N, 3), view (N, 3), aux (N, 6), shadow (N,), see `figure`."""

    paint: Tensor
    normal: Tensor
    view: Tensor
    aux: Tensor
    shadow: Tensor


def _step(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _spot(p: Tensor, centre: tuple[float, float, float], sigma: tuple[float, float, float]) -> Tensor:
    q = torch.stack([p[:, 0].abs(), p[:, 1], p[:, 2]], 1)
    return torch.exp(-(((q - q.new_tensor(centre)) / q.new_tensor(sigma)) ** 2).sum(1))


def _mix(colour: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return colour + share[:, None] * (other - colour)


def paint_skin(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of head skin: tone, blush, freckles, lips, lash line, scalp, stubble, pores."""
    p = px.paint
    lip, lid, sine, ear, ambient, _ = px.aux.unbind(1)
    ambient = ambient.clamp(0.02, 1)
    albedo = skin_albedo(p, px, person)
    albedo, lipness = _paint_lips(albedo, p, lip, sine, person)
    albedo = _paint_lids(albedo, lid, sine, person)
    inside = _step(-lip, 0.2, 2.2)
    albedo = _mix(albedo, albedo.new_tensor([0.26, 0.055, 0.05]), inside)
    ambient = ambient * (1 - 0.55 * inside) * (1 - 0.75 * _step(-lip, 1.2, 3.0))
    nostril = _spot(p, (6.4, -46.5, 98.2), (3.4, 2.5, 5.0))
    albedo = albedo * (1 - 0.85 * nostril[:, None])
    scalp = _scalp_share(p, ear, person)
    hair = albedo.new_tensor(person.hair_colour)
    albedo = _mix(albedo, hair * 0.6 + 0.06 * albedo, scalp)
    normal = _bumpy(px.normal, p, person, 1 - inside)
    normal = _wrinkled(normal, p, person, posed)
    surface = Surface(normal, px.view, ambient, px.shadow)
    soft = Surface(normalize(normal + 0.8 * px.normal, dim=1), px.view, ambient, px.shadow)
    light = albedo * skin_light(lamps, soft)
    oily = 1 + 0.9 * _spot(p, (0, -30, 108), (14, 16, 20)) + 0.5 * _spot(p, (0, 50, 80), (40, 25, 40))
    oily = oily * (1 - 0.75 * scalp) * (1 - 0.5 * ear)
    gloss = 0.9 * gloss_light(lamps, surface, 20.0) + 0.25 * gloss_light(lamps, surface, 60.0)
    light = light + gloss * (oily * (1 - lipness))[:, None]
    wet = gloss_light(lamps, surface, 42.0, 0.045) * (lipness * (0.7 + 0.9 * person.face.make_up_amount))[:, None]
    eye_line = _step(-lid, -0.9, 0.4)
    return light + wet + 0.7 * eye_line[:, None] * gloss_light(lamps, surface, 80.0, 0.05)


def skin_light(lamps: Lamps, surface: Surface) -> Tensor:
    """Return the diffuse light (N, 3) of skin; blood shows in cast shadows."""
    warm = 1 + (1 - surface.shadow)[:, None] * surface.normal.new_tensor([0.16, -0.03, -0.12])
    return warm * diffuse_light(lamps, surface, (0.32, 0.14, 0.09))


def skin_albedo(p: Tensor, px: Pixels, person: Appearance) -> Tensor:
    """Return the colour (N, 3) of bare skin at rest positions (N, 3) in mm."""
    face = person.face
    shift = face.skin_seed
    skin = p.new_tensor(face.skin)
    mottle = fractal_noise(p / 17 + shift, 3)
    fine = smooth_noise(p * 0.85 + shift)[:, 0]
    albedo = skin * (1 + 0.055 * mottle + 0.028 * fine)[:, None]
    red = 0.85 * _spot(p, (40, -34, 62), (19, 16, 26)) + 0.7 * _spot(p, (0, -36, 108), (11, 10, 15))
    red = red + 0.4 * _spot(p, (0, -98, 88), (16, 12, 20)) + 0.55 * px.aux[:, 3]
    red = red + 0.35 * _spot(p, (30, 4, 76), (22, 13, 16))
    red = (red * (0.8 + 0.3 * mottle)).clamp(0, 1.2) * face.blush_amount
    albedo = albedo * (1 - red[:, None] * p.new_tensor([0.02, 0.24, 0.25]))
    yellow = _spot(p, (0, 55, 80), (45, 26, 40))
    albedo = albedo * (1 + 0.05 * yellow[:, None] * p.new_tensor([1.0, 0.8, -0.3]))
    under = _spot(p, (27, -13, 78), (13, 6.5, 14)) * face.under_eye_amount
    albedo = albedo * (1 - under[:, None] * p.new_tensor([0.26, 0.32, 0.24]))
    if face.freckle_amount > 0:
        dots = _step(smooth_noise(p * 0.55 + 3 * shift)[:, 0], 1.05, 1.6)
        zone = (_spot(p, (22, -24, 86), (30, 20, 34)) + 0.4 * _spot(p, (0, 45, 80), (50, 24, 50))).clamp(0, 1)
        albedo = albedo * (1 - (face.freckle_amount * dots * zone)[:, None] * p.new_tensor([0.28, 0.42, 0.50]))
    for number in range(3):
        x, y = 46 * math.sin(12.99 * shift + 78.2 * number), -34 + 52 * math.sin(3.71 * shift + 5.13 * number)
        mole = _step(-((p[:, 0] - x) ** 2 + (p[:, 1] - y) ** 2), -1.3, -0.5) * (p[:, 2] > 30) * (px.aux[:, 0] > 9)
        albedo = albedo * (1 - 0.55 * mole[:, None])
    if face.stubble_amount > 0 or person.beard:
        albedo = _stubble(albedo, p, person)
    if face.make_up_amount > 0:
        shadow = _spot(p, (31, 9, 77), (17, 6, 12)) * face.make_up_amount
        albedo = albedo * (1 - 0.45 * shadow[:, None] * p.new_tensor([0.7, 1.0, 0.85]))
    return albedo


def _stubble(albedo: Tensor, p: Tensor, person: Appearance) -> Tensor:
    x, y, z = p[:, 0].abs(), p[:, 1], p[:, 2]
    top = -50 - 6 * _step(x, 12, 28) + 6 * _step(x, 30, 48) + 32 * _step(x, 48, 66)
    zone = _step(top - y, -4, 8) * _step(z, -10, 14) * _step(y + 0 * x, -140, -116)
    zone = zone * (1 - torch.exp(-((x / 4.5) ** 2) - ((y + 50) / 4) ** 2))
    if person.beard:
        under = torch.from_numpy(beard_density(p.cpu().double().numpy(), person.beard)).to(p)
        zone = torch.maximum(zone * person.face.stubble_amount, 1.9 * under)
    grain = smooth_noise(p * 1.5 + 11)[:, 0]
    amount = 1.0 if person.beard else person.face.stubble_amount
    share = (zone * amount * (0.42 + 0.22 * grain)).clamp(0, 0.88)
    dark = albedo.new_tensor(person.hair_colour) * 0.5 + 0.22 * albedo * albedo.new_tensor([0.85, 0.95, 1.1])
    return _mix(albedo, dark, share)


def _paint_lips(albedo: Tensor, p: Tensor, lip: Tensor, sine: Tensor, person: Appearance) -> tuple[Tensor, Tensor]:
    u = (p[:, 0].abs() / 25.5).clamp(0, 1)
    border = 7.6 * (1 - u**4.0)
    lipness = (1 - _step(lip, border - 0.7, border + 0.6)) * _step(lip, -1.4, 0.0)
    wrinkle = smooth_noise(p * p.new_tensor([1.25, 0.16, 0.3]) + person.face.skin_seed)[:, 0]
    colour = p.new_tensor(person.face.lips) * (1 + 0.07 * wrinkle - 0.12 * (sine > 0) + 0.03 * lip.clamp(0, 8))[:, None]
    rim = torch.exp(-(((lip - border - 0.8) / 1.0) ** 2)) * (sine > 0) * (u < 0.8)
    albedo = albedo * (1 + 0.10 * rim[:, None])
    line = torch.exp(-((lip / 0.85) ** 2))
    albedo = _mix(albedo, colour, lipness)
    corner = torch.exp(-(((p[:, 0].abs() - 25) / 2.6) ** 2) - ((p[:, 1] + 67.5) / 1.8) ** 2)
    return albedo * (1 - 0.55 * torch.maximum(line * _step(lip, -1.5, 0), 0.8 * corner * (lip < 19)))[:, None], lipness


def _paint_lids(albedo: Tensor, lid: Tensor, sine: Tensor, person: Appearance) -> Tensor:
    edge = 1 - _step(lid, 0.5, 2.0)
    upper = _step(sine, -0.05, 0.25)
    liner = 0.3 + 0.5 * person.face.make_up_amount + (0.25 if person.feminine else 0.0)
    dark = edge * (upper * min(liner, 0.9) + (1 - upper) * 0.18) * _step(lid, -0.6, 0.15)
    crease = torch.exp(-(((lid - 4.3) / 0.9) ** 2)) * upper * sine.abs() ** 0.5
    albedo = albedo * (1 - (dark * 0.9)[:, None] * albedo.new_tensor([0.9, 1.0, 1.0]))
    albedo = albedo * (1 - 0.26 * crease[:, None] * albedo.new_tensor([0.8, 1.0, 1.0]))
    pink = _step(-lid, 0.0, 0.7)
    return _mix(
        albedo, albedo.new_tensor([0.55, 0.24, 0.20]) * (0.35 + 0.9 * albedo.new_tensor(person.face.skin)), pink
    )


def _scalp_share(p: Tensor, ear: Tensor, person: Appearance) -> Tensor:
    """Return how much hair colour the scalp shows under the strands, or as a buzz cut."""
    if person.hair_name == "bald":
        return 0.0 * ear
    recession = person.hair.recession if person.hair is not None else 0.0
    depth = hairline_depth_tensor(p, recession)
    grain = smooth_noise(p * 1.1)[:, 0]
    ragged = smooth_noise(p * 0.22 + 3)[:, 0]
    share = _step(depth + 2.5 * ragged + 1.5 * grain, -2.0, 6.0) * (1 - ear)
    strength = 0.72 + 0.14 * grain if person.hair_name == "buzz" else 0.98
    return (share * strength).clamp(0, 0.98)


def hairline_depth_tensor(p: Tensor, recession: float) -> Tensor:
    """Return `hair_roots.hairline_depth` of points (N, 3) as a tensor."""
    return torch.from_numpy(hairline_depth(p.detach().cpu().double().numpy(), recession)).to(p)


def _bumpy(normal: Tensor, p: Tensor, person: Appearance, amount: Tensor) -> Tensor:
    strength = 0.028 + 0.05 * person.face.age
    pores = smooth_noise(p * 1.05 + 1)[:, 1:] * 0.7 + smooth_noise(p * 2.1 + 4)[:, 1:] * 0.6
    coarse = smooth_noise(p * 0.13 + 9)[:, 1:] * (0.035 + 0.10 * person.face.age)
    bump = (strength * pores + coarse) * amount[:, None]
    bump = bump - (bump * normal).sum(1, keepdim=True) * normal
    return normalize(normal - bump, dim=1)


def _wrinkled(normal: Tensor, p: Tensor, person: Appearance, posed: PosedFigure) -> Tensor:
    """Bend normals where the brows fold the forehead and smiling folds the eyes' outer corners."""
    depth = 0.35 + 0.65 * person.face.age
    wave = p[:, 1] + 1.5 * smooth_noise(p / 15 + person.face.skin_seed)[:, 0]
    forehead = _spot(p, (0, 46, 84), (42, 17, 40)) * min(max(posed.brow_raise / 5, 0.06), 1.2) * depth
    lines = -0.30 * forehead * torch.cos(wave * (2 * math.pi / 8.5))
    frown = _spot(p, (6, 22, 90), (7, 11, 20)) * min(max(-posed.brow_raise / 3, 0.0), 1.2) * depth
    furrow = 0.30 * frown * torch.sin((p[:, 0].abs() - 5.5) * (2 * math.pi / 8)) * p[:, 0].sign()
    feet = _spot(p, (54, -3, 58), (8, 9, 16)) * min(max(posed.smile / 6, 0.0), 1.2) * (0.25 + 0.75 * person.face.age)
    crow = 0.25 * feet * torch.cos((p[:, 1] + 0.25 * (p[:, 0].abs() - 50)) * (2 * math.pi / 4.6))
    return normalize(normal + torch.stack([furrow, lines + crow, 0 * lines], dim=1), dim=1)


def paint_eyes(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of eyeballs: veined sclera, iris with fibres, pupil, lid shadow, catchlights."""
    local = normalize(px.paint, dim=1)
    radius = 12.0 * (1 - local[:, 2] ** 2).clamp_min(0).sqrt()
    radius = torch.where(local[:, 2] > 0, radius, torch.full_like(radius, 12.0))
    angle = torch.atan2(local[:, 1], local[:, 0])
    sclera = local.new_tensor([0.54, 0.50, 0.475]) * (1 - 0.2 * _step(local[:, 0].abs(), 0.3, 0.9))[:, None]
    veins = _step(smooth_noise(local * 14)[:, 0].abs(), 0.0, 0.25) * _step(radius, 6, 10)
    sclera = sclera * (1 - (0.10 * (1 - veins) * _step(radius, 6.5, 10))[:, None] * local.new_tensor([0.1, 1, 1]))
    ring = torch.stack([angle.cos() * 4.5, angle.sin() * 4.5, radius * 0.16], dim=1)
    fibres = fractal_noise(ring * 1.6 + person.face.skin_seed, 3)
    iris = local.new_tensor(person.face.iris) * 1.25 * (1 + 0.28 * fibres)[:, None]
    warm = torch.exp(-(((radius - 3.0) / 0.8) ** 2))
    iris = iris * (1 + 0.35 * warm[:, None] * local.new_tensor([1.2, 0.5, -0.2]))
    lit_side = 0.75 + 0.5 * _step(-(local[:, :2] @ lamps.directions[0, :2]), -0.2, 0.3)
    iris = iris * (lit_side * (1 - 0.72 * _step(radius, 4.7, 6.1)))[:, None]
    colour = _mix(iris, sclera, _step(radius, 5.85, 6.5))
    colour = _mix(colour, colour.new_tensor([0.004, 0.004, 0.004]), 1 - _step(radius, 2.15, 2.6))
    shade = _lid_shade(px, posed)
    flat = normalize(px.normal + 0.35 * px.view, dim=1)
    surface = Surface(flat, px.view, 0.55 + 0.45 * shade, 0.35 + 0.65 * px.shadow)
    light = colour * diffuse_light(lamps, surface, (0.3, 0.3, 0.3)) * (0.22 + 0.78 * shade)[:, None]
    mirror = 2 * (px.normal * px.view).sum(1, keepdim=True) * px.normal - px.view
    spark = _step((mirror * normalize(lamps.directions[0] + 0.3 * px.view, dim=1)).sum(1), 0.958, 0.976)
    second = _step((mirror * normalize(lamps.directions[1] + 0.4 * px.view, dim=1)).sum(1), 0.97, 0.99)
    sky = _step(mirror[:, 1], 0.1, 0.8) * 0.04
    glint = 1.3 * spark * _step(-radius, -7.2, -5.6) + 0.15 * second * _step(-radius, -6, -4)
    glint = glint * shade**1.5 * (0.3 + 0.7 * px.shadow) + sky * shade
    return light + glint[:, None] * (0.6 + 0.25 * lamps.colours[0])


def _lid_shade(px: Pixels, posed: PosedFigure) -> Tensor:
    """Return the light (N,) that the upper lid's shadow leaves, from the distance to the posed lid margin."""
    point = px.aux[:, :3]
    shade = torch.ones_like(point[:, 0])
    for number in range(2):
        mine = (px.aux[:, 3] - number).abs() < 0.5
        if not bool(mine.any()):
            continue
        q = point[mine]
        gap = torch.cdist(q, posed.upper_lids[number]).amin(1) / UNIT
        margin = posed.upper_lids[number]
        side = (q[:, 0] - margin[:, 0].amin()) / (margin[:, 0].amax() - margin[:, 0].amin())
        corner = (4 * side * (1 - side)).clamp(0, 1)
        value = (1 - 0.72 * torch.exp(-((gap - 0.6).clamp_min(0) / 1.9))) * (0.55 + 0.45 * corner**0.5)
        shade[mine] = value
    return shade


def paint_teeth(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of teeth: ivory, darker towards gums, gaps and the back of the mouth."""
    p = px.paint
    upper = p[:, 1] > -70.5
    pitch = torch.where(upper, torch.full_like(p[:, 0], 7.6), torch.full_like(p[:, 0], 6.0))
    along = 24.0 * torch.asin((p[:, 0] / 22.2).clamp(-1, 1)) / pitch
    phase = torch.where(upper, along, along + 0.5)
    gap = torch.exp(-(((phase - phase.round()) / 0.055) ** 2))
    gum = torch.where(upper, _step(p[:, 1], -63.5, -61.8), _step(-p[:, 1], 76.8, 78.2))
    ivory = p.new_tensor([0.72, 0.66, 0.56]) * (1.02 - 0.14 * person.face.age)
    colour = ivory * (1 - 0.5 * gap * upper - 0.35 * gap * upper.logical_not())[:, None]
    colour = _mix(colour, p.new_tensor([0.42, 0.13, 0.12]), gum)
    deep = _step(p[:, 2], 54, 84)
    light_in = (0.25 + 0.65 * deep) * min(1.0, 0.7 + posed.mouth_open / 20)
    surface = Surface(px.normal, px.view, light_in, 0.3 + 0.7 * px.shadow)
    return colour * diffuse_light(lamps, surface, (0.3, 0.3, 0.3)) * light_in[:, None] * 1.25 + 0.6 * (
        gloss_light(lamps, surface, 40.0, 0.05)
    )


def paint_tongue(px: Pixels, person: Appearance, lamps: Lamps, posed: PosedFigure) -> Tensor:
    """Return the light (N, 3) of the tongue."""
    grain = smooth_noise(px.paint * 0.9)[:, 0]
    colour = px.paint.new_tensor([0.44, 0.13, 0.125]) * (1 + 0.08 * grain)[:, None]
    deep = (0.12 + 0.6 * _step(px.paint[:, 2], 48, 84)) * min(1.0, 0.4 + posed.mouth_open / 22)
    surface = Surface(px.normal, px.view, deep, 0.3 + 0.7 * px.shadow)
    return colour * diffuse_light(lamps, surface, (0.3, 0.2, 0.2)) * deep[:, None] ** 0.5 + gloss_light(
        lamps, surface, 30.0, 0.04
    )
