"""Lay the rings of the open head's template that must move sharply: lids, lips, ears, neck (millimetres).

Each builder returns rings of points, outermost last, and the closed inside of the opening. A ring runs
counter-clockwise seen from outside. Rings of the right side are mirror images of the left ones.
"""

from dataclasses import dataclass

import numpy as np

from portrait4d.synthetic_heads.head_sculpt import (
    EYE_CENTRE,
    EYE_RADIUS,
    NECK_ELEVATION,
    cast_domain,
    cast_front,
    cast_inward,
    smoothstep,
)

SEGMENTS = 32
"""Vertices of a lid or lip ring; number 0 is the lateral (subject's left) corner, 8 the top, 16 the other corner."""
EAR_SEGMENTS = 24
NECK_SEGMENTS = 30
LID_OFFSETS = (0.0, 0.9, 2.2, 4.2, 6.4, 9.0, 12.0)
LIP_OFFSETS = (0.0, 1.4, 3.2, 5.2, 7.4, 9.6, 12.5, 16.0)
LID_MIDDLE_X = 31.2
LID_HALF_WIDTH = 15.0
MOUTH_HALF_WIDTH = 24.5
EAR_PROFILE = (  # scale of the oval, height above the head
    (0.80, 0.0),
    (0.84, 5.0),
    (0.97, 12.0),
    (1.04, 17.0),
    (1.03, 20.0),
    (0.93, 21.0),
    (0.84, 15.5),
    (0.74, 12.5),
    (0.60, 15.0),
    (0.50, 9.0),
    (0.37, 3.5),
    (0.20, 2.0),
)


@dataclass(frozen=True)
class Patch:
    """Rings (R, S, 3) from the innermost to the outermost one, and a pole (3,) that closes the innermost one."""

    rings: np.ndarray
    pole: np.ndarray


def angles(count: int) -> np.ndarray:
    """Return `count` angles of a ring, radians."""
    return 2 * np.pi * np.arange(count) / count


def lid_margin(offset: float) -> np.ndarray:
    """Return x, y (32, 2) of the left eye's ring at `offset` mm outside the lid margin."""
    phi = angles(SEGMENTS)
    c, s = np.cos(phi), np.sin(phi)
    upper = s > 0
    power = 1 + 0.35 * (1 - smoothstep(offset, 0, 9))
    lean = np.where(upper, -1.0, 1.2) * np.abs(s) * (1 - min(offset / 9, 1))
    height = np.where(upper, 4.8 + 1.0 * offset, 4.2 + 0.9 * offset)
    x = (LID_HALF_WIDTH + offset) * c + lean
    return np.stack([LID_MIDDLE_X + x, np.sign(s) * height * np.abs(s) ** power + 0.06 * x], axis=1)


def build_eye() -> Patch:
    """Build the left eye's 7 lid rings and 4 rings inside (rim and bag), innermost first: 11 rings."""
    lids = []
    for number, offset in enumerate(LID_OFFSETS):
        xy = lid_margin(offset)
        points = cast_front(xy)
        if number < 3:
            radius = EYE_RADIUS + (1.1, 1.7, 1.9)[number]
            across = np.hypot(*(xy - EYE_CENTRE[:2]).T)
            z = EYE_CENTRE[2] + np.sqrt(np.maximum(radius**2 - across**2, 0))
            points[:, 2] += (z - points[:, 2]) * (1 - smoothstep(across / radius, 0.8, 0.99))
        upper = np.maximum(np.sin(angles(SEGMENTS)), 0)
        points[:, 2] += (0, 0, 0, -2.0, 1.0, 0.7, 0)[number] * upper**0.7
        lids.append(points)
    margin = lids[0] - EYE_CENTRE
    rim = margin / np.linalg.norm(margin, axis=1, keepdims=True) * (EYE_RADIUS + 0.15)
    around = np.arctan2(margin[:, 1], margin[:, 0])
    inside = [rim]
    for polar in np.radians((80, 110, 140)):
        ring = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), 0 * around + np.cos(polar)], 1)
        inside.append(ring * (EYE_RADIUS + 1.2))
    pole = EYE_CENTRE - [0, 0, EYE_RADIUS + 1.2]
    rings = np.stack([*(ring + EYE_CENTRE for ring in inside[::-1]), *lids])
    return Patch(rings, pole)


def seam_height(u: np.ndarray) -> np.ndarray:
    """Return the height of the closed mouth's line at u = x / half width."""
    return -67.8 + 0.55 * u**2 - 0.15 * u**4


def build_mouth() -> Patch:
    """Build 8 lip rings and 6 rings of the mouth's inside, innermost first: 14 rings."""
    phi = angles(SEGMENTS)
    c, s = np.cos(phi), np.sin(phi)
    upper = s > 0
    lips = []
    for offset in LIP_OFFSETS:
        x = (MOUTH_HALF_WIDTH + 0.8 * offset) * c
        border = np.exp(-(((offset - 7.4) / 4) ** 2))
        bow = 1.2 * np.exp(-(((np.abs(x) - 5.5) / 3.0) ** 2)) - 1.2 * np.exp(-((x / 2.4) ** 2))
        rise = np.where(upper, offset * 0.94, offset * 1.06) * np.abs(s) ** (1.25 - 0.03 * offset)
        y = seam_height(c) + np.sign(np.round(s, 9)) * (rise + 0.12) + np.where(upper, bow * border, 0)
        points = cast_front(np.stack([x, y], axis=1))
        fade = 1 - np.minimum(np.abs(c), 1) ** 2.4
        bump = np.where(upper, 3.9, 5.0) * np.exp(-(((offset - np.where(upper, 4.4, 4.9)) / 4.2) ** 2))
        points[:, 2] += fade * (bump - 1.6 * np.exp(-((offset / 1.6) ** 2)))
        lips.append(points)
    seam = lips[0]
    bag = []
    for number in range(1, 7):
        t = number / 6
        half_height = 1 + 12 * smoothstep(t, 0, 0.75)
        x = seam[:, 0] * (1 - 0.12 * t)
        y = -68 - 2 * t + half_height * np.sign(np.round(s, 9)) * np.abs(s) ** 0.8
        z = seam[:, 2] - 2.5 - 53.5 * t**1.3
        bag.append(np.stack([x, y, z], axis=1))
    return Patch(np.stack([*bag[::-1], *lips]), np.array([0.0, -70.0, bag[-1][:, 2].mean() - 3]))


def build_ear() -> Patch:
    """Build the left ear's 12 rings, innermost first; the outermost lies on the head."""
    phi = -angles(EAR_SEGMENTS)
    # along the ear: u forward, v up; the minus sign makes it counter-clockwise seen from the left
    c, s = np.cos(phi), np.sin(phi)
    back = np.clip(0.5 - 0.5 * c, 0, 1)
    low, high = np.maximum(-s, 0), np.maximum(s, 0)
    middle = cast_inward(np.array([[0.0, -16.0, -8.0]]), np.array([[1.0, 0.0, 0.0]]))[0]
    tilt = np.radians(12)
    rings = []
    for scale, height in EAR_PROFILE:
        size = scale - np.maximum(scale - 0.8, 0) * smoothstep(c, 0.1, 0.9)
        u = size * np.where(c < 0, 19.0, 15.0) * c
        v = size * 29.5 * s * (1 - 0.04 * low)
        u = u * (1 - 0.18 * low**2)
        zy = np.stack([u * np.cos(tilt) - v * np.sin(tilt), u * np.sin(tilt) + v * np.cos(tilt)], axis=1)
        origins = np.stack([0 * u, middle[1] + zy[:, 1], middle[2] + zy[:, 0]], axis=1)
        surface = cast_inward(origins, np.tile([1.0, 0.0, 0.0], (len(u), 1)), start=110.0)
        lift = height * (0.06 + 0.94 * back) * (1 - 0.55 * low**2 - 0.2 * high**3)
        rings.append(surface + lift[:, None] * np.array([0.72, 0.0, -0.42]))
    pole = rings[-1].mean(axis=0) - [1.0, 0, 0]
    return Patch(np.stack(rings[::-1]), pole)


def build_neck() -> np.ndarray:
    """Build the open lower edge of the neck (30, 3); number 0 is in front, the next ones to the subject's left."""
    azimuth = angles(NECK_SEGMENTS)
    tilt = np.radians(NECK_ELEVATION)
    level = np.cos(tilt)
    return cast_domain(np.stack([np.sin(azimuth) * level, 0 * azimuth + np.sin(tilt), np.cos(azimuth) * level], 1))


def mirror(points: np.ndarray) -> np.ndarray:
    """Return points (..., 3) mirrored at x = 0."""
    return points * np.array([-1.0, 1.0, 1.0])


def mirror_ring(rings: np.ndarray, mirrored_start: int) -> np.ndarray:
    """Mirror rings (R, S, 3) and keep their sense of turning: place s of the result mirrors place (start - s) mod S."""
    order = (mirrored_start - np.arange(rings.shape[1])) % rings.shape[1]
    return mirror(rings[:, order])
