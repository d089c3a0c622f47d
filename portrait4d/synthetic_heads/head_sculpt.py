"""Sculpt the neutral open head as a signed distance field of blended primitives, and cast rays on it.

Millimetres; +y up, +z front, the subject's left is +x; the origin lies at the eyes' height in the head's middle.
Crown y = 112, chin y = -112, neck cut y = -196. Every form is symmetric in x. All formulas are ours.
"""

import numpy as np

EYE_CENTRE = np.array([31.5, 0.0, 65.0])
"""Centre of the left eyeball; the right one is its mirror image."""
EYE_RADIUS = 12.0
CENTRE = np.array([0.0, -15.0, -5.0])
"""Where the rays of the upper head start."""
NECK_BASE = np.array([0.0, -196.0, -32.0])
"""Middle of the neck's cut."""

_ELLIPSOIDS = (  # centre, radii, blend
    ((0, 31, -9), (75, 81, 90), 0.0),
    ((0, 44, 22), (60, 50, 62), 20.0),
    ((0, -30, 22), (61, 76, 62), 22.0),
    ((0, -97, 75), (20, 14.5, 16.5), 14.0),
    ((42, -25, 55), (20, 16, 20), 19.0),
    ((37, -50, 51), (23, 27, 21), 24.0),
    ((0, -66, 72), (31, 27, 25), 18.0),
    ((0, -104, 34), (26, 14, 34), 22.0),
)
_CONES = (  # from, to, radius at each end, blend
    ((44.0, -57, 8), (13, -97, 70), 15, 13.5, 26.0),
    ((53, -20, 2), (44.5, -58, 8), 13, 14, 20.0),
    ((50, -18, 50), (64, -10, 5), 8, 7, 18.0),
    ((8, 17, 80.5), (30, 20, 75.5), 8.0, 8.2, 13.0),
    ((30, 20, 75.5), (50, 11, 58), 8.2, 8.2, 11.0),
    ((0, -95, -22), (0, -240, -38), 47, 54, 26.0),
    ((12, -175, 8), (50, -60, -17), 9, 12, 14.0),
)
_NOSE_ELLIPSOIDS = (((0, -34, 103), (9.0, 8.8, 10.5), 7.0), ((11.7, -39, 92.5), (6.0, 6.5, 8.5), 5.0))
_CARVED_ELLIPSOIDS = (
    ((30, -1.5, 89.5), (18, 12, 14), 14.0),
    ((17, -1, 90), (6.5, 8, 11), 9.0),
    ((0, -82.5, 98), (16, 3.5, 5), 7.0),
)
_CARVED_CONES = (
    ((0, -50, 101), (0, -59, 100.5), 1.8, 2.4, 3.0),
    ((21, -44, 92), (31, -66, 86), 0.6, 0.6, 7.0),
)
_NOSTRIL = ((6.4, -46, 98), (3.5, 4.2, 5.2), 1.5)
_WING_CREASE = ((19.5, -38, 92), (20, -45, 89), 1.0, 1.5, 4.0)


def smooth_min(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Return the polynomial smooth minimum: min(a, b) - h^2 blend / 4, h = max(0, 1 - |a - b| / blend)."""
    if blend == 0:
        return np.minimum(a, b)
    h = np.maximum(1 - np.abs(a - b) / blend, 0)
    return np.minimum(a, b) - 0.25 * blend * h * h


def smoothstep(x: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Return the cubic step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def ellipsoid_distance(points: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the usual approximate distance (N,) of points (N, 3) to an ellipsoid: k (k - 1) / |p / r^2|."""
    scaled = (points - centre) / radii
    k = np.sqrt((scaled * scaled).sum(-1))
    slope = np.sqrt(((scaled / radii) ** 2).sum(-1))
    return k * (k - 1) / np.maximum(slope, 1e-9)


def cone_distance(points: np.ndarray, start: np.ndarray, end: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """Return the distance (N,) of points (N, 3) to a segment, less a radius that runs from radii[0] to radii[1]."""
    axis = np.asarray(end, float) - start
    t = np.clip((points - start) @ axis / (axis @ axis), 0, 1)
    offset = points - start - t[:, None] * axis
    return np.sqrt((offset * offset).sum(-1)) - radii[0] - t * (radii[1] - radii[0])


def head_distance(points: np.ndarray, nose: bool = True) -> np.ndarray:
    """Return the signed distance (N,), negative inside, of points (N, 3), with or without the nose."""
    p = points * np.array([1.0, 1.0, 1.0])
    p[:, 0] = np.abs(p[:, 0])
    distance = np.full(len(p), 1e3)
    for centre, radii, blend in _ELLIPSOIDS:
        distance = smooth_min(distance, ellipsoid_distance(p, np.array(centre), np.array(radii)), blend)
    for start, end, r0, r1, blend in _CONES:
        distance = smooth_min(distance, cone_distance(p, np.array(start), np.array(end), (r0, r1)), blend)
    for centre, radii, blend in _CARVED_ELLIPSOIDS:
        distance = -smooth_min(-distance, ellipsoid_distance(p, np.array(centre), np.array(radii)), blend)
    for start, end, r0, r1, blend in _CARVED_CONES:
        distance = -smooth_min(-distance, cone_distance(p, np.array(start), np.array(end), (r0, r1)), blend)
    if nose:
        distance = _add_nose(distance, p)
    ball = np.sqrt(((p - EYE_CENTRE) ** 2).sum(-1)) - EYE_RADIUS - 1.9
    return smooth_min(distance, ball, 4.0)


def _add_nose(distance: np.ndarray, p: np.ndarray) -> np.ndarray:
    nose = cone_distance(p, np.array([0, 7, 79]), np.array([0, -30, 97.2]), (8.2, 8.6))
    for centre, radii, blend in _NOSE_ELLIPSOIDS:
        nose = smooth_min(nose, ellipsoid_distance(p, np.array(centre), np.array(radii)), blend)
    columella = cone_distance(p, np.array([0, -43.5, 92]), np.array([0, -41.5, 104]), (4.2, 4.2))
    nose = smooth_min(nose, columella, 4.0)
    distance = smooth_min(distance, nose, 9.5)
    centre, radii, blend = _NOSTRIL
    distance = -smooth_min(-distance, ellipsoid_distance(p, np.array(centre), np.array(radii)), blend)
    start, end, r0, r1, blend = _WING_CREASE
    return -smooth_min(-distance, cone_distance(p, np.array(start), np.array(end), (r0, r1)), blend)


def cast_inward(origins: np.ndarray, directions: np.ndarray, nose: bool = True, start: float = 240.0) -> np.ndarray:
    """Return the outermost surface points (N, 3) on rays from `origins` (N, 3) along unit `directions` (N, 3).

    Rays are followed inward from `start` millimetres; one that misses ends at its origin.
    """
    travel = np.full(len(origins), start)
    active = np.arange(len(origins))
    for _ in range(110):
        points = origins[active] + travel[active, None] * directions[active]
        distance = head_distance(points, nose)
        travel[active] = np.maximum(travel[active] - 0.75 * distance, 0)
        active = active[(distance > 2e-4) & (travel[active] > 0)]
        if len(active) == 0:
            break
    return origins + travel[:, None] * directions


def cast_front(xy: np.ndarray, nose: bool = True) -> np.ndarray:
    """Return the front surface points (N, 3) at positions (N, 2), along -z."""
    origins = np.concatenate([xy, np.full((len(xy), 1), -60.0)], axis=1)
    return cast_inward(origins, np.tile([0.0, 0.0, 1.0], (len(xy), 1)), nose)


def domain_rays(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return origins and unit directions (N, 3) of the rays that belong to points of the template's sphere (N, 3).

    Above the jaw they start at CENTRE. Below it the origin slides down to NECK_BASE while the ray becomes level.
    """
    horizontal = np.hypot(directions[:, 0], directions[:, 2])
    elevation = np.degrees(np.arctan2(directions[:, 1], horizontal))
    cos_azimuth = directions[:, 2] / np.maximum(horizontal, 1e-9)
    knee = -34 - 26 * smoothstep(cos_azimuth, -1.0, 1.0)
    t = np.clip((knee - elevation) / (knee - NECK_ELEVATION), 0, 1.3)
    origins = CENTRE + t[:, None] * (NECK_BASE - CENTRE)
    tilt = np.radians(np.where(t > 0, knee * (1 - t), elevation))
    level = directions[:, [0, 2]] / np.maximum(horizontal, 1e-9)[:, None]
    rays = np.stack([level[:, 0] * np.cos(tilt), np.sin(tilt), level[:, 1] * np.cos(tilt)], axis=1)
    return origins, rays


NECK_ELEVATION = -80.0
"""Elevation in degrees of the neck's cut on the template's sphere."""


def cast_domain(directions: np.ndarray, nose: bool = True) -> np.ndarray:
    """Return the surface points (N, 3) of the template's sphere (N, 3); the nose is reached by a fan from inside it."""
    origins, rays = domain_rays(directions)
    points = cast_inward(origins, rays, nose=False)
    if not nose:
        return points
    near = (np.abs(points[:, 0]) < 30) & (np.abs(points[:, 1] + 22) < 34) & (points[:, 2] > 60)
    fan_origin = np.array([0.0, -27.0, 60.0])
    fan = points[near] - fan_origin
    fan /= np.linalg.norm(fan, axis=1, keepdims=True)
    points[near] = cast_inward(np.tile(fan_origin, (near.sum(), 1)), fan, nose=True, start=120.0)
    return points
