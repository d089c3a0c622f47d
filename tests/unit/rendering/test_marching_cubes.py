"""Surface extraction: a sphere where it belongs, wound outwards."""

import numpy as np
import pytest
import torch

from portrait4d.rendering.marching_cubes import extract_surface

CENTRE = torch.tensor([0.1, -0.05, 0.2])


def ball(points: torch.Tensor) -> torch.Tensor:
    return 50 - 100 * (points - CENTRE).norm(dim=-1)  # 25 at radius 0.25


def test_a_sphere_in_world_coordinates() -> None:
    surface = extract_surface(ball, 40, 1.3, 25.0, points_per_chunk=1000)
    radii = np.linalg.norm(surface.vertices - CENTRE.numpy(), axis=1)
    np.testing.assert_allclose(radii, 0.25, atol=2e-3)
    corners = surface.vertices[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = (normals * (corners.mean(1) - CENTRE.numpy())).sum(1)
    assert (outward > 0).mean() > 0.999
    volume = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.25**3, rel=0.02)  # the polyhedron lies inside


def test_no_surface_and_bad_resolution_are_named() -> None:
    with pytest.raises(ValueError, match="level: expected between .* the densities found, got 99"):
        extract_surface(ball, 8, 1.3, 99.0)
    with pytest.raises(ValueError, match="resolution: expected at least 2 grid points per side, got 1"):
        extract_surface(ball, 1, 1.3, 25.0)
