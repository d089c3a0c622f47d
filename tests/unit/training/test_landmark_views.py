"""Random views of the landmark network's training: points stay on the pixels that they mark."""

import pytest
import torch

from portrait4d.config.landmark_training import ViewConfig
from portrait4d.training.landmark_examples import FACE_MARGIN, mean_face
from portrait4d.training.landmark_task import mark_points, point_errors
from portrait4d.training.landmark_views import Faces, draw_grounds, draw_views, mirror_faces

COUNT, SIDE, SIZE = 12, 64, 48
WITH_FACES = ViewConfig(source_size=SIDE, empty=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def faces() -> Faces:
    """Black pictures with a white spot at landmark 0; the other landmarks lie around it."""
    points = 0.5 + 0.25 * (torch.rand(COUNT, 70, 2, generator=generator()) - 0.5)
    place = (torch.arange(SIDE) + 0.5) / SIDE
    x, y = points[:, 0].unbind(1)
    square = (place - x[:, None])[:, None, :] ** 2 + (place - y[:, None])[:, :, None] ** 2
    spot = torch.where(square < 0.06**2, 1.0, -1.0)
    return Faces(spot[:, None].expand(-1, 3, -1, -1).contiguous(), points)


def spots(images: torch.Tensor) -> torch.Tensor:
    """Return the centres (B, 2) of the spots, fractions."""
    place = (torch.arange(images.shape[-1]) + 0.5) / images.shape[-1]
    weights = (images.mean(dim=1) + 1) / 2
    total = weights.sum(dim=(1, 2))
    return torch.stack([(weights.sum(dim=1) @ place) / total, (weights.sum(dim=2) @ place) / total], dim=1)


def close_transforms() -> torch.Tensor:
    return torch.tensor([[1.8, 0.2, -0.5], [-0.2, 1.8, -0.3]]).double().expand(COUNT, 2, 3)


@pytest.mark.parametrize("close", [0.0, 1.0])
def test_points_stay_on_their_pixels(faces: Faces, close: float) -> None:
    config = ViewConfig(source_size=SIDE, close=close, empty=0.0, edge=1.0, smallest=0.7, turn_deg=60)
    views = draw_views(faces, SIZE, close_transforms(), config, generator(3))
    assert views.images.shape == (COUNT, 3, SIZE, SIZE) and views.presence.tolist() == [1.0] * COUNT
    inside = ((views.points[:, 0] > 0.15) & (views.points[:, 0] < 0.85)).all(dim=1)
    assert inside.sum() >= COUNT // 2
    gap = (spots(views.images) - views.points[:, 0])[inside].abs().max()
    assert gap < 0.5 / SIZE


def test_faces_that_fit_lie_within_the_view(faces: Faces) -> None:
    config = ViewConfig(source_size=SIDE, close=0.0, empty=0.0)
    points = draw_views(faces, SIZE, close_transforms(), config, generator()).points
    assert points.min() > -0.04 and points.max() < 1.04
    assert points.mean(dim=1).std(dim=0).min() > 0.1


def test_the_ground_is_seen_where_the_picture_ends(faces: Faces) -> None:
    config = ViewConfig(source_size=SIDE, close=0.0, empty=0.0, smallest=0.3, largest=0.3, edge=0.0)
    bright = Faces(torch.ones_like(faces.images), faces.points)
    on_ground = draw_views(bright, SIZE, close_transforms(), config, generator())
    own = ViewConfig(source_size=SIDE, close=0.0, empty=0.0, smallest=0.3, largest=0.3, edge=1.0)
    assert draw_views(bright, SIZE, close_transforms(), own, generator()).images.min() > 0.9999
    share = (on_ground.images > 0.9999).all(dim=1).float().mean(dim=(1, 2))
    assert 0.03 < share.min() < 0.3


def test_some_faces_are_mirrored_with_left_and_right_exchanged(faces: Faces) -> None:
    mirrored = mirror_faces(faces, generator())
    changed = (mirrored.points != faces.points).flatten(1).any(dim=1)
    assert 0 < int(changed.sum()) < COUNT
    torch.testing.assert_close(mirrored.points[changed, 16, 0], 1 - faces.points[changed, 0, 0])
    torch.testing.assert_close(
        mirrored.points[changed, 68], faces.points[changed, 69] * torch.tensor([-1, 1.0]) + torch.tensor([1.0, 0])
    )
    torch.testing.assert_close(spots(mirrored.images)[changed][:, 0], 1 - spots(faces.images)[changed][:, 0])


def test_views_without_a_face_say_so(faces: Faces) -> None:
    config = ViewConfig(source_size=SIDE, empty=1.0)
    views = draw_views(faces, SIZE, close_transforms(), config, generator())
    assert views.presence.tolist() == [0.0] * COUNT
    same = draw_views(faces, SIZE, close_transforms(), WITH_FACES, generator())
    assert (views.images != same.images).flatten(1).any(dim=1).all()


def test_grounds_differ_and_keep_the_range() -> None:
    grounds = draw_grounds(20, SIZE, generator())
    assert grounds.shape == (20, 3, SIZE, SIZE) and grounds.abs().max() <= 1
    assert grounds.mean(dim=(1, 2, 3)).std() > 0.2
    assert torch.equal(grounds, draw_grounds(20, SIZE, generator()))


def test_the_mean_face_is_upright_and_centred() -> None:
    base = torch.rand(70, 2, generator=generator(5)).double()
    base[36:42], base[42:48] = torch.tensor([0.3, 0.4]), torch.tensor([0.7, 0.4])
    turns = [torch.tensor([[c, -s], [s, c]]) for c, s in ((0.8, 0.6), (0.6, -0.8), (1.0, 0.0))]
    points = torch.stack([base @ turn.double().T * (1 + k) + k for k, turn in enumerate(turns)])
    mean = mean_face(points.float())
    low, high = mean.amin(dim=0), mean.amax(dim=0)
    torch.testing.assert_close((low + high) / 2, torch.full((2,), 0.5))
    assert float((high - low).max()) == pytest.approx(1 - 2 * FACE_MARGIN)
    eyes = mean[42] - mean[36]
    assert float(eyes[1]) == pytest.approx(0, abs=1e-5) and eyes[0] > 0


def test_errors_are_in_units_of_the_face_and_marks_are_green() -> None:
    true = torch.tensor([[[0.2, 0.2], [0.6, 0.4], [1.2, 0.3]]])
    found = torch.tensor([[[0.2, 0.2], [0.6, 0.4], [0.9, 0.3]]])
    torch.testing.assert_close(point_errors(found, true)[0, 2], torch.tensor([-0.1 / 0.6, 0.0]))  # sides 1.0 and 0.2
    marked = mark_points(torch.zeros(1, 3, 10, 10), found)
    assert marked[0, :, 4, 6].tolist() == [-1, 1, -1] and int((marked != 0).any(dim=1).sum()) == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"empty": 1.5}, "edge: expected from 0 to 1"),
        ({"smallest": 2.0}, "largest"),
        ({"source_size": 4}, "at least 8"),
    ],
)
def test_impossible_views_are_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewConfig(**changed)
