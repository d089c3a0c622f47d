"""Hair as ribbons: every strand is a narrow strip of triangles that grows from a root on the head (millimetres).

Strands are grown once per identity on the neutral head and stored as offsets from their roots, so they follow every
identity and expression.
"""

from dataclasses import dataclass

import numpy as np

from portrait4d.synthetic_heads.hair_roots import (
    Roots,
    beard_density,
    brow_mask,
    hairline_depth,
    neutral_millimetres,
    root_pool,
)
from portrait4d.synthetic_heads.head_landmarks import brow_coordinate
from portrait4d.synthetic_heads.head_sculpt import cone_distance, smoothstep
from portrait4d.synthetic_heads.head_template import open_head_assets, open_head_extras


@dataclass(frozen=True)
class HairCut:
    """How scalp hair grows.

    Attributes:
        flow: "whorl", "part", "back", "up", "bun", "pony".
        length_top, length_side: mm.
        lift: 0 lies flat, 1 stands up.
        thickness: how far the outermost strands keep from the scalp, mm.
        gravity: 0 none, 1 falls at once.
        curl, pitch: radius of curls in mm, and turns per 100 mm.
        part: x of the parting in mm.
        fringe: length in mm of hair that may cover the forehead; 0 keeps the face free.
        recession: mm.
        width: half width of a strand at its root, mm.
        fade: 0 .. 1, how much shorter the sides get downwards.
    """

    flow: str
    length_top: float
    length_side: float
    lift: float = 0.3
    thickness: float = 9.0
    gravity: float = 0.3
    curl: float = 0.0
    pitch: float = 3.0
    part: float = 18.0
    fringe: float = 0.0
    recession: float = 0.0
    width: float = 1.9
    fade: float = 0.0


@dataclass(frozen=True)
class Strands:
    """S ribbons of K points.

    Attributes:
        face, weights: (S,), (S, 3) roots on the head's triangles.
        root: (S, 3) neutral roots, mm.
        offset: (S, K, 3) of the points from the root.
        across: (S, K, 3) from the middle line to the ribbon's edge.
        normal, tangent: (S, K, 3) unit vectors: out of the hair's body, and from root to tip.
        shade: (S, 3): a random number, the depth of the layer (0 inner .. 1 outer), length in mm.
    """

    face: np.ndarray
    weights: np.ndarray
    root: np.ndarray
    offset: np.ndarray
    across: np.ndarray
    normal: np.ndarray
    tangent: np.ndarray
    shade: np.ndarray

    def take(self, index: np.ndarray) -> "Strands":
        """Return the strands of an index list or mask."""
        return Strands(**{key: value[index] for key, value in vars(self).items()})


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def _body(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distance (N,) and outward normal (N, 3) of a simple body: skull, lower face, neck, shoulders."""
    parts = []
    for centre, radii in (((0, 31, -9), (76, 82, 91)), ((0, -36, 18), (64, 78, 66))):
        q = (p - centre) / np.array(radii, float)
        k = np.linalg.norm(q, axis=1)
        n = q / np.array(radii, float)
        size = np.maximum(np.linalg.norm(n, axis=1), 1e-9)
        parts.append((k * (k - 1) / size, n / size[:, None]))
    for start, end, radii in (((0, -95, -22), (0, -240, -38), (50, 60)), ((0, -178, -46), (170, -235, -46), (38, 44))):
        mirrored = p * (np.where(p[:, :1] < 0, -1.0, 1.0) if end[0] else 1.0) if end[0] else p
        mirrored = np.stack([np.abs(p[:, 0]), p[:, 1], p[:, 2]], axis=1) if end[0] else p
        d = cone_distance(mirrored, np.array(start, float), np.array(end, float), radii)
        axis = np.array(end, float) - start
        t = np.clip((mirrored - start) @ axis / (axis @ axis), 0, 1)
        n = _unit(mirrored - start - t[:, None] * axis)
        if end[0]:
            n = n * np.stack([np.where(p[:, 0] < 0, -1.0, 1.0), np.ones(len(p)), np.ones(len(p))], axis=1)
        parts.append((d, n))
    distance = np.stack([d for d, _ in parts])
    best = distance.argmin(0)
    return distance.min(0), np.stack([n for _, n in parts])[best, np.arange(len(p))]


def _flow(cut: HairCut, p: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return the combing direction (N, 3) at points of strands with the given roots."""
    whorl = np.array([0.0, 96.0, -52.0])
    radial = p - whorl
    x = p[:, 0] - cut.part
    one = np.ones(len(p))
    if cut.flow == "whorl":
        return _unit(radial)
    if cut.flow == "part":
        back = 0.3 + 0.0004 * x * x + 0.6 * smoothstep(root[:, 2], 30, 75) * (cut.length_top > 70)
        return _unit(np.stack([np.tanh((root[:, 0] - cut.part) / 3), -0.25 * one, -back], axis=1))
    if cut.flow == "back":
        return _unit(np.stack([0.004 * p[:, 0], 0.25 * one, -one], axis=1))
    if cut.flow == "up":
        front = smoothstep(root[:, 2], 0, 60)
        lean = 0.25 * np.sign(cut.part) * one
        return _unit(np.stack([lean, 0.35 + 1.3 * front, -1.0 + 0.35 * front], axis=1))
    target = np.array([0.0, 64.0, -96.0]) if cut.flow == "bun" else np.array([0.0, 34.0, -100.0])
    return _unit(target - p)


def _lengths(cut: HairCut, root: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top = smoothstep(root[:, 1], 18, 78)
    length = cut.length_side + (cut.length_top - cut.length_side) * top
    low = smoothstep(-root[:, 1], -50, 45)
    length = length * (1 - cut.fade * low)
    edge = np.clip(hairline_depth(root, cut.recession) / 14, 0.35, 1)
    return length * edge ** (0.5 if cut.length_side < 60 else 0.0) * rng.uniform(0.82, 1.12, len(root))


def grow_scalp_hair(cut: HairCut, count: int, rng: np.random.Generator, points: int = 12) -> Strands:
    """Grow `count` strands of `points` points on the scalp."""
    pool = root_pool()
    depth = hairline_depth(pool.points, cut.recession)
    ragged = 4.0 * np.sin(pool.points[:, 0] * 0.31 + 1.3 * np.sin(pool.points[:, 1] * 0.4))
    roots = pool.take(np.nonzero(depth > 1.0 + 0.4 * ragged)[0][:count])
    n = len(roots.points)
    layer = rng.uniform(0, 1, n) ** 0.6
    length = _lengths(cut, roots.points, rng)
    fringe = (roots.points[:, 2] > 40) & (np.abs(roots.points[:, 0]) < 48) & (cut.fringe > 0)
    length = np.where(fringe, cut.fringe * rng.uniform(0.85, 1.1, n), length)
    p = roots.points + 0.3 * roots.normals
    side = np.where(roots.points[:, 0] >= cut.part, 1.0, -1.0) if cut.flow == "part" else np.sign(roots.points[:, 0])
    line, stray = [p], np.zeros(n, bool)
    heading = _unit(
        _flow(cut, p, roots.points) * (1.05 - cut.lift)
        + roots.normals * (0.2 if cut.flow == "part" else 0.25 + cut.lift)
    )
    step = (length / (points - 1))[:, None]
    jitter = _unit(rng.normal(size=(n, 3))) * 0.16
    rise = 36.0 if cut.flow == "part" else 22.0
    for k in range(1, points):
        t = k / (points - 1)
        distance, normal = _body(p)
        flow = np.where(fringe[:, None], [0.12, -0.15, 1.0], _flow(cut, p, roots.points)) + jitter
        flow = flow - (flow * normal).sum(1, keepdims=True) * normal * (1 - 0.5 * cut.lift)
        fall = cut.gravity * smoothstep(t * length, 0, 40)[:, None] * np.array([0, -1.0, 0])
        stand = normal * cut.lift * (1.15 - t)
        heading = _unit(0.5 * heading + 0.5 * (_unit(flow) * (1 - 0.7 * cut.gravity * (t > 0.3)) + 2.2 * fall + stand))
        p = p + step * heading
        keep = 2.0 * min(1.0, 4 * t) + cut.thickness * (0.25 + 0.75 * layer) * smoothstep(t * length, 0.0, rise)
        distance, normal = _body(p)
        p = p + normal * np.maximum(keep - distance, 0)[:, None]
        above = distance - keep
        stray |= (above > 7) & (p[:, 1] > 55) & (cut.lift < 0.4)
        if cut.lift < 0.6:
            cling = 0.35 if cut.length_top < 150 else np.where(p[:, 1] > 35, 0.35, 0.12)
            p = p - normal * (cling * np.clip(above, 0, 12))[:, None]
        if cut.length_side > 70 and cut.flow == "part":
            p = _keep_face_free(p, side, fringe)
        line.append(p)
    line = np.stack(line, axis=1)
    step = _unit(np.diff(line, axis=1))
    stray |= (step[:, 1:] * step[:, :-1]).sum(-1).min(1) < -0.6
    line = line + _curls(cut, line, length, rng)
    strands = _ribbons(roots, line, _widths(cut, n, points, rng), layer, length, rng)
    return strands.take(~stray)


def _keep_face_free(p: np.ndarray, side: np.ndarray, fringe: np.ndarray) -> np.ndarray:
    """Move points that hang in front of the face to its sides."""
    q = (p[:, 1] + 22) / 92
    z = (p[:, 2] - 10) / 108
    room = 62 * np.sqrt(np.clip(1 - q**2 * (p[:, 1] < -22) - 0.35 * q**2 * (p[:, 1] >= -22), 0, 1))
    inside = (np.abs(p[:, 0]) < room) & (p[:, 2] > 34) & (p[:, 1] < 52) & (p[:, 1] > -118) & ~fringe & (z < 1.4)
    share = np.where(inside, 0.75, 0)
    target = np.where(np.abs(p[:, 0]) > 8, np.sign(p[:, 0]), side) * (room + 3)
    moved = p.copy()
    moved[:, 0] += share * (target - p[:, 0])
    moved[:, 2] -= share * 0.35 * np.maximum(p[:, 2] - 34, 0)
    return moved


def _curls(cut: HairCut, line: np.ndarray, length: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if cut.curl == 0:
        return 0 * line
    t = np.linspace(0, 1, line.shape[1])
    phase = rng.uniform(0, 2 * np.pi, len(line))[:, None] * (1.0 if cut.curl > 3.5 else 0.35)
    turns = 2 * np.pi * cut.pitch * length[:, None] / 100 * t + phase
    tangent = _unit(np.gradient(line, axis=1))
    _, normal = _body(line.reshape(-1, 3))
    normal = normal.reshape(line.shape)
    across = _unit(np.cross(tangent, normal))
    size = cut.curl * smoothstep(t, 0.0, 0.35)
    return size[None, :, None] * (np.sin(turns)[..., None] * across + 0.7 * (1 + np.cos(turns))[..., None] * normal)


def _widths(cut: HairCut, count: int, points: int, rng: np.random.Generator) -> np.ndarray:
    t = np.linspace(0, 1, points)
    taper = np.minimum(1, 0.45 + 4 * t) * np.sqrt(np.clip(1.02 - t**2.5, 0, 1))
    return cut.width * rng.uniform(0.7, 1.25, count)[:, None] * taper[None]


def _ribbons(
    roots: Roots, line: np.ndarray, width: np.ndarray, layer: np.ndarray, length: np.ndarray, rng: np.random.Generator
) -> Strands:
    """Widen middle lines (S, K, 3) to ribbons that lie on the body, each rolled a little."""
    tangent = _unit(np.gradient(line, axis=1))
    _, normal = _body(line.reshape(-1, 3))
    normal = normal.reshape(line.shape)
    normal = _unit(normal - (normal * tangent).sum(-1, keepdims=True) * tangent * 0.85)
    across = _unit(np.cross(normal, tangent))
    roll = rng.normal(0, 0.35, len(line))[:, None, None]
    across = _unit(across * np.cos(roll) + normal * np.sin(roll))
    shade = np.stack([rng.uniform(0, 1, len(line)), layer, length], axis=1)
    return Strands(
        face=roots.face,
        weights=roots.weights,
        root=roots.points,
        offset=line - roots.points[:, None],
        across=across * width[..., None],
        normal=normal,
        tangent=tangent,
        shade=shade,
    )


def grow_brows(thickness: float, length: float, count: int, rng: np.random.Generator) -> Strands:
    """Grow the brows: short strands that rise at the inner end and lie along the brow further out."""
    pool = root_pool()
    roots = pool.take(np.nonzero(brow_mask(pool.points, thickness))[0][:count])
    side = np.sign(roots.points[:, 0])
    u = np.clip(brow_coordinate(roots.points[:, 0]), 0, 1)
    slope = 0.95 * (1 - smoothstep(u, 0.0, 0.35)) + 0.32 - 0.75 * smoothstep(u, 0.45, 0.9)
    heading = np.stack([side * (0.35 + 0.65 * smoothstep(u, 0.0, 0.3)), slope + rng.normal(0, 0.12, len(u)), 0 * u], 1)
    heading = _unit(heading - (heading * roots.normals).sum(1, keepdims=True) * roots.normals)
    return _short_strands(roots, heading, length * (1 - 0.35 * u) * rng.uniform(0.7, 1.2, len(u)), 0.42, 0.16, rng)


def grow_beard(cut: str, length: float, count: int, rng: np.random.Generator) -> Strands:
    """Grow a beard: strands downwards and outwards on the jaw, cheeks and upper lip."""
    pool = root_pool()
    density = beard_density(pool.points, cut)
    chosen = np.nonzero((density > 0.12) & ((np.arange(len(density)) * 0.35448) % 1 < density))[0][:count]
    roots = pool.take(chosen)
    p = roots.points
    lip = smoothstep(p[:, 1], -70, -62) * (np.abs(p[:, 0]) < 28)
    heading = np.stack([np.sign(p[:, 0]) * (0.12 + 0.9 * lip), -1.0 + 0.35 * lip, 0.15 + 0 * lip], axis=1)
    heading = heading - 0.7 * (heading * roots.normals).sum(1, keepdims=True) * roots.normals
    heading = _unit(heading + rng.normal(0, 0.22, p.shape))
    size = length * (1 - 0.45 * lip) * (0.45 + 0.55 * smoothstep(-p[:, 1], 45, 100)) * rng.uniform(0.7, 1.25, len(p))
    return _short_strands(roots, heading, size, 0.62, 0.3, rng)


def _short_strands(
    roots: Roots, heading: np.ndarray, length: np.ndarray, width: float, lift: float, rng: np.random.Generator
) -> Strands:
    t = np.linspace(0, 1, 4)
    along = heading[:, None] * t[None, :, None] * length[:, None, None]
    rise = roots.normals[:, None] * (0.25 + lift * length[:, None] * np.sin(t * 2.2)[None])[..., None]
    line = roots.points[:, None] + along + rise
    tangent = _unit(np.gradient(line, axis=1))
    normal = np.repeat(roots.normals[:, None], 4, axis=1)
    across = _unit(np.cross(normal, tangent)) * (width * np.sqrt(1.02 - t**2))[None, :, None]
    shade = np.stack([rng.uniform(0, 1, len(length)), rng.uniform(0.3, 1, len(length)), length], axis=1)
    return Strands(
        roots.face, roots.weights, roots.points, line - roots.points[:, None], across, normal, tangent, shade
    )


def grow_lashes(length: float, rng: np.random.Generator) -> Strands:
    """Grow the lashes: long curved ones on the upper lid margins, short ones on the lower."""
    assets, extras = open_head_assets(), open_head_extras()
    vertices, _ = neutral_millimetres()
    on_margin = extras.lid_row[assets.faces] == 5
    at_margin = extras.lid_row[assets.faces] == 4
    rows = np.nonzero((at_margin.sum(1) == 2) & (on_margin.sum(1) == 1))[0]
    face = np.repeat(rows, 4)
    mix = np.tile([0.1, 0.35, 0.6, 0.85], len(rows))
    weights = np.zeros((len(face), 3))
    edge = np.argsort(~at_margin[rows], axis=1, kind="stable")[:, :2]
    edge = np.repeat(edge, 4, axis=0)
    weights[np.arange(len(face)), edge[:, 0]] = 1 - mix
    weights[np.arange(len(face)), edge[:, 1]] = mix
    points = np.einsum("nk,nkc->nc", weights, vertices[assets.faces[face]])
    sine = np.einsum("nk,nk->n", weights, extras.ring_sin[assets.faces[face]])
    side = np.sign(points[:, 0])
    outward = side * (np.abs(points[:, 0]) - 30) / 15
    upper = sine > 0
    keep = np.abs(sine) > 0.12
    heading = np.stack([0.75 * outward, np.where(upper, 0.05, -0.45), 0 * sine + 1.0], axis=1)
    bend = np.stack([0.2 * outward, np.where(upper, 1.0, -0.25), 0 * sine], axis=1)
    size = length * np.where(upper, 1.0, 0.5) * (0.75 + 0.3 * np.abs(outward)) * rng.uniform(0.8, 1.15, len(face))
    t = np.linspace(0, 1, 4)
    line = points[:, None] + size[:, None, None] * (
        _unit(heading)[:, None] * t[:, None] * 0.9 + bend[:, None] * (t**2 * 0.55)[:, None]
    )
    tangent = _unit(np.gradient(line, axis=1))
    across = np.repeat(_unit(np.cross([0, 0, 1.0], tangent[:, 1]) + 1e-6)[:, None], 4, 1)
    across = _unit(across) * (0.2 * np.where(upper, 1, 0.6)[:, None] * (1.15 - t)[None])[..., None]
    normal = np.repeat(_unit(heading)[:, None], 4, axis=1)
    shade = np.stack([rng.uniform(0, 1, len(face)), 0 * size + 0.5, size], axis=1)
    strands = Strands(face, weights, points, line - points[:, None], across, normal, tangent, shade)
    return strands.take(keep)
