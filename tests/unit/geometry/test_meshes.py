"""Triangles: normals, projections, interpolation."""

import torch

from portrait4d.geometry.meshes import (
    face_normals,
    interpolate_corners,
    plane_barycentrics,
    submesh_faces,
    vertex_normals,
)


def random_triangles(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_normals_are_unit_perpendicular_and_right_handed() -> None:
    triangles = random_triangles(20)
    normals = face_normals(triangles)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(20, dtype=torch.float64))
    edges = triangles[:, 1:] - triangles[:, :1]
    assert (edges * normals[:, None]).sum(-1).abs().max() < 1e-12
    flat = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    assert face_normals(flat)[0].tolist() == [0, 0, 1]


def test_barycentrics_reproduce_any_point_with_its_height() -> None:
    triangles, points = random_triangles(50), torch.randn(50, 3, dtype=torch.float64)
    weights = plane_barycentrics(points, triangles)
    foot, normals = interpolate_corners(weights, triangles), face_normals(triangles)
    height = ((points - foot) * normals).sum(-1, keepdim=True)
    torch.testing.assert_close(foot + height * normals, points, atol=1e-8, rtol=0)
    assert weights.abs().max() > 1  # projections outside the triangle are not clamped


def test_corners_have_unit_weights() -> None:
    triangles = random_triangles(5)
    for corner in range(3):
        weights = plane_barycentrics(triangles[:, corner], triangles)
        expected = torch.zeros(5, 3, dtype=torch.float64)
        expected[:, corner] = 1
        torch.testing.assert_close(weights, expected, atol=1e-9, rtol=0)


def test_submeshes_keep_the_order_of_faces_and_the_last_position_of_a_repeated_vertex() -> None:
    faces = torch.tensor([[4, 3, 0], [0, 1, 2], [3, 4, 5], [0, 3, 4]])
    assert submesh_faces(faces, torch.tensor([4, 0, 3]), 6).tolist() == [[0, 2, 1], [1, 2, 0]]
    assert submesh_faces(faces, torch.tensor([0, 4, 0, 3]), 6).tolist() == [[1, 3, 2], [2, 3, 1]]
    assert submesh_faces(faces, torch.tensor([0, 1]), 6).shape == (0, 3)
    assert submesh_faces(faces, torch.arange(6), 6).tolist() == faces.tolist()


def test_vertex_normals_weigh_faces_by_area() -> None:
    """At the origin: a large face in the plane z = 0, a face of a third of its area in the plane x = 0, none at 5."""
    vertices = torch.tensor([[[0.0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 1, 0], [0, 0, 3], [9, 9, 9]]])
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2], [0, 3, 4]]))
    expected = torch.tensor([[3.0, 0, 9], [0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(normals[0], torch.nn.functional.normalize(expected, dim=1))
