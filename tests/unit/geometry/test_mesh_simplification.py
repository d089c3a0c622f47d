"""Edge collapse: what it must keep (boundaries, components, sides, planes), ties to the fine mesh, limits, errors."""

import numpy as np
import pytest

from portrait4d.geometry.mesh_simplification import CoarseMesh, simplify_mesh
from tests.golden.standin import standin_arrays
from tests.helpers.meshes import boundary_edges, component_sizes, grid_mesh, half_edges, mesh_area, uv_sphere


def coarse_vertices(mesh: CoarseMesh, vertices: np.ndarray) -> np.ndarray:
    return (mesh.barycentrics[..., None].astype(np.float64) * vertices[mesh.indices]).sum(axis=1)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A wavy sheet with a hole (48 x 48 squares), and a ball of 20 x 24 squares beside it."""
    sheet, sheet_faces = grid_mesh(48)
    sheet[:, 2] = 0.05 * np.sin(5 * sheet[:, 0]) * np.cos(4 * sheet[:, 1])
    centres = sheet[sheet_faces].mean(axis=1)
    sheet_faces = sheet_faces[np.hypot(centres[:, 0] - 0.5, centres[:, 1] - 0.4) > 0.15]
    ball, ball_faces = uv_sphere(20, 24)
    return np.concatenate([sheet, ball * 0.2 + [0.5, 0.5, 2]]), np.concatenate([sheet_faces, ball_faces + len(sheet)])


def test_boundaries_components_and_sides_are_kept() -> None:
    vertices, faces = scene()
    mesh = simplify_mesh(vertices, faces, 0.2)
    assert 0.19 * len(faces) < len(mesh.faces) <= round(0.2 * len(faces))
    placed = coarse_vertices(mesh, vertices)
    directed = half_edges(mesh.faces)
    assert len(np.unique(directed, axis=0)) == len(directed)  # a manifold, turned one way
    assert len(component_sizes(faces)) == len(component_sizes(mesh.faces)) == 2
    fine = mesh.indices[np.arange(len(placed)), mesh.barycentrics.argmax(axis=1)]
    rim = boundary_edges(mesh.faces)
    assert len(rim) > 4 * 48 + 40  # the sheet's border and the hole's
    assert {tuple(edge) for edge in boundary_edges(faces)} == {tuple(edge) for edge in fine[rim]}
    assert np.abs(placed[rim] - vertices[fine[rim]]).max() < 1e-6
    # The same surface: V - E + F of a sheet with a hole (0) and of a ball (2).
    edges = len(np.unique(np.sort(directed, axis=1), axis=0))
    assert len(placed) - edges + len(mesh.faces) == 2
    on_ball = placed[mesh.faces][:, :, 2].min(axis=1) > 1
    corners = placed[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outwards = ((corners.mean(axis=1) - [0.5, 0.5, 2]) * normals).sum(axis=1)
    assert on_ball.any() and (outwards[on_ball] > 0).all()
    assert (normals[~on_ball, 2] > 0).all()


def test_it_stays_close_and_even() -> None:
    vertices, faces = scene()
    mesh = simplify_mesh(vertices, faces, 0.2)
    placed = coarse_vertices(mesh, vertices)
    ball = placed[placed[:, 2] > 1]
    radius = np.linalg.norm(ball - [0.5, 0.5, 2], axis=1)
    assert len(ball) > 30 and np.abs(radius - 0.2).max() < 0.01
    sheet = placed[placed[:, 2] < 1]
    assert np.abs(sheet[:, 2] - 0.05 * np.sin(5 * sheet[:, 0]) * np.cos(4 * sheet[:, 1])).max() < 2e-3
    assert mesh_area(placed, mesh.faces).max() < 0.02  # of a sheet of area 1


def test_a_plane_stays_a_plane_and_keeps_its_area() -> None:
    vertices, faces = grid_mesh(30)
    mesh = simplify_mesh(vertices, faces, 0.15)
    placed = coarse_vertices(mesh, vertices)
    assert len(mesh.faces) <= 0.15 * len(faces)
    assert np.abs(placed[:, 2]).max() < 1e-9
    areas = mesh_area(placed, mesh.faces)
    assert areas.sum() == pytest.approx(1, abs=1e-5) and areas.min() > 0
    turned = vertices @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] + [3, -2, 1]
    oblique = simplify_mesh(turned, faces, 0.15)
    placed = coarse_vertices(oblique, turned)
    normal = np.cross(turned[1] - turned[0], turned[31] - turned[0])
    assert np.abs((placed - turned[0]) @ normal).max() < 1e-6 * np.linalg.norm(normal)


def test_coarse_vertices_follow_the_fine_mesh() -> None:
    vertices, faces = scene()
    mesh = simplify_mesh(vertices, faces, 0.1)
    assert mesh.indices.dtype == mesh.faces.dtype == np.int64 and mesh.barycentrics.dtype == np.float32
    assert np.abs(mesh.barycentrics.sum(axis=1) - 1).max() < 1e-6
    known = {tuple(face) for face in faces.tolist()}
    assert all(tuple(row) in known for row in mesh.indices.tolist())
    moved = vertices @ np.array([[1, 0.2, 0], [0, 0.9, 0.1], [0.3, 0, 1.1]]) + [1, 2, 3]
    expected = coarse_vertices(mesh, vertices) @ np.array([[1, 0.2, 0], [0, 0.9, 0.1], [0.3, 0, 1.1]]) + [1, 2, 3]
    assert np.abs(coarse_vertices(mesh, moved) - expected).max() < 1e-6


def test_shells_that_almost_touch_do_not_mix() -> None:
    ball, faces = uv_sphere(24, 32)
    # Vertices of a simplified ball stand off its faces by more than the distance of the two shells.
    vertices, faces = np.concatenate([ball, ball * 1.002]), np.concatenate([faces, faces + len(ball)])
    mesh = simplify_mesh(vertices, faces, 0.1)
    outer = mesh.indices >= len(ball)
    assert (outer.all(axis=1) | ~outer.any(axis=1)).all()
    side = outer[:, 0][mesh.faces]
    assert (side.all(axis=1) | ~side.any(axis=1)).all() and 0 < side.all(axis=1).sum() < len(side)


def test_a_ring_stays_a_ring() -> None:
    around, section = 40, 5
    u, v = np.meshgrid(2 * np.pi * np.arange(around) / around, 2 * np.pi * np.arange(section) / section, indexing="ij")
    radius = 1 + 0.05 * np.cos(v)
    ring = np.stack([radius * np.cos(u), radius * np.sin(u), 0.05 * np.sin(v)], axis=2).reshape(-1, 3)
    a, b = (i.ravel() for i in np.meshgrid(np.arange(around), np.arange(section), indexing="ij"))
    after, beside = (a + 1) % around, (b + 1) % section
    corners = [a * section + b, after * section + b, after * section + beside, a * section + beside]
    faces = np.concatenate([np.stack([corners[k] for k in face], axis=1) for face in ((0, 1, 2), (0, 2, 3))])
    mesh = simplify_mesh(ring, faces, 0.01)  # much less than a ring needs
    directed = half_edges(mesh.faces)
    assert len(np.unique(directed, axis=0)) == len(directed) and not len(boundary_edges(mesh.faces))
    edges = len(directed) // 2
    assert len(mesh.indices) - edges + len(mesh.faces) == 0 and len(mesh.faces) < 0.5 * len(faces)


def test_types_and_units_change_nothing() -> None:
    vertices, faces = scene()
    vertices = vertices.astype(np.float32)
    first = simplify_mesh(vertices, faces, 0.15)
    for other in (
        simplify_mesh(vertices.astype(np.float64), faces.astype(np.uint32), 0.15),
        simplify_mesh(vertices * np.float32(0.125), faces.astype(np.int32), 0.15),
    ):
        assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_share_one_gives_the_mesh_itself() -> None:
    vertices, faces = grid_mesh(4)
    mesh = simplify_mesh(np.concatenate([vertices, [[9, 9, 9]]]), faces, 1)  # a vertex without faces is left out
    assert np.array_equal(mesh.faces, faces)
    assert np.abs(coarse_vertices(mesh, vertices) - vertices).max() < 1e-6


def test_it_stops_where_nothing_may_collapse() -> None:
    tetrahedron = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    mesh = simplify_mesh(tetrahedron, faces, 0.1)
    assert np.array_equal(mesh.faces, faces)
    ball, ball_faces = uv_sphere(8, 10)
    left = simplify_mesh(ball, ball_faces, 1e-3)
    assert 4 <= len(left.faces) < 20 and not len(boundary_edges(left.faces))
    strip = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    assert len(simplify_mesh(strip, np.array([[0, 1, 2], [1, 3, 2]]), 0.5).faces) == 2  # nothing but boundary


def test_an_edge_of_three_faces_is_kept() -> None:
    vertices, faces = grid_mesh(10)
    fin = np.concatenate([vertices, [[0.55, 0.5, 0.3]]])
    edge = [5 * 11 + 5, 5 * 11 + 6]
    mesh = simplify_mesh(fin, np.concatenate([faces, [[*edge, len(vertices)]]]), 0.3)
    placed = coarse_vertices(mesh, fin)
    assert all(np.abs(placed - fin[v]).max(axis=1).min() < 1e-6 for v in (*edge, len(vertices)))


def test_the_stand_in_head() -> None:
    arrays = standin_arrays()
    vertices, faces = arrays["v_template"].astype(np.float32), arrays["f"].astype(np.int64)
    mesh = simplify_mesh(vertices, faces)
    assert 0.135 < len(mesh.faces) / len(faces) <= 0.14
    sizes = component_sizes(mesh.faces)
    assert len(sizes) == 3 and sizes[0] > 20  # no eyeball shrinks to a few triangles
    assert len(boundary_edges(mesh.faces)) == len(boundary_edges(faces)) == 54
    areas = mesh_area(coarse_vertices(mesh, vertices * 3.0), mesh.faces)
    assert areas.max() < 5e-3  # `deformation.md` section 1: all count as small triangles


@pytest.mark.parametrize(
    ("vertices", "faces", "share", "message"),
    [
        (np.zeros((3, 2)), np.zeros((1, 3), int), 0.5, "vertices: expected finite coordinates"),
        (np.full((3, 3), np.nan), np.zeros((1, 3), int), 0.5, "vertices: expected finite coordinates"),
        (np.zeros((3, 3)), np.zeros((0, 3), int), 0.5, "faces: expected shape"),
        (np.zeros((3, 3)), np.array([[0, 1, 3]]), 0.5, "faces: expected indices below 3, got 0 to 3"),
        (np.zeros((3, 3)), np.array([[0, 1, 2]]), 0, "face_share: expected"),
    ],
)
def test_bad_arguments_are_named(vertices: np.ndarray, faces: np.ndarray, share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simplify_mesh(vertices, faces, share)


@pytest.mark.parametrize("faces", [grid_mesh(3)[1], uv_sphere(6, 8)[1], np.array([[0, 0, 1], [1, 2, 3]])])
def test_meshes_without_area_do_not_fail(faces: np.ndarray) -> None:
    mesh = simplify_mesh(np.ones((faces.max() + 1, 3)), faces, 0.5)
    assert len(mesh.faces) <= len(faces) and np.isfinite(mesh.barycentrics).all()
