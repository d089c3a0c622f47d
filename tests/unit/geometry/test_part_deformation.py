"""The part-wise field: golden points, a plain twin, closed forms on a hand-made head, options."""

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.config.networks import HeadPoseConfig
from portrait4d.geometry import part_deformation
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.part_deformation import PartField, PartPoints, build_part_field
from tests.golden.cases import case_params, case_tensor, standin_head

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
CONFIG = HeadPoseConfig(fine_resolution=10, coarse_resolution=4)  # small grids: quick
BOX = 1.3


def random_params(batch: int, neck: float = 0.0) -> HeadParams:
    generator = torch.Generator().manual_seed(3)

    def noise(columns: int, std: float) -> Tensor:
        return torch.randn(batch, columns, generator=generator) * std

    pose = noise(6, 0.1)
    pose[:, :3] *= neck
    return HeadParams(noise(300, 1.0), noise(100, 1.0), pose, noise(6, 0.2))


def canonical_params() -> HeadParams:
    pose = torch.tensor([[0, 0, 0, 0.3, 0, 0]])
    return HeadParams(torch.zeros(1, 300), torch.zeros(1, 100), pose, torch.zeros(1, 6))


def random_points(batch: int, count: int) -> Tensor:
    return torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(5)) * 0.25


def assert_equal(ours: PartPoints, other: PartPoints) -> None:
    for field in fields(PartPoints):
        assert torch.equal(getattr(ours, field.name), getattr(other, field.name)), field.name


def test_recorded_points_with_zero_neck_pose() -> None:
    golden = np.load(GOLDEN / "genhead-n.npz")
    field = build_part_field(standin_head(), case_params("n", pose_std=0.1, jaw_rad=0.25), BOX, CONFIG)
    points = field(case_tensor("n", "points", (1, 4096, 3), 0.3))
    for part in ("eye", "face", "mouth"):
        assert np.abs(getattr(points, part)[0].numpy() - golden[f"canonical_{part}"]).max() <= 1e-6
    assert np.abs(points.face_distance[0].numpy() - golden["distance_face"]).max() <= 1e-6
    assert np.array_equal(points.inside_eye_box[0].numpy(), golden["inside_eye_box"])


def carry_plainly(head: HeadModel, point: Tensor, vertices: Tensor, part: list[int]) -> tuple[Tensor, Tensor]:
    """Follow `deformation.md` section 5, steps 1 to 5, for one point (3,): canonical point and distance."""
    squared = [((point - vertices[v]) ** 2).sum().item() for v in part]
    nearest = part[squared.index(min(squared))]
    total, moved = 0.0, torch.zeros(3, dtype=torch.float64)
    for v in head.vertex_neighbours[nearest].tolist():
        there = torch.full((3,), 1000.0) if v == len(vertices) else vertices[v]
        canonical = torch.full((3,), 1000.0) if v == len(vertices) else head.canonical_vertices[v]
        weight = 1 / (((point.double() - there.double()) ** 2).sum() + 1e-10)
        total, moved = total + weight, moved + weight * (canonical.double() - there.double())
    return point + moved / total, torch.tensor(min(squared) + 1e-12).sqrt()


def test_agrees_with_a_plain_twin(ellipsoid: HeadModel) -> None:
    params, points = random_params(2), random_points(2, 40)
    result = build_part_field(ellipsoid, params, BOX, CONFIG)(points)
    still = replace(params, expression=torch.zeros(2, 100), eye_pose=torch.zeros(2, 6))
    for part, region, head in (
        ("eye", "eyeballs", params),
        ("face", "head", params),
        ("mouth", "lips", still),
    ):
        vertices, indices = ellipsoid(head), ellipsoid.region(region).tolist()
        for item in range(2):
            for number, point in enumerate(points[item]):
                wanted, distance = carry_plainly(ellipsoid, point, vertices[item], indices)
                assert (getattr(result, part)[item, number] - wanted).abs().max() < 2e-6
                assert getattr(result, f"{part}_distance")[item, number] == pytest.approx(distance.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["ellipsoid", "standin"])
def test_the_canonical_head_stays_where_it_is(ellipsoid: HeadModel, name: str) -> None:
    head = ellipsoid if name == "ellipsoid" else standin_head()
    points = random_points(1, 500)
    result = build_part_field(head, canonical_params(), BOX, CONFIG)(points)
    for moved in (result.eye, result.face, result.mouth):
        assert (moved - points).abs().max() < 2e-6


def test_vertices_go_to_their_canonical_places(ellipsoid: HeadModel) -> None:
    params = random_params(1)
    vertices = ellipsoid(params)
    result = build_part_field(ellipsoid, params, BOX, CONFIG)(vertices)
    for part, distance, region in (("eye", "eye_distance", "eyeballs"), ("face", "face_distance", "head")):
        rows = ellipsoid.region(region)
        offset = getattr(result, part)[0, rows] - ellipsoid.canonical_vertices[rows]
        # A neighbour 1 mm away (3e-3 world units) has a weight of 1e-10 / 9e-6, and is moved by at most 1.
        assert offset.abs().max() < 10 * 1e-10 / 9e-6 + 1e-6
        assert getattr(result, distance)[0, rows].allclose(torch.tensor(1e-6), rtol=1e-5)


def test_neighbourhoods_and_weights_of_the_face(ellipsoid: HeadModel) -> None:
    result = build_part_field(ellipsoid, random_params(1), BOX, CONFIG)(random_points(1, 300))
    assert result.nearest_region.shape == result.nearest_weights.shape == (1, 300, 10)
    assert result.nearest_region.dtype == torch.int64
    assert torch.isin(result.nearest_region[..., 0], ellipsoid.region("head")).all()
    assert (result.nearest_weights.sum(-1) - 1).abs().max() < 1e-6
    padding = result.nearest_region == len(ellipsoid.canonical_vertices)
    assert padding.any() and result.nearest_weights[padding].max() < 1e-5


def test_without_mouth(ellipsoid: HeadModel) -> None:
    params, points = random_params(2), random_points(2, 30)
    with_mouth = build_part_field(ellipsoid, params, BOX, CONFIG)(points)
    result = build_part_field(ellipsoid, params, BOX, CONFIG, mouth=False)(points)
    assert not result.mouth.any() and result.mouth.shape == (2, 30, 3)
    assert (result.mouth_distance == torch.tensor(1e-6)).all() and result.mouth_distance.shape == (2, 30)
    assert_equal(result, replace(with_mouth, mouth=result.mouth, mouth_distance=result.mouth_distance))


def test_the_mouth_follows_neither_expression_nor_gaze(ellipsoid: HeadModel) -> None:
    params, points = random_params(1), random_points(1, 50)
    other = replace(params, expression=params.expression + 1, eye_pose=params.eye_pose + 0.3)
    first = build_part_field(ellipsoid, params, BOX, CONFIG)(points)
    second = build_part_field(ellipsoid, other, BOX, CONFIG)(points)
    assert torch.equal(first.mouth, second.mouth) and torch.equal(first.mouth_distance, second.mouth_distance)
    assert not torch.equal(first.eye, second.eye)


def test_a_posed_neck_is_undone_first(ellipsoid: HeadModel) -> None:
    params, points = random_params(1, neck=1.0), random_points(1, 200)
    field = build_part_field(ellipsoid, params, BOX, CONFIG)
    upright = build_part_field(ellipsoid, params.without_neck_rotation(), BOX, CONFIG)
    assert upright.head_pose is None and field.head_pose is not None
    assert torch.equal(field.vertices, upright.vertices)
    assert_equal(field(points), upright(field.head_pose(points)))
    assert (field(points).face - upright(points).face).abs().max() > 1e-2


def test_a_blink_replaces_the_eyelids_alone(ellipsoid: HeadModel) -> None:
    params = random_params(2)
    blink = params.expression.flip(0) + 1
    field = build_part_field(ellipsoid, params, BOX, CONFIG, blink_expression=blink)
    lids = torch.zeros(len(ellipsoid.canonical_vertices), dtype=torch.bool)
    lids[ellipsoid.region("eyelids")] = True
    assert torch.equal(field.vertices[:, lids], ellipsoid(replace(params, expression=blink))[:, lids])
    assert torch.equal(field.vertices[:, ~lids], ellipsoid(params)[:, ~lids])


def hand_made_field() -> PartField:
    """Two cubes as eyeballs, sides 2 and 4, around (0, 0, 0) and (8, 0, 0), and one vertex each of face and lips."""
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
    vertices = torch.cat([corners, corners * 2 + torch.tensor([8.0, 0, 0]), torch.tensor([[0.0, 9, 0], [0, -9, 0]])])
    regions = {"eyeballs": torch.arange(16), "head": torch.tensor([16, 17]), "lips": torch.tensor([17])}
    neighbours = torch.full((18, 10), 18)
    neighbours[:, 0] = torch.arange(18)
    shift = torch.tensor([0.5, 0.25, -1])
    head = SimpleNamespace(
        region=regions.__getitem__, vertex_neighbours=neighbours, canonical_vertices=vertices + shift
    )
    return PartField(None, vertices[None], vertices[None], head)


def test_eye_boxes_are_strict_and_a_fifth_larger_than_the_eyeballs() -> None:
    half, step = np.float32(1.2), np.float32(0)
    inside, outside = np.nextafter(half, step), half
    points, wanted = [], []
    for axis in range(3):
        for sign in (-1, 1):
            for distance, result in ((inside, 1), (outside, 0)):
                point = np.zeros(3, np.float32)
                point[axis] = sign * distance
                points.append(point)
                wanted.append(result)
    points += [[8, 2.39, -2.39], [8, 2.41, 0], [5.61, 0, 0], [5.59, 0, 0], [3, 0, 0], [0, 0, 0]]
    wanted += [1, 0, 1, 0, 0, 1]
    result = hand_made_field()(torch.tensor(np.array(points, np.float32))[None])
    assert result.inside_eye_box.tolist() == [wanted] and result.inside_eye_box.dtype == torch.float32


def test_equally_near_vertices_give_the_first() -> None:
    result = hand_made_field()(torch.zeros(1, 1, 3))
    assert result.nearest_region[0, 0].tolist() == [16] + [18] * 9
    assert result.eye_distance.item() == pytest.approx(3**0.5)
    assert result.face_distance.item() == result.mouth_distance.item() == 9
    # One true neighbour: the point moves with it (the padding, 1000 away, weighs 9 * 81 / 3e6, and moves nothing).
    for moved in (result.eye, result.face, result.mouth):
        assert moved[0, 0].tolist() == pytest.approx([0.5, 0.25, -1], rel=3e-4)


def test_chunks_batches_and_empty_queries(ellipsoid: HeadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    params, points = random_params(2, neck=1.0), random_points(2, 70)
    field = build_part_field(ellipsoid, params, BOX, CONFIG)
    whole = field(points.requires_grad_())
    assert not any(getattr(whole, item.name).requires_grad for item in fields(PartPoints))
    monkeypatch.setattr(part_deformation, "_POINTS_PER_CHUNK", 16)
    assert_equal(field(points), whole)
    empty = field(torch.zeros(2, 0, 3))
    assert empty.eye.shape == (2, 0, 3) and empty.nearest_region.shape == (2, 0, 10)
    assert empty.inside_eye_box.shape == empty.mouth_distance.shape == (2, 0)
