"""Native tri-plane fetch, marching, nearest triangle and rasteriser against their PyTorch versions."""

import pytest
import torch
from torch import Tensor

from portrait4d.ops import rasterize, ray_march, triplane_fetch
from portrait4d.ops.backend import without_native
from portrait4d.ops.nearest_triangle import MIN_AREA, nearest_triangle, nearest_triangle_reference
from tests.helpers.native import DEVICES, relative_error, require_native

TOLERANCE = 1e-5

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("device", DEVICES)]


@pytest.fixture(autouse=True)
def _native(monkeypatch: pytest.MonkeyPatch) -> None:
    require_native(monkeypatch)


def random_lookup(batch: int, count: int, sizes: tuple[int, int, int], device: str) -> tuple[Tensor, Tensor]:
    """Return a table of planes (channels, height, width) and points of which about half lie outside the cube."""
    generator = torch.Generator().manual_seed(count)
    planes = torch.randn(batch, 3, *sizes, generator=generator)
    points = torch.randn(batch, count, 3, generator=generator)
    return triplane_fetch.build_table(planes).to(device), points.to(device)


@pytest.mark.parametrize(
    ("batch", "count", "sizes"),
    [(1, 1, (32, 1, 1)), (2, 0, (4, 5, 5)), (3, 257, (6, 7, 4)), (1, 3000, (32, 33, 20)), (2, 40, (17, 8, 9))],
)
def test_fetch_and_its_gradient(batch: int, count: int, sizes: tuple[int, int, int], device: str) -> None:
    table, points = random_lookup(batch, count, sizes, device)
    weights = torch.randn(batch, count, sizes[0]).to(device)
    results = []
    for fetch, place in ((triplane_fetch.triplane_fetch, device), (triplane_fetch.triplane_fetch_reference, "cpu")):
        leaf = table.to(place).detach().clone().requires_grad_()
        features = fetch(leaf, points.to(place), 1.3)
        (features * weights.to(place)).sum().backward()
        results.append((features.detach(), leaf.grad))
    for ours, expected in zip(*results, strict=True):
        assert relative_error(ours, expected) <= TOLERANCE


def test_fetch_of_nan_planes_and_points(device: str) -> None:
    table, points = random_lookup(1, 500, (8, 9, 9), device)
    table[:, :, 5, 4] = torch.nan
    points[0, :3, 1] = torch.nan
    ours = triplane_fetch.triplane_fetch(table, points, 1.3)
    expected = triplane_fetch.triplane_fetch_reference(table.cpu(), points.cpu(), 1.3)
    assert relative_error(ours, expected) <= TOLERANCE
    assert ours[0, :3].isnan().all() and not ours.isnan().all(2).all()


def test_fetch_takes_strided_points(device: str) -> None:
    table, points = random_lookup(2, 60, (5, 6, 6), device)
    strided = points[:, ::2].flip(2)
    expected = triplane_fetch.triplane_fetch_reference(table.cpu(), strided.cpu().contiguous(), 1.3)
    assert relative_error(triplane_fetch.triplane_fetch(table, strided, 1.3), expected) <= TOLERANCE


@pytest.mark.parametrize("shape", [(5,), (0, 5), (1, 2), (3, 7), (2, 4, 17), (65, 96)])
def test_march_and_its_gradients(shape: tuple[int, ...], device: str) -> None:
    generator = torch.Generator().manual_seed(len(shape))
    densities = (torch.randn(shape, generator=generator) * 10).to(device)
    distances = (torch.rand(shape, generator=generator).sort(dim=-1).values + 3).to(device)
    shapes = (*shape[:-1], shape[-1] - 1), shape[:-1], shape[:-1]
    weights = [torch.randn(s, generator=generator).to(device) for s in shapes]
    results = []
    for march, place in ((ray_march.march, device), (ray_march.march_reference, "cpu")):
        leaves = [tensor.to(place).detach().clone().requires_grad_() for tensor in (densities, distances)]
        outputs = march(*leaves)
        sum((output * weight.to(place)).sum() for output, weight in zip(outputs, weights, strict=True)).backward()
        results.append([output.detach() for output in outputs] + [leaf.grad for leaf in leaves])
    for ours, expected in zip(*results, strict=True):
        assert relative_error(ours, expected) <= TOLERANCE


def test_march_of_nan_infinite_and_empty_rays(device: str) -> None:
    distances = torch.linspace(1, 2, 6).expand(4, 6).to(device)
    densities = torch.full((4, 6), -1e4, device=device)
    densities[1, 3] = torch.nan
    densities[2, 2] = torch.inf
    densities[3] = 1e4
    references = ray_march.march_reference(densities.cpu(), distances.cpu())
    for ours, expected in zip(ray_march.march(densities, distances), references, strict=True):
        assert relative_error(ours, expected) <= TOLERANCE


def test_an_empty_ray_gives_finite_gradients(device: str) -> None:
    densities = torch.full((1, 5), -1e4, device=device, requires_grad=True)
    ray_march.march(densities, torch.linspace(1, 2, 5, device=device)[None]).depth.sum().backward()
    assert torch.equal(densities.grad, torch.zeros_like(densities))


def test_second_derivatives_are_refused(device: str) -> None:
    densities = torch.randn(3, 5, device=device, requires_grad=True)
    weights = ray_march.march(densities, torch.linspace(1, 2, 5, device=device).expand(3, 5)).weights
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(weights[:, 0].square().sum(), densities, create_graph=True)
    table, points = random_lookup(1, 7, (4, 5, 5), device)
    features = triplane_fetch.triplane_fetch(table.requires_grad_(), points, 1.3)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(features.square().sum(), table, create_graph=True)
    (gradient,) = torch.autograd.grad(features.sum(), table)  # of an output itself, once
    assert gradient.any()


@pytest.mark.parametrize(("points", "triangles"), [(0, 3), (1, 1), (333, 17), (1000, 700)])
def test_nearest_triangle_bit_for_bit_on_small_triangles(points: int, triangles: int, device: str) -> None:
    generator = torch.Generator().manual_seed(points)
    corners = torch.rand(2, triangles, 1, 3, generator=generator) + torch.rand(2, triangles, 3, 3) * 0.05
    corners = torch.cat([corners, corners[:, :1]], dim=1).to(device)  # the last one of equals must win
    queries = torch.rand(2, points, 3, generator=generator).to(device)
    ours, expected = nearest_triangle(queries, corners), nearest_triangle_reference(queries.cpu(), corners.cpu())
    assert torch.equal(ours.index.cpu(), expected.index)
    assert torch.equal(ours.squared_distance.cpu(), expected.squared_distance)


def test_nearest_triangle_with_large_and_degenerate_ones(device: str) -> None:
    generator = torch.Generator().manual_seed(5)
    corners = torch.rand(1, 40, 3, 3, generator=generator)
    corners[:, 20:] = corners[:, 20:, :1] + (corners[:, 20:] - corners[:, 20:, :1]) * 0.05
    corners[:, 30, 1] = corners[:, 30, 0]
    corners[:, 31] = corners[:, 31, :1]
    areas = torch.linalg.cross(corners[0, :, 1] - corners[0, :, 0], corners[0, :, 2] - corners[0, :, 0]).norm(dim=1) / 2
    assert (areas > 2 * MIN_AREA).any() and (areas < MIN_AREA / 2).any()
    queries, corners = torch.rand(1, 900, 3, generator=generator).to(device), corners.to(device)
    ours, expected = nearest_triangle(queries, corners), nearest_triangle_reference(queries.cpu(), corners.cpu())
    assert relative_error(ours.squared_distance, expected.squared_distance) <= TOLERANCE
    assert (ours.index.cpu() == expected.index).float().mean() > 0.99


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize(("size", "faces"), [(1, 3), (7, 0), (33, 40), (70, 400)])
def test_rasterize_bit_for_bit(size: int, faces: int, cull: bool, device: str) -> None:
    generator = torch.Generator().manual_seed(size)
    points = torch.rand(3, 30, 3, generator=generator) * 1.2 - 0.6
    points[..., 2] = (points[..., 2] * 4).round() / 4 - 4
    points[1, :5, 2] = 1.0  # behind the camera: clipped
    indices = torch.randint(30, (faces, 3), generator=generator)

    def draw(place: str) -> list[rasterize.Fragments]:
        return [
            rasterize.rasterize_perspective(points.to(place), indices.to(place), size, 14.0, cull),
            rasterize.rasterize_orthographic(points.to(place) + 5, indices.to(place), size, 0.2, cull),
        ]

    ours = draw(device)
    with without_native():
        references = draw("cpu")
    for fragments, expected in zip(ours, references, strict=True):
        for value, wanted in zip(fragments, expected, strict=True):
            assert torch.equal(value.cpu(), wanted)
