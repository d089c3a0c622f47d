"""Nearest vertex: a brute-force twin bit for bit on both code paths, ties, near ties, sizes and errors."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.ops import nearest_vertex as module
from portrait4d.ops.nearest_vertex import NearestVertex, nearest_vertex, nearest_vertex_reference

Search = Callable[[Tensor, Tensor], NearestVertex]


def search_in_tree(points: Tensor, vertices: Tensor) -> NearestVertex:
    """The public function on the CPU, for one item."""
    result = nearest_vertex(points[None], vertices[None])
    return NearestVertex(result.squared_distance[0], result.index[0])


both_paths = pytest.mark.parametrize("search", [search_in_tree, nearest_vertex_reference], ids=["tree", "pairs"])


def brute_force(points: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate every pair in float32 with numpy, squares added x, y, z; numpy's argmin gives the first index."""
    d = points[:, None] - vertices[None]
    squared = d[..., 0] * d[..., 0] + d[..., 1] * d[..., 1] + d[..., 2] * d[..., 2]
    assert squared.dtype == np.float32
    return squared.min(axis=1), squared.argmin(axis=1)


def agrees(search: Search, points: np.ndarray, vertices: np.ndarray) -> NearestVertex:
    result = search(torch.from_numpy(points), torch.from_numpy(vertices))
    squared, index = brute_force(points, vertices)
    assert np.array_equal(result.squared_distance.numpy(), squared)
    assert np.array_equal(result.index.numpy(), index)
    assert result.index.dtype == torch.int64 and result.squared_distance.dtype == torch.float32
    return result


@both_paths
@pytest.mark.parametrize(("points", "vertices"), [(1, 1), (7, 1), (300, 2), (1000, 59), (3000, 1092)])
def test_equals_brute_force_bit_for_bit(search: Search, points: int, vertices: int) -> None:
    rng = np.random.default_rng(points + vertices)
    sphere = rng.normal(size=(vertices, 3))
    sphere = (0.1 * sphere / np.linalg.norm(sphere, axis=1, keepdims=True)).astype(np.float32)
    near = sphere[rng.integers(vertices, size=points)] + rng.normal(size=(points, 3)) * 1e-3
    far = rng.normal(size=(points, 3)) * 0.3
    agrees(search, np.concatenate([near, far, sphere]).astype(np.float32), sphere)


@both_paths
def test_the_first_of_equal_vertices_wins(search: Search) -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(200, 3)).astype(np.float32)
    mirrored = np.concatenate([half * np.float32([-1, 1, 1]), half])  # two eyeballs
    middle = rng.normal(size=(500, 3)).astype(np.float32) * np.float32([0, 1, 1])
    result = agrees(search, middle, mirrored)
    assert result.index.max() < 200
    repeated = np.repeat(half[:5], 40, axis=0)
    result = agrees(search, middle, repeated)
    assert set(result.index.tolist()) <= {0, 40, 80, 120, 160}


@both_paths
def test_order_of_float32_and_not_of_exact_distances(search: Search) -> None:
    rng = np.random.default_rng(1)
    sphere = rng.normal(size=(2000, 3))
    vertices = (sphere / np.linalg.norm(sphere, axis=1, keepdims=True)).astype(np.float32)
    points = (rng.normal(size=(800, 3)) * 1e-7).astype(np.float32)  # all vertices equally far but for rounding
    result = agrees(search, points, vertices)
    exact = ((points[:, None].astype(np.float64) - vertices[None]) ** 2).sum(-1).argmin(axis=1)
    assert (result.index.numpy() != exact).any()  # else the case would prove nothing


@both_paths
def test_distances_too_small_to_square(search: Search) -> None:
    vertices = np.array([[3e-23, 0, 0], [1e-23, 0, 0], [0, 2e-23, 0], [1, 1, 1]], np.float32)
    agrees(search, np.zeros((3, 3), np.float32), vertices)  # all squares underflow to 0: the first wins


@both_paths
def test_the_size_of_chunks_does_not_matter(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    points, vertices = rng.normal(size=(101, 3)).astype(np.float32), rng.normal(size=(30, 3)).astype(np.float32)
    for pairs in (1, 30, 64, 1 << 20):
        monkeypatch.setattr(module, "_PAIRS_PER_CHUNK", pairs)
        agrees(search, points, np.concatenate([vertices, vertices]))


def test_batches_search_their_own_vertices() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(3, 50, 3, generator=generator, requires_grad=True)
    vertices = torch.rand(3, 3, 20, generator=generator).transpose(1, 2)  # not contiguous
    result = nearest_vertex(points, vertices)
    assert not result.squared_distance.requires_grad
    for item in range(3):
        alone = nearest_vertex_reference(points[item].detach(), vertices[item])
        assert torch.equal(result.index[item], alone.index)
        assert torch.equal(result.squared_distance[item], alone.squared_distance)


@pytest.mark.parametrize("pairs", [1, 130, 1 << 20])
def test_all_items_of_a_batch_at_once_as_one_by_one(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    points, vertices = torch.rand(3, 50, 3, generator=generator), torch.rand(3, 20, 3, generator=generator)
    alone = nearest_vertex(points, vertices)
    monkeypatch.setattr(module, "_PAIRS_PER_CHUNK", pairs)
    together = nearest_vertex_reference(points, vertices)
    assert torch.equal(together.index, alone.index)
    assert torch.equal(together.squared_distance, alone.squared_distance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("vertices", [1, 1023, 1024, 2500])
def test_cuda_agrees_bit_for_bit(vertices: int) -> None:
    generator = torch.Generator().manual_seed(vertices)
    points, places = torch.rand(2, 1000, 3, generator=generator), torch.rand(2, vertices, 3, generator=generator)
    places = places.mul_(16).round_().div_(16)  # many ties
    expected = nearest_vertex(points, places)
    for search in (nearest_vertex, nearest_vertex_reference):
        result = search(points.cuda(), places.cuda())
        assert torch.equal(result.index.cpu(), expected.index)
        assert torch.equal(result.squared_distance.cpu(), expected.squared_distance)


@pytest.mark.parametrize(("batch", "points"), [(0, 5), (2, 0), (0, 0)])
def test_empty_queries(batch: int, points: int) -> None:
    result = nearest_vertex(torch.zeros(batch, points, 3), torch.zeros(batch, 4, 3))
    assert result.squared_distance.shape == result.index.shape == (batch, points)
    assert result.squared_distance.dtype == torch.float32 and result.index.dtype == torch.int64


@pytest.mark.parametrize(
    ("points", "vertices", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(1, 4, 3), r"points: expected shape \(B, P, 3\), got \(2, 3\)"),
        (torch.zeros(1, 2, 2), torch.zeros(1, 4, 3), r"points: expected shape \(B, P, 3\)"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 0, 3), r"vertices: expected shape \(B, V >= 1, 3\), got \(1, 0, 3\)"),
        (torch.zeros(2, 2, 3), torch.zeros(1, 4, 3), "one batch size, got 2 and 1"),
        (torch.zeros(1, 2, 3).double(), torch.zeros(1, 4, 3), "expected float32, got torch.float64"),
        (torch.full((1, 2, 3), torch.nan), torch.zeros(1, 4, 3), "points: expected finite"),
        (torch.zeros(1, 2, 3), torch.full((1, 4, 3), torch.inf), "vertices: expected finite"),
    ],
)
def test_bad_arguments_are_named(points: Tensor, vertices: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_vertex(points, vertices)
