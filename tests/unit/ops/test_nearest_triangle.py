"""Nearest triangle: a brute-force twin, hand-made triangles for the face branch, and the tie rule."""

import numpy as np
import pytest
import torch

from portrait4d.ops.nearest_triangle import nearest_triangle


def brute_force(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate every pair in float32 with numpy; edges only (no triangle of at least 5e-3). Last index wins."""

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]

    best = None
    for start, end in ((0, 1), (0, 2), (1, 2)):
        w = triangles[:, end] - triangles[:, start]
        s = np.clip(dot(w, points[:, None] - triangles[None, :, start]) / dot(w, w), 0, 1)
        away = points[:, None] - (triangles[None, :, start] + s[..., None] * w)
        squared = dot(away, away)
        best = squared if best is None else np.minimum(best, squared)
    last = best.shape[1] - 1 - best[:, ::-1].argmin(axis=1)
    return best.min(axis=1), last


def small_mesh(rng: np.random.Generator, count: int) -> np.ndarray:
    """A wavy strip of small triangles that share edges and corners."""
    n = int(np.sqrt(count / 2)) + 1
    x, y = np.meshgrid(np.linspace(-0.3, 0.3, n + 1), np.linspace(-0.3, 0.3, n + 1))
    z = 0.1 * np.sin(7 * x + 3 * y) + 0.01 * rng.normal(size=x.shape)
    grid = np.stack([x, y, z], -1).astype(np.float32)
    quads = [(grid[i, j], grid[i, j + 1], grid[i + 1, j], grid[i + 1, j + 1]) for i in range(n) for j in range(n)]
    return np.array([t for a, b, c, d in quads for t in ((a, b, c), (b, d, c))])


@pytest.mark.parametrize(("points", "triangles"), [(1, 200), (533, 700), (2000, 1400)])
def test_equals_brute_force_bit_for_bit(points: int, triangles: int) -> None:
    rng = np.random.default_rng(points)
    mesh = small_mesh(rng, triangles)
    queries = np.concatenate(
        [rng.normal(size=(points, 3)) * 0.3, mesh[: points // 3 + 1, 0] + rng.normal(size=(points // 3 + 1, 3)) * 1e-3]
    ).astype(np.float32)
    result = nearest_triangle(torch.from_numpy(queries)[None], torch.from_numpy(mesh)[None])
    squared, index = brute_force(queries, mesh)
    assert np.array_equal(result.squared_distance[0].numpy(), squared)
    assert np.array_equal(result.index[0].numpy(), index)


def test_last_of_equal_triangles_wins() -> None:
    mesh = torch.rand(1, 1, 3, 3).expand(1, 9, 3, 3) * 0.05
    assert nearest_triangle(torch.rand(1, 20, 3), mesh).index.unique().tolist() == [8]


def test_large_triangles_use_their_inside_and_small_ones_their_edges() -> None:
    large = torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [0, 0.2, 0]])  # area 0.02
    small = large * 0.4  # area 0.0032
    above = torch.tensor([[[0.05, 0.05, 0.1]]])
    assert nearest_triangle(above, large[None, None]).squared_distance.item() == pytest.approx(0.01, rel=1e-5)
    foot = torch.tensor([[[0.02, 0.02, 0.1]]])
    expected = 0.01 + 0.02**2  # the nearest edge is an axis
    assert nearest_triangle(foot, small[None, None]).squared_distance.item() == pytest.approx(expected, rel=1e-4)
    beside = torch.tensor([[[-0.3, 0.1, 0.0]]])
    assert nearest_triangle(beside, large[None, None]).squared_distance.item() == pytest.approx(0.09, rel=1e-5)


def test_batches_search_their_own_mesh_and_empty_queries_work() -> None:
    mesh = torch.from_numpy(small_mesh(np.random.default_rng(0), 50))
    both = nearest_triangle(torch.rand(2, 7, 3), torch.stack([mesh, mesh + 1]))
    assert both.index.shape == (2, 7)
    alone = nearest_triangle(torch.rand(1, 0, 3), mesh[None])
    assert alone.squared_distance.shape == (1, 0)
    nothing = nearest_triangle(torch.rand(0, 7, 3), torch.rand(0, 4, 3, 3))
    assert nothing.squared_distance.shape == (0, 7) and nothing.index.dtype == torch.int64


@pytest.mark.parametrize(
    ("points", "triangles", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(1, 4, 3, 3), r"points: expected shape \(B, P, 3\), got \(2, 3\)"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 0, 3, 3), r"triangles: expected shape \(B, T >= 1, 3, 3\)"),
        (torch.zeros(2, 2, 3), torch.zeros(1, 4, 3, 3), "one batch size, got 2 and 1"),
        (torch.zeros(1, 2, 3).double(), torch.zeros(1, 4, 3, 3), "expected float32, got torch.float64"),
    ],
)
def test_bad_arguments_are_named(points: torch.Tensor, triangles: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_triangle(points, triangles)
