"""The whole two-pass renderer against `rendering.md` section 12, chunking, and an analytic field."""

import math

import pytest
import torch

from portrait4d.config.networks import VolumeConfig
from portrait4d.rendering.ray_sampling import Jitter, midpoint_jitter
from portrait4d.rendering.rays import camera_rays
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.rendering.volume_renderer import FieldSample, render_rays
from tests.helpers.cameras import frontal_camera, tilted_camera
from tests.helpers.hash_fill import fill_equalised, hash_tensor

SMALL = VolumeConfig(depth_samples=8, importance_samples=8)
DECODER_SHAPES = {
    "net.0.weight": (64, 32),
    "net.0.bias": (64,),
    "out_sigma.weight": (1, 64),
    "out_sigma.bias": (1,),
    "out_rgb.weight": (32, 64),
    "out_rgb.bias": (32,),
}


def conformance_field(box_warp: float):
    """Planes and decoder of the specification's case, the decoder written out (`networks-stylegan.md` section 8)."""
    weights = fill_equalised(DECODER_SHAPES)
    planes = TriPlanes(3 * hash_tensor(1000, [1, 3, 32, 8, 8]), box_warp)

    def field(points: torch.Tensor) -> FieldSample:
        features = planes.sample(points)
        hidden = torch.nn.functional.softplus(
            features @ weights["net.0.weight"].T / math.sqrt(32) + weights["net.0.bias"]
        )
        density = hidden @ weights["out_sigma.weight"].T / 8 + weights["out_sigma.bias"]
        colour = torch.sigmoid(hidden @ weights["out_rgb.weight"].T / 8 + weights["out_rgb.bias"]) * 1.002 - 0.001
        return FieldSample(colour, density[..., 0])

    return field


def conformance_jitter() -> Jitter:
    stratified = (hash_tensor(1001, [1, 1, 8, 1]).view(1, 8) + 1) / 2
    return Jitter(stratified, (hash_tensor(1002, [16, 8]).view(1, 16, 8) + 1) / 2)


def check_elements(values: torch.Tensor, mean: float, std: float, elements: list[float]) -> None:
    flat = values.flatten()
    n = len(flat)
    assert flat.mean().item() == pytest.approx(mean, abs=2e-6)
    assert flat.std().item() == pytest.approx(std, abs=2e-6)
    picked = flat[[0, n // 3, n // 2, n - 1]]
    torch.testing.assert_close(picked, torch.tensor(elements), atol=3e-6, rtol=0)


def test_renderer_of_the_specification() -> None:
    result = render_rays(conformance_field(1.3), camera_rays(tilted_camera(), 4), conformance_jitter(), SMALL)
    check_elements(result.features, 0.0615743, 0.0225778, [0.064042, 0.0459145, 0.0580603, 0.0716477])
    expected = torch.tensor([0.069797, 0.071169, 0.028139, 0.094968])
    torch.testing.assert_close(result.features[0, 5, :4], expected, atol=2e-6, rtol=0)
    rays = [0, 5, 15]
    torch.testing.assert_close(result.depth[0, rays], torch.tensor([4.182621, 4.209059, 4.307146]), atol=3e-6, rtol=0)
    expected = torch.tensor([0.896695, 0.873099, 0.876145])
    torch.testing.assert_close(result.transmittance[0, rays], expected, atol=2e-6, rtol=0)
    expected = torch.tensor(
        [3.644704, 3.764587, 3.785565, 3.821234, 3.869303, 3.874680, 3.958018, 4.076315]
        + [4.077552, 4.095707, 4.143428, 4.236400, 4.380325, 4.537643, 4.784860, 4.854355]
    )
    torch.testing.assert_close(result.distances[0, 5], expected, atol=3e-6, rtol=0)


def test_scaled_box_of_the_specification() -> None:
    rays = camera_rays(tilted_camera(), 4)
    result = render_rays(conformance_field(1.3 * 1.2), rays, conformance_jitter(), SMALL, box_scale=1.2)
    check_elements(result.features, 0.075443, 0.0283423, [0.0665189, 0.054439, 0.0697666, 0.114845])


@pytest.mark.parametrize("chunk", [1, 7, 16, 100])
def test_chunks_leave_no_trace(chunk: int) -> None:
    rays, field = camera_rays(tilted_camera(), 4), conformance_field(1.3)
    whole = render_rays(field, rays, conformance_jitter(), SMALL)
    pieces = render_rays(field, rays, conformance_jitter(), SMALL, chunk=chunk)
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-6)


def test_no_rays_give_empty_results() -> None:
    rays = camera_rays(tilted_camera(), 4)
    empty = rays._replace(origins=rays.origins[:, :0], directions=rays.directions[:, :0])
    jitter = midpoint_jitter(1, 8, 8, "cpu")
    result = render_rays(conformance_field(1.3), empty, jitter, SMALL)
    assert result.features.shape == (1, 0, 32)


def test_a_bad_chunk_is_refused() -> None:
    rays = camera_rays(tilted_camera(), 4)
    with pytest.raises(ValueError, match="chunk: expected a positive number of rays, got 0"):
        render_rays(conformance_field(1.3), rays, conformance_jitter(), SMALL, chunk=0)


def test_an_opaque_sphere_is_seen_where_geometry_says() -> None:
    """A sphere of radius 0.3: depth along the central ray is the camera distance less the radius."""

    def field(points: torch.Tensor) -> FieldSample:
        inside = points.norm(dim=-1) < 0.3
        return FieldSample(torch.ones(*points.shape[:2], 3), torch.where(inside, 2000.0, -2000.0))

    camera = frontal_camera()
    camera[0, 7] = 0  # height of the camera
    result = render_rays(field, camera_rays(camera, 33), midpoint_jitter(1, 96, 96, "cpu"), VolumeConfig(96, 96))
    picture = result.transmittance.view(33, 33)
    assert picture[16, 16] < 1e-3
    assert picture[0, 0] > 0.999
    assert result.depth.view(33, 33)[16, 16].item() == pytest.approx(3.9, abs=0.015)
    # Silhouette: focal * tan of the tangent cone's half angle, in pixels.
    radius = 4.757182 * 0.3 / math.sqrt(4.2**2 - 0.3**2) * 33
    assert math.sqrt((picture < 0.5).sum().item() / math.pi) == pytest.approx(radius, rel=0.05)
