"""Rasteriser: a slow double loop, closed forms of hand-made triangles, ties, clipping, and the orthographic rules."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.ops import rasterize
from portrait4d.ops.rasterize import Fragments, interpolate_vertices, rasterize_orthographic, rasterize_perspective

RIGHT_ANGLE_DEG = 90.0  # s = 1: a = x / depth
FOV_DEG = 12.0
FACE = torch.tensor([[0, 1, 2]])


def edge(p: np.ndarray, u: np.ndarray, w: np.ndarray) -> np.float32:
    return (p[0] - u[0]) * (w[1] - u[1]) - (p[1] - u[1]) * (w[0] - u[0])


def slow_face(p: np.ndarray, v: np.ndarray, cull: bool, perspective: bool) -> tuple[np.float32, list] | None:
    """Steps 1 to 6 of the specification for one pixel and one face (corner, NDC x left / NDC y up / depth)."""
    area = edge(v[0], v[1], v[2])
    if abs(area) <= 1e-8 or (cull and area < 0) or v[:, 2].min() < 1e-8:
        return None
    if any(p[k] < v[:, k].min() or p[k] > v[:, k].max() for k in (0, 1)):
        return None
    total = edge(v[2], v[0], v[1]) + np.float32(1e-8)
    w = [edge(p, v[1], v[2]) / total, edge(p, v[2], v[0]) / total, edge(p, v[0], v[1]) / total]
    z = v[:, 2]
    if perspective:
        w = [w[0] * z[1] * z[2], w[1] * z[0] * z[2], w[2] * z[0] * z[1]]
        total = max(w[0] + w[1] + w[2], np.float32(1e-8))
        w = [value / total for value in w]
    depth = w[0] * z[0] + w[1] * z[1] + w[2] * z[2]
    return (depth, w) if depth >= 0 and min(w) > 0 else None


def slow_rasterize(corners: np.ndarray, size: int, cull: bool, perspective: bool) -> tuple[np.ndarray, ...]:
    """Loop over pixels and faces (T, 3 corners, 3) of one picture."""
    index = np.full((size, size), -1)
    weights, depths = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    for i in range(size):
        for j in range(size):
            row = size - 1 - i if not perspective else i
            p = np.array([1 - (2 * j + 1) / size, 1 - (2 * row + 1) / size], np.float32)
            for t, v in enumerate(corners):
                hit = slow_face(p, v, cull, perspective)
                if hit is not None and (index[i, j] < 0 or hit[0] < depths[i, j]):
                    index[i, j], depths[i, j], weights[i, j] = t, hit[0], hit[1]
    return index, weights, depths


def random_mesh(seed: int, faces: int = 14) -> tuple[Tensor, Tensor]:
    """Return vertices (2, V, 3) in camera axes around depth 4, with repeated depths, and faces (T, 3)."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, 12, 3, generator=generator) * 1.2 - 0.6
    points[..., 2] = (points[..., 2] * 4).round() / 4 - 4
    return points, torch.randint(12, (faces, 3), generator=generator)


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize(("seed", "size"), [(0, 9), (1, 8), (2, 13), (3, 1)])
def test_perspective_equals_a_double_loop_bit_for_bit(seed: int, size: int, cull: bool) -> None:
    points, faces = random_mesh(seed)
    fragments = rasterize_perspective(points, faces, size, FOV_DEG, cull)
    focal = np.float32(1 / math.tan(math.radians(FOV_DEG) / 2))
    for b in range(2):
        x, y, z = points[b].numpy().T
        screen = np.stack([-(x * focal / -z), y * focal / -z, -z], axis=1)[faces.numpy()]
        assert_equals(fragments, b, slow_rasterize(screen, size, cull, perspective=True))


@pytest.mark.parametrize("cull", [True, False])
@pytest.mark.parametrize(("seed", "size"), [(4, 7), (5, 12)])
def test_orthographic_equals_a_double_loop_bit_for_bit(seed: int, size: int, cull: bool) -> None:
    points, faces = random_mesh(seed)
    points[..., 2] += 4.2  # a few vertices stay below 0
    fragments = rasterize_orthographic(points, faces, size, 1.5, cull)
    for b in range(2):
        screen = (points[b].numpy() * np.array([-1.5, 1.5, 1], np.float32))[faces.numpy()]
        assert_equals(fragments, b, slow_rasterize(screen, size, cull, perspective=False))


def assert_equals(fragments: Fragments, picture: int, expected: tuple[np.ndarray, ...]) -> None:
    for ours, golden in zip(fragments, expected, strict=True):
        assert np.array_equal(ours[picture].numpy(), golden)


def rays(size: int) -> Tensor:
    """Return the directions (S, S, 3) of pixel centres with depth 1, of a 90-degree camera, float64."""
    centre = (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1
    up, right = torch.meshgrid(-centre, centre, indexing="ij")
    return torch.stack([right, up, -torch.ones_like(up)], dim=-1)


def intersect(triangle: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return barycentrics and depth where rays meet a triangle's plane: sum_k w_k v_k = depth * ray, sum_k w_k = 1."""
    scaled = rays(size) @ torch.linalg.inv(triangle.double())  # w / depth
    depth = 1 / scaled.sum(-1)
    return scaled * depth[..., None], depth


def test_interpolation_is_perspective_correct() -> None:
    triangle = torch.tensor([[-1.0, -0.9, -1.2], [2.9, -1.1, -3.0], [0.4, 4.0, -5.0]])
    fragments = rasterize_perspective(triangle[None], FACE, 31, RIGHT_ANGLE_DEG)
    weights, depth = intersect(triangle, 31)
    covered = (weights > 0).all(-1)
    assert 200 < covered.sum() < 31 * 31
    assert torch.equal(fragments.mask[0, 0].bool(), covered)
    torch.testing.assert_close(fragments.barycentrics[0][covered], weights[covered].float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(fragments.depth[0][covered], depth[covered].float(), atol=2e-5, rtol=0)
    assert not fragments.barycentrics[0][~covered].any()
    assert not fragments.depth[0][~covered].any()


@pytest.mark.parametrize("corner", [0, 1, 2])
@pytest.mark.parametrize("far_behind", [1, 2])
def test_faces_that_reach_behind_the_camera_are_clipped(corner: int, far_behind: int) -> None:
    """A floor below the camera: one corner (or two) behind it; every numbering of the corners."""
    in_front = [[0.1, -0.5, -6.0], [-4.0, -0.5, 3.0], [5.0, -0.5, 2.0]]
    wide = [[-4.0, -0.5, -6.0], [0.2, -0.5, 3.0], [5.0, -0.5, -4.0]]
    floor = torch.tensor(in_front if far_behind == 2 else wide).roll(corner, 0)
    fragments = rasterize_perspective(floor[None], FACE, 33, RIGHT_ANGLE_DEG, cull_backfaces=False)
    assert rasterize_perspective(floor[None], FACE, 33, RIGHT_ANGLE_DEG).mask.sum() in (0, fragments.mask.sum())
    weights, depth = intersect(floor, 33)
    inside = (weights > 1e-4).all(-1) & (depth > 0.05)
    outside = (weights < -1e-4).any(-1) | (depth < 0.05)
    mask = fragments.mask[0, 0].bool()
    assert inside.sum() > 100
    # The diagonal between the two pieces may pass through pixel centres, which then belong to neither piece.
    assert (inside & ~mask).sum() <= 2
    assert not (mask & outside).any()
    seen = mask & inside
    torch.testing.assert_close(fragments.depth[0][seen], depth[seen].float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fragments.barycentrics[0][seen], weights[seen].float(), atol=1e-4, rtol=0)


def test_clipped_and_whole_faces_keep_the_order_of_ties() -> None:
    floor = torch.tensor([[-4.0, -0.5, -6.0], [0.2, -0.5, 3.0], [5.0, -0.5, -4.0]])
    wall = torch.tensor([[-9.0, -9.0, -5.0], [9.0, -9.0, -5.0], [0.0, 9.0, -5.0]])
    faces = torch.tensor([[3, 4, 5], [3, 4, 5], [0, 1, 2], [0, 1, 2]])
    fragments = rasterize_perspective(torch.cat([floor, wall])[None].expand(2, -1, -1), faces, 16, 90.0, False)
    assert fragments.face_index.unique().tolist() == [-1, 0, 2]
    assert torch.equal(fragments.face_index[0], fragments.face_index[1])


def test_centres_on_an_edge_belong_to_neither_neighbour() -> None:
    """S = 4: centres at -0.75, -0.25, 0.25, 0.75; two triangles share the edge a = 0.25, outer edges lie on centres."""
    square = torch.tensor([[[-0.75, -0.75, -1], [0.25, -3, -1], [0.25, 3, -1], [0.75, 0, -1.0]]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    fragments = rasterize_perspective(square, faces, 4, RIGHT_ANGLE_DEG)
    none = -1
    # The left face's corner and the right face's corner are centres too: both stay uncovered.
    assert fragments.face_index[0].tolist() == [[none, 0, none, none]] * 3 + [[none, 0, none, none]]
    moved = square + torch.tensor([1e-4, 0, 0])
    assert rasterize_perspective(moved, faces, 4, RIGHT_ANGLE_DEG).face_index[0, 1].tolist() == [none, 0, 0, none]


def test_back_faces_are_culled_on_request() -> None:
    triangle = torch.tensor([[[-0.9, -0.9, -1.0], [0.9, -0.9, -1.0], [0.0, 0.9, -1.0]]])
    front, back = FACE, FACE.flip(1)
    assert rasterize_perspective(triangle, front, 16, RIGHT_ANGLE_DEG).mask.sum() > 50
    assert rasterize_perspective(triangle, back, 16, RIGHT_ANGLE_DEG).mask.sum() == 0
    both_sides = rasterize_perspective(triangle, back, 16, RIGHT_ANGLE_DEG, cull_backfaces=False)
    assert torch.equal(both_sides.mask, rasterize_perspective(triangle, front, 16, RIGHT_ANGLE_DEG).mask)


def test_lowest_depth_then_lowest_index_wins() -> None:
    triangle = torch.tensor([[-0.9, -0.9, -1.0], [0.9, -0.9, -1.0], [0.0, 0.9, -1.0]])
    layers = torch.cat([triangle * 2, triangle, triangle * 3])[None]
    near, far = torch.tensor([3, 4, 5]), torch.tensor([0, 1, 2])
    fragments = rasterize_perspective(layers, torch.stack([far, near, near, far]), 16, RIGHT_ANGLE_DEG)
    assert fragments.face_index.unique().tolist() == [-1, 1]
    fragments = rasterize_perspective(layers, torch.stack([far, far, far]), 16, RIGHT_ANGLE_DEG)
    assert fragments.face_index.unique().tolist() == [-1, 0]


@pytest.mark.parametrize(
    "triangle",
    [
        [[0.0, 0.0, -1.0], [0.5, 0.5, -1.0], [-0.5, -0.5, -1.0]],  # a line
        [[0.1, 0.1, -1.0], [0.1, 0.1, -1.0], [0.1, 0.1, -1.0]],  # a point
        [[1.1, 0.0, -1.0], [2.0, 0.0, -1.0], [1.5, 1.0, -1.0]],  # right of the picture
        [[0.0, -9.0, -1.0], [1.0, -9.0, -1.0], [0.5, -8.0, -1.0]],  # below it
        [[-0.9, -0.9, 1.0], [0.9, -0.9, 1.0], [0.0, 0.9, 1.0]],  # behind the camera
        [[-0.02, -0.02, -0.04], [0.02, -0.02, -0.04], [0.0, 0.02, -0.04]],  # nearer than 0.05
        [[-0.9, -0.9, -1.0], [math.nan, -0.9, -1.0], [0.0, 0.9, -1.0]],
        [[-0.9, -0.9, -1.0], [math.inf, -0.9, -1.0], [0.0, 0.9, -1.0]],
    ],
)
def test_what_cannot_be_seen_leaves_no_trace(triangle: list[list[float]]) -> None:
    fragments = rasterize_perspective(torch.tensor([triangle]), FACE, 8, RIGHT_ANGLE_DEG, cull_backfaces=False)
    assert (fragments.face_index == -1).all()


def test_a_face_larger_than_the_picture_fills_it() -> None:
    huge = torch.tensor([[[-1e6, -1e6, -1.0], [1e6, -1e6, -1.0], [0.0, 1e6, -1.0]]])
    assert (rasterize_perspective(huge, FACE, 8, RIGHT_ANGLE_DEG).face_index == 0).all()


@pytest.mark.parametrize("pairs", [1, 7, 64])
def test_chunks_do_not_matter(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points, faces = random_mesh(6, faces=30)
    whole = rasterize_perspective(points, faces, 11, FOV_DEG, cull_backfaces=False)
    monkeypatch.setattr(rasterize, "_PAIRS_PER_CHUNK", pairs)
    parts = rasterize_perspective(points, faces, 11, FOV_DEG, cull_backfaces=False)
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)


def test_empty_batches_and_meshes_work() -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    for points, faces in ((torch.zeros(0, 5, 3), FACE), (torch.zeros(2, 0, 3), none), (torch.zeros(2, 5, 3), none)):
        for fragments in (
            rasterize_perspective(points, faces, 3, FOV_DEG),
            rasterize_orthographic(points, faces, 3, 1.0),
        ):
            assert fragments.face_index.shape == (len(points), 3, 3)
            assert fragments.barycentrics.shape == (len(points), 3, 3, 3)
            assert (fragments.face_index == -1).all()
            image = interpolate_vertices(fragments, faces, torch.zeros(len(points), points.shape[1], 2))
            assert image.shape == (len(points), 2, 3, 3)
            assert not image.any()


def test_orthographic_rules() -> None:
    """Rows run upwards, the face nearest to z = 0 wins, and a face with any corner below 1e-8 is dropped."""
    square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [-1, 1, 0]])
    layers = torch.stack([square + torch.tensor([0, 0, z]) for z in (0.5, 0.2, 0.0, -0.3)])
    layers = torch.cat([layers, square[None] + torch.tensor([[0, 0, 0.1], [0, 0, 0.1], [0, 0, -0.1]])]).view(1, -1, 3)
    faces = torch.arange(15).view(5, 3)
    fragments = rasterize_orthographic(layers, faces, 4, scale=1.0)
    lower_left = torch.tensor([[True] * 3 + [False], [True] * 2 + [False] * 2, [True] + [False] * 3, [False] * 4])
    assert torch.equal(fragments.face_index[0], torch.where(lower_left, 1, -1))  # row 0 is the lowest
    torch.testing.assert_close(fragments.depth[0][lower_left], torch.full((6,), 0.2), atol=1e-7, rtol=0)
    larger = rasterize_orthographic(layers * torch.tensor([0.5, 0.5, 1.0]), faces, 4, scale=2.0)
    assert torch.equal(larger.face_index, fragments.face_index)
    assert rasterize_orthographic(layers, faces.flip(1), 4, scale=1.0).mask.sum() == 0
    affine = square + torch.tensor([[0.0, 0, 0.3], [0, 0, 0.9], [0, 0, 0.6]])
    tilted = rasterize_orthographic(affine[None], FACE, 4, scale=1.0)
    # Depth is affine in the picture, without perspective: at a = b = -0.75 it is 0.3 + 0.125 * 0.6 + 0.125 * 0.3.
    assert tilted.depth[0, 0, 0].item() == pytest.approx(0.4125, abs=1e-6)


def test_features_are_interpolated_and_differentiable() -> None:
    points, faces = random_mesh(7)
    fragments = rasterize_perspective(points, faces, 6, FOV_DEG, cull_backfaces=False)
    features = torch.rand(2, 12, 2, dtype=torch.float64, requires_grad=True)
    image = interpolate_vertices(fragments, faces, features)
    assert image.shape == (2, 2, 6, 6)
    assert torch.equal(image[:, :1] != 0, fragments.mask.bool())
    b, i, j = fragments.mask[:, 0].nonzero()[5].tolist()
    corners = faces[fragments.face_index[b, i, j]]
    expected = (fragments.barycentrics[b, i, j, :, None].double() * features[b, corners]).sum(0)
    torch.testing.assert_close(image[b, :, i, j], expected)
    assert torch.autograd.gradcheck(lambda f: interpolate_vertices(fragments, faces, f), features)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_bit_for_bit() -> None:
    points, faces = random_mesh(8, faces=40)
    points[1, :3, 2] = 1.0  # clipping as well
    for cull in (True, False):
        ours = rasterize_perspective(points.cuda(), faces.cuda(), 37, 60.0, cull)
        for a, b in zip(ours, rasterize_perspective(points, faces, 37, 60.0, cull), strict=True):
            assert torch.equal(a.cpu(), b)


def test_pytorch3d_agrees() -> None:
    pytest.importorskip("pytorch3d")
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    points, faces = random_mesh(9)
    focal = 1 / math.tan(math.radians(FOV_DEG) / 2)
    depth = -points[:1, :, 2]
    ndc = torch.stack([-points[:1, :, 0] * focal / depth, points[:1, :, 1] * focal / depth, depth], dim=-1)
    for cull in (True, False):
        index, zbuf, _, _ = rasterize_meshes(
            Meshes(ndc, faces[None]), 64, 0.0, 1, perspective_correct=True, cull_backfaces=cull
        )
        ours = rasterize_perspective(points[:1], faces, 64, FOV_DEG, cull)
        same = ours.face_index == index[..., 0]
        assert same.float().mean() > 0.999
        seen = same & (ours.face_index >= 0)
        torch.testing.assert_close(ours.depth[seen], zbuf[..., 0][seen], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, f: rasterize_perspective(p[0], f, 4, 12.0), r"points_camera: expected float32 of shape \(B, V, 3\)"),
        (lambda p, f: rasterize_perspective(p.double(), f, 4, 12.0), "points_camera: expected float32.*float64"),
        (lambda p, f: rasterize_perspective(p, f.int(), 4, 12.0), r"faces: expected int64 of shape \(T, 3\)"),
        (lambda p, f: rasterize_perspective(p, f, 0, 12.0), "size: expected at least 1 pixel, got 0"),
        (lambda p, f: rasterize_perspective(p, f, 4, 180.0), "fov_deg: expected a number between 0 and 180"),
        (lambda p, f: rasterize_orthographic(p[..., :2], f, 4, 1.0), "points: expected float32 of shape"),
        (
            lambda p, f: interpolate_vertices(rasterize_perspective(p, f, 4, 12.0), f, p[:1]),
            r"features: expected shape \(2, V, C\), got \(1, 12, 3\)",
        ),
    ],
)
def test_bad_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*random_mesh(0))
