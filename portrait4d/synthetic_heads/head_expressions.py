"""Expression directions of the open head: millimetres; a coefficient of FULL_EXPRESSION completes an expression.

So a standard-normal coefficient gives a natural, mild movement. Slots beyond the last named one are zero.
"""

import numpy as np

from portrait4d.synthetic_heads import head_loops as loops
from portrait4d.synthetic_heads.head_identity import gauss, outward_directions
from portrait4d.synthetic_heads.head_sculpt import EYE_CENTRE, EYE_RADIUS, smoothstep
from portrait4d.synthetic_heads.head_surface import LID_MARGIN_ROW, Surface

FULL_EXPRESSION = 2.5
_UPPER_LID = (1.0, 0.88, 0.7, 0.42, 0.17, 0.04, 0.0)
_LOWER_LID = (1.0, 0.85, 0.6, 0.3, 0.1, 0.0, 0.0)
MIXTURES = {
    "joy": {"smile": 1.0, "squint": 0.5, "lips_apart": 0.6, "upper_lip_up": 0.4},
    "surprise": {"brows_up": 1.0, "wide": 0.8, "lips_apart": 0.5},
    "anger": {"brows_down": 1.0, "squint": 0.5, "press": 0.7, "sneer": 0.3},
    "sadness": {"inner_brows_up": 1.0, "frown": 0.8, "squint": 0.15},
    "disgust": {"sneer": 1.0, "brows_down": 0.6, "upper_lip_up": 0.6, "squint": 0.4},
}


def expression_fields(surface: Surface, jaw_weight: np.ndarray) -> dict[str, np.ndarray]:
    """Return the named displacement fields (V, 3) in mm of the complete expressions.

    Args:
        surface: the neutral head.
        jaw_weight: (V,) share of the jaw's motion.
    """
    fields = _lip_fields(surface) | _cheek_fields(surface) | _brow_fields(surface) | _lid_fields(surface)
    fields["jaw_side"] = np.stack([7.0 * jaw_weight, 0 * jaw_weight, 0 * jaw_weight], axis=1)
    left = smoothstep(surface.vertices[:, 0], -12, 12)[:, None]
    fields["smile_left"] = fields["smile"] * left
    fields["smile_right"] = fields["smile"] * (1 - left)
    order = _ORDER + [name for name in fields if name not in _ORDER]
    fields = {name: fields[name] * surface.is_head[:, None] for name in order}
    for name, parts in MIXTURES.items():
        fields[name] = sum(weight * fields[part] for part, weight in parts.items())
    return fields


def expression_directions(surface: Surface, jaw_weight: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return slot names and directions (V, 3, n) in mm per unit of coefficient."""
    fields = expression_fields(surface, jaw_weight)
    return list(fields), np.stack(list(fields.values()), axis=2) / FULL_EXPRESSION


_ORDER = ["smile", "lips_apart", "brows_up", "frown", "pucker", "press", "jaw_side", "brows_down", "blink_left"]
_ORDER += ["blink_right", "squint", "puff", "sneer", "inner_brows_up", "wide", "upper_lip_up", "lower_lip_down"]


def _move(amount: np.ndarray, x: float | np.ndarray = 0.0, y: float | np.ndarray = 0.0, z: float = 0.0) -> np.ndarray:
    return np.stack([amount * x, amount * y, amount * z], axis=1)


def lip_weights(surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (V,) of the upper and the lower lip, 1 at the middle of the seam."""
    row = np.where(surface.lip_row < 99, surface.lip_row, 14)
    ring = np.interp(row, [-1, 0, 6, 7, 8, 9, 10, 11, 12, 13, 14], [0, 0.1, 1, 1, 0.95, 0.85, 0.65, 0.42, 0.2, 0.06, 0])
    bend = np.abs(surface.ring_sin) ** 0.8
    return ring * bend * (surface.ring_sin > 0), ring * bend * (surface.ring_sin < 0)


def _lip_fields(surface: Surface) -> dict[str, np.ndarray]:
    p = surface.vertices
    out = np.tanh(p[:, 0] / 6)
    upper, lower = lip_weights(surface)
    front = smoothstep(p[:, 2], -5, 40)
    corner = gauss(p, (25, -68, 88), (12, 12, 22)) * front
    mouth = gauss(p, (0, -68, 96), (30, 19, 30)) * front
    narrow = np.clip(p[:, 0] / 25, -1.25, 1.25)
    smile = _move(corner, x=6.0 * out, y=6.0, z=-4.6) + _move(
        gauss(p, (38, -38, 68), (16, 15, 24)), 2.6 * out, 3.0, 1.4
    )
    smile += _move(lower, y=0.9) + _move(gauss(p, (23, -52, 92), (5, 11, 14)), z=-1.6)
    smile += _move(gauss(p, (31, -17, 76), (14, 5, 12)), y=1.0, z=0.6)
    frown = _move(corner, x=1.0 * out, y=-4.8, z=-0.6) + _move(gauss(p, (0, -93, 94), (15, 9, 18)), y=1.6, z=1.6)
    frown += _move(lower, y=0.9)
    pucker = _move(mouth, x=-8.2 * narrow, z=5.6) + _move(upper - lower, y=0.6)
    press = _move(upper, y=-1.3, z=-2.2) + _move(lower, y=1.3, z=-2.2)
    wing = gauss(p, (13, -40, 95), (8, 9, 13))
    lift = _move(upper, y=3.2) + _move(wing, y=1.0) + _move(gauss(p, (14, -55, 96), (14, 8, 16)), y=1.6)
    return {
        "smile": smile,
        "frown": frown,
        "lips_apart": _move(upper, y=2.6, z=0.3) - _move(lower, y=3.4, z=0.2),
        "pucker": pucker,
        "press": press,
        "upper_lip_up": lift,
        "lower_lip_down": _move(lower, y=-4.4, z=0.6),
        "sneer": _move(wing, 0.8 * out, 2.6, -0.3)
        + _move(gauss(p, (16, -54, 95), (12, 10, 16)), y=2.4)
        + _move(gauss(p, (9, -4, 88), (7, 8, 14)), y=1.2),
    }


def _cheek_fields(surface: Surface) -> dict[str, np.ndarray]:
    p = surface.vertices
    normal = outward_directions(surface)
    puff = gauss(p, (39, -60, 60), (19, 18, 26)) * 7.0 + gauss(p, (0, -66, 96), (34, 14, 16)) * 2.2
    return {"puff": puff[:, None] * normal}


def _brow_fields(surface: Surface) -> dict[str, np.ndarray]:
    p = surface.vertices
    out = np.tanh(p[:, 0] / 5)
    band = gauss(p, (30, 20, 82), (27, 10, 26)) * smoothstep(p[:, 2], 10, 50)
    middle = gauss(p, (10, 17, 90), (12, 10, 16))
    lid = np.interp(np.where(surface.lid_row < 99, surface.lid_row, 11), [7, 8, 9, 10, 11], [0.15, 0.35, 0.6, 0.8, 1])
    lid = np.where((surface.lid_row < 7), 0, lid)
    head = gauss(p, (26, 48, 80), (34, 22, 30)) * smoothstep(p[:, 2], 10, 50)
    return {
        "brows_up": _move(band * lid, y=6.4, z=0.5) + _move(head, y=2.2),
        "inner_brows_up": _move(middle * lid, y=5.4, x=-1.0 * out, z=0.8),
        "brows_down": _move(band * lid, y=-4.0) + _move(middle * lid, x=-2.0 * out, y=-1.6, z=1.4),
    }


def _lid_fields(surface: Surface) -> dict[str, np.ndarray]:
    left, right = (blink_field(surface, number) for number in range(2))
    both = left + right
    lower = np.where(surface.ring_sin < 0, 1.0, 0.0)[:, None]
    brow = _brow_fields(surface)
    p = surface.vertices
    pouch = _move(gauss(p, (32, -16, 76), (15, 7, 14)), y=1.3, z=0.5)
    pouch[surface.lid_row < 8] *= 0.3
    return {
        "blink_left": left,
        "blink_right": right,
        "squint": 0.22 * both * (1 - lower) + 0.95 * both * lower + pouch,
        "wide": -0.26 * both * (1 - lower) - 0.35 * both * lower + 0.25 * brow["brows_up"],
    }


def blink_field(surface: Surface, eye: int) -> np.ndarray:
    """Return the displacement (V, 3) in mm that closes eye 0 (left) or 1 (right)."""
    field = np.zeros_like(surface.vertices)
    rings = surface.template.eyes[eye]
    centre = EYE_CENTRE * (1 if eye == 0 else -1, 1, 1)
    sine = np.round(np.sin(loops.angles(loops.SEGMENTS)), 12)
    upper = sine >= 0
    partner = (-np.arange(loops.SEGMENTS)) % loops.SEGMENTS
    margin = surface.vertices[rings[LID_MARGIN_ROW]]
    top = np.where(upper[:, None], margin, margin[partner])
    bottom = np.where(upper[:, None], margin[partner], margin)
    share = np.where(upper, 0.25, 0.22)[:, None]
    target = bottom + share * (top - bottom)
    target[:, 0] = 0.5 * (top + bottom)[:, 0]
    shift = (target - margin)[:, :2]
    for row, (up, low) in enumerate(zip(_UPPER_LID, _LOWER_LID, strict=True)):
        numbers = rings[LID_MARGIN_ROW + row]
        weight = np.where(upper, up, low)
        move = np.zeros((loops.SEGMENTS, 3))
        move[:, :2] = weight[:, None] * shift
        ball = (EYE_RADIUS + 2.1, EYE_RADIUS + 2.2, EYE_RADIUS + 2.3, EYE_RADIUS + 2.3)[min(row, 3)]
        strength = (1.0, 1.0, 1.0, 0.6, 0.25, 0.0, 0.0)[row] * np.abs(sine) ** 0.3
        move[:, 2] = strength * _depth_change(surface.vertices[numbers], move, centre, ball)
        field[numbers] = move
    rim = rings[LID_MARGIN_ROW - 1]
    inward = surface.vertices[rings[LID_MARGIN_ROW]] + field[rings[LID_MARGIN_ROW]] - centre
    inward *= (EYE_RADIUS + 0.9) / np.linalg.norm(inward, axis=1, keepdims=True)
    field[rim] = (centre + inward - surface.vertices[rim]) * (np.abs(sine) ** 0.3)[:, None]
    return field


def _depth_change(points: np.ndarray, move: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Return the change of z that brings moved points on a sphere about the eye, fading out beside it."""
    across = np.hypot(*((points + move - centre)[:, :2]).T)
    depth = centre[2] + np.sqrt(np.maximum(radius**2 - across**2, 0))
    return (depth - points[:, 2]) * (1 - smoothstep(across / radius, 0.85, 1.0))
