"""Views of the static model: cameras, which motions are replaced, no gradient, the scale by the eyes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from portrait4d.config.recon_training import PseudoViewConfig
from portrait4d.geometry.cameras import split_camera
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.lookat_cameras import frontal_camera, random_camera_pose, replace_pose
from portrait4d.losses.reconstruction import teacher_box_scale
from portrait4d.models.reconstructor import RenderOptions
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.training import pseudo_views
from portrait4d.training.pseudo_views import PseudoDraws, PseudoViews
from portrait4d.training.supervision import SupervisedBatch
from tests.conftest import build_tiny
from tests.helpers.supervised_batches import wavy_batch

COUNT, SIDE, RAYS = 3, 64, 8
MIDDLE = torch.full((COUNT, 7), 0.5)


@pytest.fixture(scope="module")
def batch() -> SupervisedBatch:
    return wavy_batch(COUNT, SIDE, RAYS, extras=False)


class Reader:
    """Reads 7 from everything, and remembers what it saw."""

    def __call__(self, images: Tensor, landmarks_pixels: Tensor, params: HeadParams) -> Tensor:
        self.images, self.landmarks_pixels, self.params = images, landmarks_pixels, params
        return torch.full((len(images), 548), 7.0)


@pytest.fixture
def views(ellipsoid: HeadModel) -> PseudoViews:
    return PseudoViews(build_tiny(ellipsoid, motion_kind="pdfgc"), PseudoViewConfig(), Reader())


def test_the_model_is_frozen(views: PseudoViews) -> None:
    assert not views.network.training and not any(p.requires_grad for p in views.network.parameters())


def test_motions_are_replaced_where_the_draw_says_so(views: PseudoViews, batch: SupervisedBatch) -> None:
    draws = PseudoDraws(MIDDLE, torch.tensor([0.05, 0.11, 0.99]))
    read = views.read_motion(batch, RAYS, draws)
    assert torch.equal(read.driving_motion[0], batch.driving_motion[0])
    assert read.driving_motion[1:].unique().tolist() == [7]
    for name in ("source_motion", "driving_image", "target_image", "camera"):
        assert getattr(read, name) is getattr(batch, name)


@pytest.mark.parametrize(("probability", "replaced"), [(0.0, 0), (1.0, COUNT)])
def test_never_and_always(views: PseudoViews, batch: SupervisedBatch, probability: float, replaced: int) -> None:
    views.config = replace(views.config, motion_probability=probability)
    read = views.augment_motion(batch, RAYS, torch.Generator().manual_seed(0))
    assert int((read.driving_motion == 7).all(dim=1).sum()) == replaced


def test_motion_is_read_from_the_driving_picture_seen_from_elsewhere(
    views: PseudoViews, batch: SupervisedBatch, ellipsoid: HeadModel
) -> None:
    draws = PseudoDraws(torch.rand(COUNT, 7, generator=torch.Generator().manual_seed(3)), torch.ones(COUNT))
    views.read_motion(batch, RAYS, draws)
    camera = replace_pose(batch.camera, random_camera_pose(draws.camera))
    network, still = views.network, torch.zeros(COUNT, 1, 1)
    source = network.encode_source(batch.driving_image, batch.driving_motion, still)
    planes = network.generate_planes(source, batch.driving_motion, still)
    field = network.head_pose_field(batch.params)
    shown = network.render(planes, source.background, camera, field, RenderOptions(RAYS)).image_sr
    assert torch.allclose(views.motion.images, shown, atol=1e-6) and views.motion.params is batch.params
    expected = landmarks_2d(ellipsoid, batch.params, camera, SIDE)
    assert torch.allclose(views.motion.landmarks_pixels, expected, atol=1e-4)


def test_what_the_model_shows_depends_on_no_motion(views: PseudoViews, batch: SupervisedBatch) -> None:
    other = replace(batch, driving_motion=batch.driving_motion + 3, source_image=-batch.source_image)
    shown = [views.show(one, batch.camera, RAYS).image for one in (batch, other)]
    assert torch.equal(*shown) and not shown[0].requires_grad


def test_each_head_has_its_scale(views: PseudoViews, batch: SupervisedBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo_views, "teacher_box_scale", lambda _: torch.tensor([1.0, 0.97, 1.0]))
    scaled = views.show(batch, batch.camera, RAYS)
    views.config = replace(views.config, scale_by_eyes=False)
    plain = views.show(batch, batch.camera, RAYS)
    assert scaled.image.shape == (COUNT, 3, SIDE, SIDE) and scaled.mask.shape == (COUNT, 1, RAYS, RAYS)
    changed = (scaled.image != plain.image).flatten(1).any(dim=1)
    assert changed.tolist() == [False, True, False]


def test_the_scale_is_that_of_the_eyes_from_the_front(
    views: PseudoViews, batch: SupervisedBatch, ellipsoid: HeadModel
) -> None:
    landmarks = landmarks_2d(ellipsoid, batch.params, frontal_camera(batch.camera), SIDE)
    assert torch.equal(views.box_scales(batch), teacher_box_scale(landmarks))
    views.config = replace(views.config, scale_by_eyes=False)
    assert views.box_scales(batch).tolist() == [1.0] * COUNT


def test_the_frontal_camera(batch: SupervisedBatch) -> None:
    front, own = split_camera(frontal_camera(batch.camera)), split_camera(batch.camera)
    assert torch.equal(front.intrinsics, own.intrinsics)
    expected = torch.eye(4)
    expected[2, 3] = 4
    assert all(torch.equal(pose, expected) for pose in front.cam2world)
