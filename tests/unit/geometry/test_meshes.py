"""Triangles: normals, projections, interpolation."""

import torch

from portrait4d.geometry.meshes import face_normals, interpolate_corners, plane_barycentrics


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
