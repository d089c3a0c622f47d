"""Things around the open head that are no part of the head model: shoulders, collar, teeth, tongue, glasses (mm).

Each is a small mesh in the neutral head's coordinates that moves rigidly with the body, the head or the jaw.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from portrait4d.synthetic_heads.head_sculpt import cone_distance, ellipsoid_distance, smooth_min, smoothstep

TORSO_CENTRE = np.array([0.0, -290.0, -38.0])
_ROWS, _COLUMNS = 44, 72


@dataclass(frozen=True)
class Body:
    """A mesh of vertices (V, 3) in mm and faces (T, 3); `follows` is "body", "head" or "jaw"."""

    vertices: np.ndarray
    faces: np.ndarray
    follows: str


def torso_distance(points: np.ndarray) -> np.ndarray:
    """Return the signed distance (N,) of points (N, 3) to neck, shoulders and chest."""
    p = np.stack([np.abs(points[:, 0]), points[:, 1], points[:, 2]], axis=1)
    distance = ellipsoid_distance(p, np.array([0, -310, -16.0]), np.array([150, 135, 92.0]))
    for start, end, r0, r1, blend in (
        ((20, -182, -44), (162, -222, -42), 34, 44, 40.0),
        ((28, -120, -48), (120, -196, -50), 14, 30, 36.0),
        ((0, -95, -22), (0, -240, -38), 46.8, 53.8, 26.0),
        ((10, -190, 14), (120, -206, 8), 8, 9, 26.0),
    ):
        cone = cone_distance(p, np.array(start, float), np.array(end, float), (r0, r1))
        distance = smooth_min(distance, cone, blend)
    return distance


@cache
def torso_grid() -> np.ndarray:
    """Return the torso's surface (44, 72, 3): rows from below to the neck's top, columns of azimuth from the front."""
    elevation = np.radians(-35 + 121 * np.linspace(0, 1, _ROWS) ** 0.9)
    azimuth = 2 * np.pi * np.arange(_COLUMNS) / _COLUMNS
    e, a = np.meshgrid(elevation, azimuth, indexing="ij")
    rays = np.stack([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], axis=-1).reshape(-1, 3)
    travel = np.full(len(rays), 320.0)
    for _ in range(90):
        distance = torso_distance(TORSO_CENTRE + travel[:, None] * rays)
        travel = np.maximum(travel - 0.7 * distance, 0)
    return (TORSO_CENTRE + travel[:, None] * rays).reshape(_ROWS, _COLUMNS, 3)


def build_torso() -> Body:
    """Build neck, shoulders and chest."""
    grid = torso_grid()
    return Body(grid.reshape(-1, 3), grid_faces(_ROWS, _COLUMNS, closed=True), "body")


def neckline_radius(azimuth: np.ndarray, cut: str) -> np.ndarray:
    """Return the distance in mm from the neck's axis to the edge of the cloth; azimuth 0 is the front."""
    front = np.maximum(np.cos(azimuth), 0)
    if cut == "v":
        return 66 + 70 * front**6
    if cut == "scoop":
        return 76 + 40 * front**2
    if cut == "high":
        return 56 + 0 * azimuth
    return 64 + 8 * front


def neck_axis_coordinates(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return azimuth and distance (N,) of points (N, 3) about the slanted axis of the neck."""
    axis_z = -24 - 0.09 * (-80 - points[..., 1])
    return np.arctan2(points[..., 0], points[..., 2] - axis_z), np.hypot(points[..., 0], points[..., 2] - axis_z)


def build_collar(cut: str) -> Body:
    """Build the hem that runs along the edge of the cloth."""
    grid = torso_grid()
    azimuth, distance = neck_axis_coordinates(grid)
    line = []
    for column in range(_COLUMNS):
        wanted = neckline_radius(azimuth[:, column].mean(), cut)
        inward = np.minimum.accumulate(distance[:, column])[::-1]
        row = np.interp(wanted, inward, np.arange(_ROWS)[::-1])
        low = min(int(row), _ROWS - 2)
        line.append(grid[low, column] + (row - low) * (grid[low + 1, column] - grid[low, column]))
    line = np.array(line)
    for _ in range(3):
        line = 0.5 * line + 0.25 * (np.roll(line, 1, 0) + np.roll(line, -1, 0))
    return tube(line, 3.4 if cut != "high" else 6.0, "body", closed=True)


def grid_faces(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Return triangles (T, 3) of a grid of vertices whose columns run counter-clockwise and rows upwards."""
    number = np.arange(rows * columns).reshape(rows, columns)
    after = np.roll(number, -1, axis=1)
    if not closed:
        number, after = number[:, :-1], after[:, :-1]
    a, b, c, d = number[:-1], after[:-1], after[1:], number[1:]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


def tube(line: np.ndarray, radius: float, follows: str, closed: bool, segments: int = 8) -> Body:
    """Return a tube about a line (N, 3)."""
    tangent = (np.roll(line, -1, 0) - np.roll(line, 1, 0)) if closed else np.gradient(line, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up = np.where(np.abs(tangent[:, 1:2]) < 0.9, [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    side = np.cross(up, tangent)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(tangent, side)
    turn = 2 * np.pi * np.arange(segments) / segments
    ring = np.cos(turn)[None, :, None] * side[:, None] + np.sin(turn)[None, :, None] * other[:, None]
    vertices = (line[:, None] + radius * ring).reshape(-1, 3)
    rows = len(line)
    faces = grid_faces(rows, segments, closed=True)
    if closed:
        last = (rows - 1) * segments + np.arange(segments)
        bridge = np.stack([last, np.arange(segments)])
        after = np.roll(bridge, -1, axis=1)
        faces = np.concatenate(
            [faces, np.stack([bridge[0], after[0], after[1]], -1), np.stack([bridge[0], after[1], bridge[1]], -1)]
        )
    return Body(vertices, faces, follows)


def build_teeth(upper: bool) -> Body:
    """Build a row of teeth as an arched band with a bulge for each tooth."""
    columns, rows = 97, 5
    angle = np.linspace(-1.35, 1.35, columns)
    v = np.linspace(0, 1, rows)
    pitch = 7.6 if upper else 6.0
    along = 24.0 * angle
    tooth = np.abs(np.cos(np.pi * along / pitch)) if not upper else np.abs(np.sin(np.pi * along / pitch))
    bulge = 1.2 * tooth**0.5
    root, edge = (-59.5, -69.9) if upper else (-79.5, -71.2)
    depth = 87.5 if upper else 85.0
    shorten = 0.9 * (1 - tooth**0.35) + 0.6 * (np.abs(along / pitch) > 1) * upper
    y = root + (edge - root) * v[:, None] + np.sign(root - edge) * shorten * v[:, None] ** 3
    reach = bulge[None] * np.sin(np.pi * np.clip(v[:, None] * 0.8 + 0.1, 0, 1)) - 1.0 * (1 - v[:, None]) ** 2
    x = (21.5 + reach) * np.sin(angle)
    z = depth - 34 * (1 - np.cos(angle)) + reach * np.cos(angle)
    vertices = np.stack([x, np.broadcast_to(y, x.shape), z], axis=-1).reshape(-1, 3)
    return Body(vertices, grid_faces(rows, columns, closed=False), "head" if upper else "jaw")


def build_tongue() -> Body:
    """Build the tongue."""
    rows, columns = 12, 24
    polar, around = np.linspace(0.05, np.pi - 0.05, rows), 2 * np.pi * np.arange(columns) / columns
    p, a = np.meshgrid(polar, around, indexing="ij")
    unit = np.stack([np.sin(p) * np.sin(a), -np.cos(p), np.sin(p) * np.cos(a)], axis=-1).reshape(-1, 3)
    groove = -1.6 * np.exp(-((unit[:, 0] / 0.2) ** 2)) * (unit[:, 1] > 0)
    vertices = unit * [16.5, 6.5, 22] + [0, -79.5, 62] + np.stack([0 * groove, groove, 0 * groove], 1)
    return Body(vertices, grid_faces(rows, columns, closed=True), "jaw")


def build_glasses(shape: str) -> list[Body]:
    """Build the frame of a pair of glasses: "round", "square" or "wide"."""
    half_width, half_height, power = {"round": (21, 19, 2.0), "square": (23, 16.5, 4.0), "wide": (24.5, 17.5, 2.8)}[
        shape
    ]
    turn = 2 * np.pi * np.arange(40) / 40
    c, s = np.cos(turn), np.sin(turn)
    parts = []
    for side in (1.0, -1.0):
        x = half_width * np.sign(c) * np.abs(c) ** (2 / power)
        y = half_height * np.sign(s) * np.abs(s) ** (2 / power)
        middle = 32.5
        z = 95.0 - 0.09 * np.maximum(middle + x - 20, 0) - 0.0035 * (middle + x) ** 2
        parts.append(tube(np.stack([side * (middle + x), y - 3.0, z], axis=1), 1.35, "head", closed=True))
        t = np.linspace(0, 1, 14)
        start = np.array(
            [middle + half_width, 3.0, 95 - 0.09 * (middle + half_width - 20) - 0.0035 * (middle + half_width) ** 2]
        )
        end = np.array([77.5, 2.0, -14.0])
        arm = start + (end - start) * t[:, None]
        arm[:, 0] = start[0] + (end[0] - start[0]) * t**0.9
        arm[:, 1] += 1.0 * np.sin(np.pi * t) - 8 * smoothstep(t, 0.85, 1.0)
        parts.append(tube(arm * [side, 1, 1], 1.25, "head", closed=False))
    t = np.linspace(-1, 1, 11)
    gap = 32.5 - half_width
    bridge = np.stack([gap * t, 1.5 + 2.5 * (1 - t**2), 94.8 + 2.6 * (1 - t**2)], axis=1)
    parts.append(tube(bridge, 1.35, "head", closed=False))
    return parts
