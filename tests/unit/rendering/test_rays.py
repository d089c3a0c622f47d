"""Conformance values of `rendering.md` section 12: camera rays."""

import pytest
import torch

from portrait4d.geometry.cameras import join_camera
from portrait4d.rendering.rays import camera_rays
from tests.helpers.cameras import tilted_camera


def test_rays_of_the_specification() -> None:
    rays = camera_rays(tilted_camera(), 4)
    expected = {
        0: (-0.353485, 0.078343, -0.932154),
        3: (-0.203067, 0.078343, -0.976026),
        12: (-0.353485, -0.078343, -0.932154),
    }
    for index, direction in expected.items():
        torch.testing.assert_close(rays.directions[0, index], torch.tensor(direction), atol=1e-6, rtol=0)
    torch.testing.assert_close(rays.origins[0, 7], torch.tensor([1.4, 0.05, 3.9]))
    assert rays.centre_distance.item() == pytest.approx(4.136, abs=1e-5)


def test_a_ray_passes_through_the_point_its_pixel_shows() -> None:
    """Project a point of the fifth ray with the pinhole formula of `cameras-and-rasterisation.md` section 1."""
    camera = tilted_camera()
    rays = camera_rays(camera, 5)
    point = rays.origins[0, 7] + 3.3 * rays.directions[0, 7]
    rotation, position = camera[0, :16].view(4, 4)[:3, :3], camera[0, :16].view(4, 4)[:3, 3]
    x, y, z = (rotation.T @ (point - position)).tolist()
    focal = camera[0, 16].item()
    assert focal * x / -z + 0.5 == pytest.approx(2.5 / 5, abs=1e-4)
    assert 0.5 - focal * y / -z == pytest.approx(1.5 / 5, abs=1e-4)


def test_skewed_intrinsics_move_the_pixel_sideways() -> None:
    intrinsics = torch.tensor([[4.0, 0.7, 0.5], [0, 4.0, 0.5], [0, 0, 1]])
    rays = camera_rays(join_camera(torch.eye(4), intrinsics)[None], 2)
    direction = rays.directions[0, 0]
    x, y = direction[0] / -direction[2], direction[1] / -direction[2]
    # Image coordinates with y down: u = fx x + skew y + cx.
    assert (4.0 * x + 0.7 * -y + 0.5).item() == pytest.approx(0.25, abs=1e-6)
    assert (0.5 - 4.0 * y).item() == pytest.approx(0.25, abs=1e-6)
