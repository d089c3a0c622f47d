"""Build the open head's template: 3931 vertices and 7830 triangles of one's own making, symmetric in x (millimetres).

Rings of lids, lips, ears and neck (`head_loops`) are joined by a fill of points whose spacing is fine at the nose and
coarse at the back; the triangles of the fill are the convex hull of the points' directions on a sphere.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, cKDTree

from portrait4d.synthetic_heads import head_loops as loops
from portrait4d.synthetic_heads.head_sculpt import CENTRE, NECK_ELEVATION, cast_domain, smoothstep

HEAD_VERTICES = 3931


@dataclass(frozen=True)
class Template:
    """The neutral head without eyeballs.

    Attributes:
        vertices: (3931, 3) millimetres.
        faces: (7830, 3) counter-clockwise seen from outside.
        mirror: (3931,) the vertex on the other side of each vertex.
        eyes: (2, 11, 32) vertex numbers of the left and right eye's rings, innermost first; 4 is the lid margin.
            Place 0 of both is the subject's left corner, 8 the top.
        mouth: (14, 32), innermost first; 6 is the seam of the lips.
        ears: (2, 12, 24), innermost first; 11 lies on the head.
        neck: (30,) the open edge, number 0 in front.
        poles: (5,) closing vertices of the eyes, the mouth and the ears.
    """

    vertices: np.ndarray
    faces: np.ndarray
    mirror: np.ndarray
    eyes: np.ndarray
    mouth: np.ndarray
    ears: np.ndarray
    neck: np.ndarray
    poles: np.ndarray


def build_template() -> Template:
    """Build the template; the same on every machine, in a few seconds."""
    eye, ear, mouth, neck = loops.build_eye(), loops.build_ear(), loops.build_mouth(), loops.build_neck()
    parts = [
        eye.rings,
        loops.mirror_ring(eye.rings, loops.SEGMENTS // 2),
        mouth.rings,
        ear.rings,
        loops.mirror_ring(ear.rings, 0),
    ]
    parts[2] = 0.5 * (mouth.rings + loops.mirror_ring(mouth.rings, loops.SEGMENTS // 2))
    starts = np.cumsum([0] + [part.shape[0] * part.shape[1] for part in parts])
    numbers = [s + np.arange(p.shape[0] * p.shape[1]).reshape(p.shape[:2]) for s, p in zip(starts, parts, strict=False)]
    neck_numbers = starts[-1] + np.arange(len(neck))
    poles = np.stack([eye.pole, loops.mirror(eye.pole), mouth.pole, ear.pole, loops.mirror(ear.pole)])
    fixed = np.concatenate([*(part.reshape(-1, 3) for part in parts), neck, poles])
    pole_numbers = neck_numbers[-1] + 1 + np.arange(5)
    borders = [n[-1] for n in numbers] + [neck_numbers]
    fill, fill_domain, fill_mirror = _Fill(fixed, borders, HEAD_VERTICES - len(fixed)).points()
    vertices = np.concatenate([fixed, fill])
    faces = [_strip(n, p) for n, p in zip(numbers, pole_numbers, strict=True)]
    faces.append(_hull_faces(vertices, fill_domain, borders, len(fixed)))
    mirror = _mirror_map(vertices, len(fixed), fill_mirror)
    return Template(
        vertices=vertices,
        faces=np.concatenate(faces),
        mirror=mirror,
        eyes=np.stack(numbers[:2]),
        mouth=numbers[2],
        ears=np.stack(numbers[3:]),
        neck=neck_numbers,
        poles=pole_numbers,
    )


def _strip(rings: np.ndarray, pole: int) -> np.ndarray:
    """Return the triangles between rings (R, S) of counter-clockwise order, innermost first, and of the pole's fan."""
    after = np.roll(rings, -1, axis=1)
    inner, outer = rings[:-1], rings[1:]
    inner_after, outer_after = after[:-1], after[1:]
    quads = np.stack([np.stack([inner, outer, outer_after], -1), np.stack([inner, outer_after, inner_after], -1)])
    fan = np.stack([np.full(rings.shape[1], pole), rings[0], after[0]], axis=-1)
    return np.concatenate([quads.reshape(-1, 3), fan])


def domain_directions(points: np.ndarray) -> np.ndarray:
    """Return unit directions (N, 3) of points of the upper head as seen from its centre."""
    directions = points - CENTRE
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _neck_directions(count: int) -> np.ndarray:
    azimuth, tilt = loops.angles(count), np.radians(NECK_ELEVATION)
    return np.stack([np.sin(azimuth) * np.cos(tilt), 0 * azimuth + np.sin(tilt), np.cos(azimuth) * np.cos(tilt)], 1)


def _hull_faces(vertices: np.ndarray, fill_domain: np.ndarray, borders: list[np.ndarray], fixed: int) -> np.ndarray:
    """Triangulate borders and fill on the sphere and leave out the insides of the borders."""
    domain, numbers, owner = [], [], []
    for place, border in enumerate(borders):
        neck = place == len(borders) - 1
        domain.append(_neck_directions(len(border)) if neck else domain_directions(vertices[border]))
        numbers.append(border)
        owner.append(np.full(len(border), place))
    domain.append(fill_domain)
    numbers.append(fixed + np.arange(len(fill_domain)))
    owner.append(-1 - np.arange(len(fill_domain)))
    points, index, group = np.concatenate(domain), np.concatenate(numbers), np.concatenate(owner)
    triangles = oriented_hull(np.round(points, 9))
    same = (group[triangles[:, 0]] == group[triangles[:, 1]]) & (group[triangles[:, 0]] == group[triangles[:, 2]])
    return index[triangles[~same]]


def oriented_hull(points: np.ndarray) -> np.ndarray:
    """Return the triangles of the convex hull of unit vectors (N, 3), outward, in a canonical order."""
    triangles = ConvexHull(points).simplices.astype(np.int64)
    a, b, c = (points[triangles[:, k]] for k in range(3))
    inward = (np.cross(b - a, c - a) * (a + b + c)).sum(1) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    first = triangles.argmin(axis=1)
    triangles = np.take_along_axis(triangles, (first[:, None] + np.arange(3)) % 3, axis=1)
    return triangles[np.lexsort(triangles.T[::-1])]


def _mirror_map(vertices: np.ndarray, fixed: int, fill_mirror: np.ndarray) -> np.ndarray:
    _, nearest = cKDTree(vertices[:fixed]).query(loops.mirror(vertices[:fixed]))
    return np.concatenate([nearest, fixed + fill_mirror])


def spacing(points: np.ndarray) -> np.ndarray:
    """Return the wanted distance in mm between fill points (N, 3) of the noseless surface."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    front = smoothstep(z, -40, 70)
    value = 9.5 + (4.9 - 9.5) * front
    nose = np.exp(-((np.maximum(x - 13, 0) / 7) ** 2)) * (1 - smoothstep(np.abs(y + 24), 26, 38)) * (z > 50)
    chin = np.exp(-((x / 30) ** 2) - ((y + 98) / 22) ** 2) * (z > 30)
    ear = np.exp(-(((y + 16) / 40) ** 2) - ((z + 8) / 30) ** 2) * (x > 40)
    value = value + (4.2 - value) * chin
    value = value + (6.0 - value) * ear
    return value + (2.0 - value) * nose


class _Fill:
    """Blue-noise points between the borders, mirrored, relaxed, of an exact count."""

    def __init__(self, fixed: np.ndarray, borders: list[np.ndarray], count: int) -> None:
        self._count = count
        self._border_domain = [
            domain_directions(fixed[border]) if place < len(borders) - 1 else _neck_directions(len(border))
            for place, border in enumerate(borders)
        ]
        edges = np.concatenate([_subdivide(domain) for domain in self._border_domain])
        self._edge_tree = cKDTree(edges)
        lengths = [np.linalg.norm(np.roll(d, -1, 0) - d, axis=1) for d in self._border_domain]
        self._edge_room = np.concatenate([np.repeat(length, 4) for length in lengths]) * 0.72

    def points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions (N, 3), directions (N, 3) and the mirror map (N,)."""
        middle, side = self._scatter()
        for round_number in range(8):
            middle, side = self._relax(middle, side, final=round_number == 7)
        domain = np.concatenate([middle, side, loops.mirror(side)])
        m, s = len(middle), len(side)
        mirror = np.concatenate([np.arange(m), m + s + np.arange(s), m + np.arange(s)])
        half = cast_domain(np.concatenate([middle, side]))
        half[:m, 0] = 0
        return np.concatenate([half, loops.mirror(half[m:])]), domain, mirror

    def _scatter(self) -> tuple[np.ndarray, np.ndarray]:
        """Throw darts with a spacing factor found by bisection, then drop the last ones beyond the count."""
        candidates = _candidates(26000)
        candidates = candidates[self._free(candidates)]
        surface = cast_domain(candidates, nose=False)
        wanted = spacing(surface)
        near_tree = cKDTree(surface)
        neighbours = near_tree.query_ball_point(surface, 1.25 * wanted)
        middle = candidates[:, 0] == 0
        low, high, best = 0.6, 1.25, None
        for _ in range(9):
            factor = 0.5 * (low + high)
            chosen = _throw(surface, wanted * factor, neighbours, middle)
            total = middle[chosen].sum() + 2 * (~middle[chosen]).sum()
            if total >= self._count:
                low, best = factor, chosen
                if total < self._count + 12:
                    break
            else:
                high = factor
        middle_chosen, side_chosen = candidates[best[middle[best]]], candidates[best[~middle[best]]]
        if (len(middle_chosen) - self._count) % 2:
            middle_chosen = np.delete(middle_chosen, len(middle_chosen) // 2, axis=0)
        return middle_chosen, side_chosen[: (self._count - len(middle_chosen)) // 2]

    def _free(self, directions: np.ndarray) -> np.ndarray:
        """Return which directions lie outside every border, with room around the border's edges."""
        distance, place = self._edge_tree.query(directions)
        free = distance > self._edge_room[place]
        for domain in self._border_domain:
            free &= ~_inside(directions, domain)
        return free

    def _relax(self, middle: np.ndarray, side: np.ndarray, final: bool) -> tuple[np.ndarray, np.ndarray]:
        m, s = len(middle), len(side)
        everything = np.concatenate([middle, side, loops.mirror(side), *self._border_domain])
        triangles = oriented_hull(np.round(everything, 9))
        edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        weight = 1 / spacing(cast_domain(everything, nose=False))
        total = np.zeros_like(everything)
        amount = np.zeros(len(everything))
        for a, b in ((0, 1), (1, 0)):
            np.add.at(total, edges[:, a], everything[edges[:, b]] * weight[edges[:, b], None])
            np.add.at(amount, edges[:, a], weight[edges[:, b]])
        moved = 0.5 * everything + 0.5 * total / amount[:, None]
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        moved[:m, 0] = 0
        moved[:m] /= np.linalg.norm(moved[:m], axis=1, keepdims=True)
        moved = np.round(moved[: m + s], 9)
        keep = ~self._free(moved) | (np.arange(m + s) >= m) & (moved[:, 0] < 0.006)
        moved[keep] = everything[: m + s][keep]
        return moved[:m], moved[m:]


def _candidates(count: int) -> np.ndarray:
    """Return directions of the left half in a fixed shuffled order, midline ones first."""
    line = np.linspace(-np.pi, np.pi, 1400, endpoint=False)
    middle = np.stack([0 * line, np.sin(line), np.cos(line)], axis=1)
    n = np.arange(count)
    golden, silver = (n * 0.7548776662466927) % 1, (n * 0.5698402909980532) % 1
    y = 2 * golden - 1
    azimuth = np.pi * silver
    level = np.sqrt(1 - y * y)
    side = np.stack([level * np.sin(azimuth), y, level * np.cos(azimuth)], axis=1)
    # the nose wants more candidates than an even spread gives
    z = np.linspace(0.97, 1, 4000)[(np.arange(4000) * 1567) % 4000]
    turn = np.pi * (np.arange(4000) * 0.618033988749895 % 1)
    level = np.sqrt(1 - z * z)
    nose = np.stack([level * np.sin(turn), level * np.cos(turn), z], axis=1) - [0, 0.1, 0]
    nose /= np.linalg.norm(nose, axis=1, keepdims=True)
    side = np.concatenate([side, nose])
    side = side[side[:, 0] > 0.012]
    order = np.argsort((np.arange(len(side)) * 7919) % 104729, kind="stable")
    return np.round(np.concatenate([middle, side[order]]), 9)


def _throw(points: np.ndarray, room: np.ndarray, neighbours: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Take points in order unless an earlier one, or the point's own mirror image, is nearer than `room`."""
    blocked = ~middle & (2 * points[:, 0] < 0.8 * room)
    chosen = []
    for number in range(len(points)):
        if blocked[number]:
            continue
        chosen.append(number)
        near = np.asarray(neighbours[number])
        gap = np.sqrt(((points[near] - points[number]) ** 2).sum(1))
        blocked[near[gap < 0.5 * (room[number] + room[near])]] = True
    return np.array(chosen)


def _subdivide(ring: np.ndarray) -> np.ndarray:
    after = np.roll(ring, -1, axis=0)
    return np.stack([ring + t * (after - ring) for t in (0.0, 0.25, 0.5, 0.75)], axis=1).reshape(-1, 3)


def _inside(directions: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Return which directions lie in a border, by crossings in the plane that touches the sphere at its middle."""
    axis = ring.mean(axis=0)
    axis /= np.linalg.norm(axis)
    side = np.cross([0.0, 1.0, 0.0] if abs(axis[1]) < 0.9 else [1.0, 0.0, 0.0], axis)
    side /= np.linalg.norm(side)
    frame = np.stack([side, np.cross(axis, side)], axis=1)
    depth = directions @ axis
    p = directions @ frame / np.where(depth > 0.05, depth, 1)[:, None]
    q = ring @ frame / (ring @ axis)[:, None]
    r = np.roll(q, -1, axis=0)
    above = (q[None, :, 1] > p[:, None, 1]) != (r[None, :, 1] > p[:, None, 1])
    slope = (r[:, 0] - q[:, 0]) / np.where(r[:, 1] == q[:, 1], 1, r[:, 1] - q[:, 1])
    crossing = above & (p[:, None, 0] < q[:, 0] + slope * (p[:, None, 1] - q[:, 1]))
    return (crossing.sum(axis=1) % 2 == 1) & (depth > 0.05)
