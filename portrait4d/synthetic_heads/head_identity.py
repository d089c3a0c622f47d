"""Identity directions of the open head: smooth fields on the neutral head, millimetres per standard deviation.

Coefficients are meant to be standard normal. Slots 0 and 1 are mixtures (masculine to feminine, age), the others one
feature each; slots beyond the last named one are zero. Eyeballs and lids move together as rigid bodies.
"""

import numpy as np

from portrait4d.synthetic_heads.head_loops import MOUTH_HALF_WIDTH, seam_height
from portrait4d.synthetic_heads.head_sculpt import EYE_CENTRE, smoothstep
from portrait4d.synthetic_heads.head_surface import Surface

DAMPING = 0.72
"""Share of a feature's full deviation that one unit of its coefficient gives, so that thirty of them stay plausible."""

FEMININE = {
    "jaw_width": -1.0,
    "brow_ridge": -1.3,
    "chin_length": -0.7,
    "chin_width": -0.9,
    "neck_width": -1.4,
    "lip_fullness": 0.9,
    "eye_size": 0.9,
    "nose_length": -0.5,
    "nose_width": -0.9,
    "nose_tip": -0.4,
    "nose_tip_up": 0.6,
    "forehead_slope": -0.6,
    "head_width": -0.3,
    "brow_height": 0.6,
    "ear_size": -0.5,
    "jaw_angle": 0.5,
    "cheek_fat": 0.35,
    "face_length": -0.5,
    "nose_bridge": -0.4,
    "forehead_width": -0.3,
}
AGE = {
    "eye_bags": 0.9,
    "folds": 1.0,
    "lid_hood": 0.6,
    "cheek_fat": -0.6,
    "nose_tip": 0.35,
    "ear_size": 0.4,
    "jowl": 0.8,
}


def gauss(p: np.ndarray, centre: tuple[float, float, float], sigma: tuple[float, float, float]) -> np.ndarray:
    """Return exp(-|(p - c) / s|^2) (N,) with |x| instead of x."""
    q = (np.stack([np.abs(p[:, 0]), p[:, 1], p[:, 2]], axis=1) - centre) / np.array(sigma, float)
    return np.exp(-(q * q).sum(axis=1))


def _vector(amount: np.ndarray, x: float | np.ndarray = 0.0, y: float | np.ndarray = 0.0, z: float = 0.0) -> np.ndarray:
    return np.stack([amount * x, amount * y, amount * z], axis=1)


def outward_directions(surface: Surface) -> np.ndarray:
    """Return smooth outward directions (V, 3), unit on the face, fading to zero inside the mouth."""
    offset = (surface.vertices - [0.0, -42.0, 0.0]) * [1.0, 0.45, 1.0]
    unit = offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-9)
    return unit * np.interp(surface.lip_row, [-1, 2, 6, 7], [0, 0, 0.9, 1])[:, None]


def feature_fields(surface: Surface) -> dict[str, np.ndarray]:
    """Return the named displacement fields (V, 3) in mm of one full deviation."""
    p = surface.vertices
    normal = outward_directions(surface)
    fields = _skull_fields(p) | _jaw_fields(p, normal) | _nose_fields(p)
    fields = {name: _rigid_eyes(surface, field) for name, field in fields.items()}
    return fields | _eye_fields(surface, normal) | _mouth_fields(surface) | _ear_fields(surface)


def identity_directions(surface: Surface) -> tuple[list[str], np.ndarray]:
    """Return slot names and directions (V, 3, n) in mm per unit of a standard-normal coefficient."""
    fields = feature_fields(surface)
    feminine = sum(0.85 * weight * fields[name] for name, weight in FEMININE.items())
    age = sum(0.75 * weight * fields[name] for name, weight in AGE.items())
    names = ["feminine", "age", *fields]
    return names, np.stack([feminine, age, *(DAMPING * field for field in fields.values())], axis=2)


def _rigid_eyes(surface: Surface, field: np.ndarray) -> np.ndarray:
    """Give each eyeball and its lids the mean motion of the lids' outer ring."""
    result = field.copy()
    p = surface.vertices
    for number, eye in enumerate(surface.template.eyes):
        mean = field[eye[8]].mean(axis=0)
        centre = EYE_CENTRE * (1 if number == 0 else -1, 1, 1)
        distance = np.linalg.norm((p - centre) * (1, 1.25, 1), axis=1)
        weight = (1 - smoothstep(distance, 17, 30)) * ((p[:, 0] > 0) == (number == 0))
        weight[eye[:8]] = np.maximum(weight[eye[:8]], np.r_[[1.0] * 7, 0.9][:, None])
        ball = slice(3931 + 546 * number, 3931 + 546 * (number + 1))
        weight[ball] = 1
        weight[surface.template.poles[number]] = 1
        result += weight[:, None] * (mean - field)
    return result


def _skull_fields(p: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = p.T
    above = smoothstep(y, -150, -70)
    crown, back = smoothstep(y, 10, 112), smoothstep(-z, -20, 99)
    forehead = smoothstep(y, 15, 70) * smoothstep(z, 20, 80)
    neck = 1 - smoothstep(y, -125, -88)
    return {
        "head_width": _vector(above, x=3.4 * x / 75),
        "crown_height": _vector(crown, y=4.6),
        "head_length": _vector(back * smoothstep(y, -80, -20), z=-5.0),
        "forehead_slope": _vector(forehead * smoothstep(y, 20, 95), z=-5.0),
        "forehead_width": _vector(gauss(p, (55, 55, 35), (30, 35, 45)), x=np.sign(x) * 2.6),
        "neck_width": _vector(neck, x=3.6 * x / 50, z=0.0) + _vector(neck * 3.0 * (z + 32) / 50, z=1.0),
        "face_length": _vector(smoothstep(-y, -20, 112) * smoothstep(z, -20, 40) * smoothstep(y, -165, -125), y=-4.2),
        "temples": _vector(gauss(p, (60, 18, 35), (16, 24, 26)), x=-np.sign(x) * 2.4),
    }


def _jaw_fields(p: np.ndarray, normal: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = p.T
    window = smoothstep(z, -35, 10)
    jaw = np.exp(-(((y + 74) / 30) ** 2)) * window * smoothstep(np.abs(x), 10, 45)
    corner = gauss(p, (50, -62, 8), (22, 20, 26))
    chin = gauss(p, (0, -100, 84), (26, 20, 30))
    bone, fat = gauss(p, (45, -22, 60), (18, 14, 24)), gauss(p, (38, -54, 58), (20, 21, 28))
    jowl = gauss(p, (36, -88, 48), (14, 13, 22))
    return {
        "jaw_width": _vector(jaw, x=4.6 * np.sign(x)),
        "jaw_angle": _vector(corner, y=4.5),
        "chin_length": _vector(chin, y=-5.0),
        "chin_forward": _vector(chin, z=3.8),
        "chin_width": _vector(gauss(p, (20, -98, 74), (14, 16, 24)), x=3.6 * np.sign(x)),
        "chin_cleft": _vector(gauss(p, (0, -100, 94), (3.2, 9, 12)), z=-1.3),
        "cheekbones": bone[:, None] * normal * 3.0,
        "cheek_fat": fat[:, None] * normal * 4.8,
        "jowl": jowl[:, None] * (normal * 2.6 + [0, -1.6, 0]),
        "double_chin": _vector(gauss(p, (0, -112, 40), (34, 20, 34)), y=-6.0, z=1.5),
        "brow_ridge": _vector(gauss(p, (24, 17, 84), (26, 9, 18)), z=2.8),
        "muzzle": _vector(gauss(p, (0, -66, 92), (30, 22, 26)), z=2.6),
        "jaw_asymmetry": _vector(gauss(p, (0, -90, 70), (48, 34, 50)), x=1.9),
    }


def _nose_fields(p: np.ndarray) -> dict[str, np.ndarray]:
    x, y, _ = p.T
    whole = gauss(p, (0, -24, 100), (19, 27, 27)) * smoothstep(y, -54, -44)
    tip = gauss(p, (0, -36, 110), (12, 12, 14))
    bridge = gauss(p, (0, -4, 92), (9, 17, 15))
    low = smoothstep(-y, 6, 40) * whole
    wings = gauss(p, (13, -40, 95), (8, 9, 13))
    return {
        "nose_length": _vector(gauss(p, (0, -40, 102), (19, 16, 22)), y=-4.0),
        "nose_width": _vector(wings, x=3.0 * np.sign(x)),
        "nose_bridge": _vector(bridge, z=3.2),
        "bridge_width": _vector(gauss(p, (7, -12, 90), (7, 20, 12)), x=1.7 * np.sign(x)),
        "nose_tip": tip[:, None] * np.stack([0.11 * x, 0 * x, 0 * x + 3.6], axis=1),
        "nose_tip_up": _vector(tip, y=3.2, z=0.4),
        "nose_bulb": _vector(gauss(p, (6, -34, 106), (8, 9, 10)), x=1.9 * np.sign(x)),
        "nose_hump": _vector(gauss(p, (0, -11, 97), (7, 9, 12)), z=2.4),
        "nose_bend": _vector(low, x=1.5),
    }


def _eye_fields(surface: Surface, normal: np.ndarray) -> dict[str, np.ndarray]:
    p = surface.vertices
    sign = np.where(p[:, 0] >= 0, 1.0, -1.0)
    centre = EYE_CENTRE * np.stack([sign, 1 + 0 * sign, 1 + 0 * sign], axis=1)
    offset = p - centre
    window = 1 - smoothstep(np.linalg.norm(offset * (1, 1.2, 0.8), axis=1), 18, 34)
    window = np.where(surface.lid_row < 12, np.maximum(window, 1 - smoothstep(surface.lid_row, 8, 11.5)), window)
    ball = ~surface.is_head
    window[ball] = 1
    lids = np.where(ball | (surface.lid_row < LID_BAG_END), 0.0, window)
    size = 0.085 * window[:, None] * offset
    tilt = np.stack([0 * sign, 0.075 * offset[:, 0] * sign, 0 * sign], axis=1) * lids[:, None]
    upper = (surface.ring_sin > 0) & (surface.lid_row < 99)
    hood = np.where(upper, np.interp(surface.lid_row, [4, 5, 6, 7, 8, 9, 10], [0.1, 0.35, 0.8, 1, 0.7, 0.3, 0]), 0)
    hood = hood * np.abs(surface.ring_sin) ** 0.5
    bags = gauss(p, (31, -17, 76), (13, 5.5, 12))
    brow = gauss(p, (28, 21, 82), (26, 10, 20))
    return {
        "eye_size": size,
        "eye_spacing": _vector(window, x=1.6 * sign),
        "eye_depth": _vector(window, z=-1.6),
        "eye_tilt": tilt,
        "lid_hood": _vector(hood, y=-1.7, z=0.8),
        "eye_bags": bags[:, None] * normal * 1.4 - gauss(p, (30, -23, 76), (14, 3, 12))[:, None] * normal * 0.7,
        "brow_height": _vector(brow, y=2.4),
        "eye_asymmetry": _vector(window * (p[:, 0] > 0), y=0.6),
    }


LID_BAG_END = 3
"""Lid rows below this one line the socket and stay at the eyeball when the lids tilt."""


def _mouth_fields(surface: Surface) -> dict[str, np.ndarray]:
    p = surface.vertices
    x, y, z = p.T
    row = surface.lip_row
    ring = np.interp(row, [-1, 5, 6, 10, 12, 13, 14], [0, 0.2, 0.6, 1, 0.35, 0.08, 0]) * np.abs(surface.ring_sin)
    line = seam_height(np.clip(x / MOUTH_HALF_WIDTH, -1.2, 1.2))
    near = gauss(p, (0, -68, 96), (32, 16, 26))
    fold = gauss(p, (29, -54, 88), (7, 15, 18))
    inner = gauss(p, (22, -56, 94), (4, 14, 14))
    return {
        "lip_fullness": np.stack([0 * x, 0.25 * (y - line) * ring, 1.7 * ring], axis=1),
        "upper_lip": np.stack([0 * x, 0.3 * (y - line) * ring * (surface.ring_sin > 0), 0 * x], axis=1),
        "mouth_width": _vector(near, x=3.4 * x / 25),
        "mouth_height": _vector(near, y=1.8),
        "mouth_corners": _vector(gauss(p, (25, -68, 88), (9, 9, 16)), y=1.3),
        "folds": _vector(fold, x=0.7 * np.sign(x), z=1.5) + _vector(inner, z=-1.4),
    }


def _ear_fields(surface: Surface) -> dict[str, np.ndarray]:
    p = surface.vertices
    row = surface.ear_row
    weight = np.interp(row, [0, 8, 9, 10, 11, 12], [1, 1, 0.75, 0.35, 0, 0]) * (row < 99)
    middle = np.array([70.0, -16.0, -8.0])
    offset = np.stack([0 * p[:, 0], p[:, 1] - middle[1], p[:, 2] - middle[2]], axis=1)
    return {
        "ear_size": 0.12 * weight[:, None] * offset,
        "ear_out": _vector(weight * smoothstep(-p[:, 2], -6, 22), x=2.6 * np.sign(p[:, 0])),
        "ear_lobe": _vector(weight * smoothstep(-p[:, 1], 28, 46), y=-3.0),
    }
