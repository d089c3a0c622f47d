"""Region tables from shapes: the published neighbourhoods, closed forms on hand-made heads, the open head."""

from pathlib import Path

import numpy as np
import pytest

from portrait4d.geometry.head_regions import (
    EYELID_RADII,
    NEIGHBOURS,
    SMALL_FACE_SHARE,
    FaceGroups,
    compute_regions,
    compute_vertex_neighbours,
    find_outer_mouth,
)
from portrait4d.synthetic_heads.ellipsoid_head import build_ellipsoid_head
from tests.helpers.meshes import grid_mesh, uv_sphere
from tests.helpers.standin_head import standin_table

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "flame"
TABLE = REAL / "flame_addition_info_new_smallface.npy"
LAST_HEAD_VERTEX = 3930


def faces_of_graph(neighbours: list[set[int]]) -> np.ndarray:
    """Return the triangles (F, 3) of a graph, a < b < c."""
    return np.array(
        [
            (a, b, c)
            for a, around in enumerate(neighbours)
            for b in around
            if b > a
            for c in around & neighbours[b]
            if c > b
        ]
    )


@pytest.mark.skipif(not TABLE.is_file(), reason=f"the published FLAME tables are not at {REAL}")
def test_neighbourhoods_of_flame_are_the_published_ones() -> None:
    published = np.load(TABLE, allow_pickle=True).item()["vertices_region_idxs"]
    count = len(published)
    neighbours: list[set[int]] = [set() for _ in range(count)]
    for vertex, *around in published.tolist():
        for other in around:
            if other < count:
                neighbours[vertex].add(other)
                neighbours[other].add(vertex)
    faces = faces_of_graph(neighbours)
    assert len(faces) == 9976
    ours = compute_vertex_neighbours(faces, count)
    cut = [vertex for vertex, around in enumerate(neighbours) if len(around) > 9]
    assert cut == [175, 857, 3929, 3930, 4051, 4346, 4597, 4892]
    for vertex in range(count):
        if vertex not in cut:
            assert set(ours[vertex]) == set(published[vertex]), vertex
        assert set(ours[vertex, 1:]) - {count} <= neighbours[vertex] and ours[vertex, 0] == vertex


def test_neighbourhoods_are_ascending_padded_and_cut() -> None:
    ball, faces = uv_sphere(4, 12)
    table = compute_vertex_neighbours(np.concatenate([faces, faces]), len(ball) + 1)  # a face may be listed twice
    assert table.shape == (len(ball) + 1, NEIGHBOURS) and table.dtype == np.int64
    assert table[0].tolist() == list(range(10))  # a pole of 12 neighbours
    assert table[len(ball)].tolist() == [len(ball)] + [len(ball) + 1] * 9  # a vertex without faces
    for vertex in range(1, len(ball) - 1):
        wanted = sorted({int(v) for face in faces if vertex in face for v in face} - {vertex})
        row = [vertex, *wanted]
        assert table[vertex].tolist() == row + [len(ball) + 1] * (NEIGHBOURS - len(row))


def test_neighbourhoods_of_both_open_heads() -> None:
    ellipsoid = build_ellipsoid_head()
    assert (compute_vertex_neighbours(ellipsoid.faces, len(ellipsoid.template)) == ellipsoid.vertex_neighbours).all()
    faces = np.load(Path(__file__).parents[2] / "golden" / "standin.npz")["faces"]
    stored = standin_table("region_")["vertices_region_idxs"]
    assert (np.sort(compute_vertex_neighbours(faces, 5023), axis=1) == np.sort(stored, axis=1)).all()


def flat_head() -> tuple[np.ndarray, FaceGroups]:
    """A sheet of 81 x 81 vertices in [-4, 4]^2 at z = 0, then two balls of radius 0.5 at (+-2, 1, 0)."""
    sheet, _ = grid_mesh(80)
    sheet = sheet * 8 - [4, 4, 0]
    ball, _ = uv_sphere(8, 10)
    eyes = [ball * 0.5 + centre for centre in ([2, 1, 0], [-2, 1, 0])]
    first = len(sheet)
    face = np.nonzero((np.abs(sheet[:, 0]) < 3.05) & (np.abs(sheet[:, 1]) < 2.05))[0]
    lips = np.nonzero(np.hypot(sheet[:, 0] / 0.5, (sheet[:, 1] + 1.9) / 0.3) < 1)[0]
    left, right = np.arange(first, first + len(ball)), np.arange(first + len(ball), first + 2 * len(ball))
    return np.concatenate([sheet, *eyes]), FaceGroups(face[::-1], lips, left[::-1], right)


def test_regions_of_a_flat_head() -> None:
    vertices, groups = flat_head()
    regions = compute_regions(vertices, groups)
    head_count = 81 * 81
    assert regions["head"].tolist() == list(range(head_count))
    assert regions["eyeballs"].tolist() == list(range(head_count, len(vertices)))
    x, y, _ = vertices[:head_count].T
    near = np.hypot(np.abs(x) - 2, y - 1) < EYELID_RADII * 0.5
    assert 500 > near.sum() > 400 and regions["eyelids"].tolist() == np.nonzero(near)[0].tolist()
    in_face = np.zeros(head_count, bool)
    in_face[groups.face] = True
    oval = in_face & (np.hypot(x / (SMALL_FACE_SHARE * 3), y / (SMALL_FACE_SHARE * 2)) < 1)
    wanted = set(np.nonzero(oval | near)[0]) | set(groups.lips) | set(regions["eyeballs"])
    assert set(regions["small_face"]) == wanted and set(groups.lips) - set(np.nonzero(oval)[0])
    assert (np.diff(regions["small_face"]) > 0).all()


def test_eyeballs_are_left_then_right_and_of_one_size() -> None:
    vertices, groups = flat_head()
    swapped = FaceGroups(groups.face, groups.lips, groups.right_eyeball, groups.left_eyeball)
    half = len(groups.left_eyeball)
    assert compute_regions(vertices, swapped)["eyeballs"][:half].tolist() == sorted(groups.right_eyeball)
    with pytest.raises(ValueError, match=f"equally many vertices, got {half} left and 3 right"):
        compute_regions(vertices, FaceGroups(groups.face, groups.lips, groups.left_eyeball, np.arange(3)))


def mouth_ring(tube_angles: np.ndarray, segments: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A face as a surface of revolution about z: a flat annulus that rolls over a lip of radius 1 into the mouth.

    Row 0 is the face's outer border, row 1 where the lip begins, then one row for each tube angle: at angle t the lip's
    normal is (cos of the way to the axis) -sin t, and forward cos t.
    """
    radius = np.array([6, 4, *(4 - np.sin(tube_angles))])
    depth = np.array([0, 0, *(np.cos(tube_angles) - 1)])
    around = 2 * np.pi * np.arange(segments) / segments
    x, y = (f(around)[None] * radius[:, None] for f in (np.cos, np.sin))
    vertices = np.stack([x, y, np.broadcast_to(depth[:, None], x.shape)], axis=2).reshape(-1, 3)
    faces = []
    for row in range(len(radius) - 1):
        for s in range(segments):
            a, b = row * segments + s, row * segments + (s + 1) % segments
            faces += [(a, b, a + segments), (b, b + segments, a + segments)]
    return vertices, np.array(faces)


def test_the_mouth_side_of_the_lips() -> None:
    degrees = np.array([15, 30, 45, 60, 90, 105, 120, 150, 180])
    vertices, faces = mouth_ring(np.radians(degrees))
    rows = np.arange(len(vertices)) // 24
    lips = np.nonzero(rows >= 2)[0]
    outer = find_outer_mouth(vertices, faces, lips)
    # Forward parts of the normals: cos 60 = 0.5 and cos 90 = 0, on either side of the limit.
    assert set(rows[outer]) == {0, 1, 2, 3, 4, 5} and len(outer) == 6 * 24
    # The rim belongs to the mouth even where the lips group stops before it, but only if it adjoins them.
    assert (find_outer_mouth(vertices, faces, np.nonzero((rows >= 2) & (rows < 10))[0]) == outer).all()
    assert len(find_outer_mouth(vertices, faces, np.nonzero(rows == 4)[0])) == len(vertices)


def test_only_what_hangs_together_with_the_rim_is_cut() -> None:
    degrees = np.array([15, 30, 95, 60, 50, 60, 95, 120])  # a fold that is turned inwards, then the true inside
    vertices, faces = mouth_ring(np.radians(degrees))
    rows = np.arange(len(vertices)) // 24
    outer = find_outer_mouth(vertices, faces, np.nonzero(rows >= 2)[0])
    assert 4 in rows[outer] and not {8, 9} & set(rows[outer])


def test_heads_without_a_mouth_keep_all_vertices() -> None:
    head = build_ellipsoid_head()
    assert len(find_outer_mouth(head.template, head.faces, head.regions["lips"])) == len(head.template)
    vertices, faces = grid_mesh(10)  # a border far from the lips is no mouth
    assert len(find_outer_mouth(vertices, faces, np.array([60]))) == len(vertices)
