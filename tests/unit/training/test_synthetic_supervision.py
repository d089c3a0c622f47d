"""Batches of the open head world: what each frame is used for, sizes, motion readers, workers, refusals."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.data.image_io import from_uint8
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.rendering.mesh_maps import landmarks_2d, render_correspondence
from portrait4d.training.subject_frames import PortraitFrame, SubjectFrames
from portrait4d.training.supervision import flame_motion
from portrait4d.training.synthetic_supervision import SyntheticHeadsSupervision, SyntheticSupervisionConfig
from tests.helpers.raw_folders import painted_label

SIDE = 32


@dataclass(frozen=True)
class PaintedSubjects:
    """Frames of noise with labels of a head that turns; still ones show the source's motion."""

    side: int = SIDE
    depth: bool = False
    has_motions: bool = True
    has_views: bool = True
    broken: bool = False

    def load(self, seed: int, still: bool) -> SubjectFrames:
        """Make the subject of a seed."""
        if self.broken:
            raise InputFileError("frame.png", "is damaged")
        rng = np.random.default_rng(seed)
        source = self._frame(rng, 1.0)
        driving, target = (self._frame(rng, 1.0 if still else 2.0) for _ in range(2))
        return SubjectFrames(source, driving, target, np.full((1, 8, 8), 4, np.float32) if self.depth else None)

    def _frame(self, rng: np.random.Generator, motion: float) -> PortraitFrame:
        label = painted_label(rng.uniform(-0.4, 0.4), smile=motion)[0].numpy()
        label[25:28] = rng.normal(size=3)
        label[426] = 0.3  # the neck turns
        image, mask = (rng.integers(0, 256, (c, self.side, self.side), dtype=np.uint8) for c in (3, 1))
        return PortraitFrame(image, mask, label, np.full(548, motion, np.float32))


def supervise(head: HeadModel, source: PaintedSubjects | None = None, **changes: object) -> SyntheticHeadsSupervision:
    settings = replace(SyntheticSupervisionConfig(SIDE), **changes)
    return SyntheticHeadsSupervision(source or PaintedSubjects(), head, settings)


def drawn_seeds(count: int, seed: int) -> list[int]:
    return torch.randint(2**62, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_what_each_frame_is_used_for(ellipsoid: HeadModel) -> None:
    batch = supervise(ellipsoid).sample(2, torch.Generator().manual_seed(5))
    for number, seed in enumerate(drawn_seeds(2, 5)):
        source, driving, target, _ = PaintedSubjects().load(seed, still=False)
        for name, frame in (("source_image", source), ("driving_image", driving), ("target_image", target)):
            assert torch.equal(getattr(batch, name)[number], from_uint8(torch.from_numpy(frame.image)))
        assert torch.equal(batch.target_mask[number], from_uint8(torch.from_numpy(target.mask)))
        upright, params = split_label(torch.from_numpy(target.label)[None])
        params = params.with_shape(torch.from_numpy(source.label)[None, 25:325])
        assert torch.equal(batch.camera_upright[number], upright[0])
        assert torch.allclose(batch.camera[number], camera_for_posed_neck(ellipsoid, params, upright)[0], atol=1e-5)
        for name, value in vars(params).items():
            assert torch.equal(getattr(batch.params, name)[number], value[0]), name
        assert batch.source_motion[number].unique().tolist() == [1]
        assert batch.driving_motion[number].unique().tolist() == [2]
    assert batch.target_mask.shape == (2, 1, SIDE, SIDE)
    assert batch.depth is batch.features is batch.background is batch.plane_samples is None


def test_the_correspondence_map_is_that_of_the_posed_head(ellipsoid: HeadModel) -> None:
    batch = supervise(ellipsoid).sample(1, torch.Generator().manual_seed(0))
    expected = render_correspondence(ellipsoid, batch.params, batch.camera, SIDE).image
    assert torch.equal(batch.target_correspondence, expected) and expected.abs().max() > 0.1
    unseen = supervise(ellipsoid).request(1, torch.Generator().manual_seed(0), judged=False)()
    assert unseen.target_correspondence is None and torch.equal(unseen.target_image, batch.target_image)


def test_depth_comes_along(ellipsoid: HeadModel) -> None:
    batch = supervise(ellipsoid, PaintedSubjects(depth=True)).sample(2, torch.Generator().manual_seed(0))
    assert torch.equal(batch.depth, torch.full((2, 1, 8, 8), 4.0))


def test_which_subjects_are_still(ellipsoid: HeadModel) -> None:
    half = supervise(ellipsoid, half_static=True).sample(4, torch.Generator().manual_seed(0))
    assert half.is_still.tolist() == [False, False, True, True]
    assert half.driving_motion[:, 0].tolist() == [2, 2, 1, 1]
    assert supervise(ellipsoid, static=True).sample(1, torch.Generator().manual_seed(0)).is_still.all()


def test_larger_pictures_are_reduced_and_smaller_ones_refused(ellipsoid: HeadModel) -> None:
    batch = supervise(ellipsoid, size=SIDE // 2).sample(1, torch.Generator().manual_seed(0))
    frames = PaintedSubjects().load(drawn_seeds(1, 0)[0], still=False)
    assert batch.target_image.shape == batch.target_correspondence.shape == (1, 3, SIDE // 2, SIDE // 2)
    mean = from_uint8(torch.from_numpy(frames.target.image)).mean()
    assert batch.target_image.mean().item() == pytest.approx(mean.item(), abs=0.03)
    with pytest.raises(UserError, match="the pool's pictures have 32 pixels a side, the network's 64"):
        supervise(ellipsoid, size=2 * SIDE).sample(1)


def test_a_motion_reader_sees_pictures_landmarks_and_parameters(ellipsoid: HeadModel) -> None:
    seen = []

    def motion(images: Tensor, landmarks_pixels: Tensor, params: HeadParams) -> Tensor:
        seen.append((images, landmarks_pixels, params))
        return flame_motion(images, landmarks_pixels, params)

    supervision = SyntheticHeadsSupervision(PaintedSubjects(), ellipsoid, SyntheticSupervisionConfig(SIDE), motion)
    batch = supervision.sample(2, torch.Generator().manual_seed(0))
    assert batch.source_motion.shape == (2, 109)
    assert torch.equal(batch.driving_motion, batch.params.flame_motion())
    (source_images, _, _), (images, landmarks, params) = seen
    assert torch.equal(source_images, batch.source_image) and torch.equal(images, batch.driving_image)
    frames = [PaintedSubjects().load(seed, still=False).driving for seed in drawn_seeds(2, 0)]
    upright, own = split_label(torch.from_numpy(np.stack([frame.label for frame in frames])))
    expected = landmarks_2d(ellipsoid, own, camera_for_posed_neck(ellipsoid, own, upright), SIDE)
    assert torch.equal(params.shape, own.shape) and torch.allclose(landmarks, expected, atol=1e-4)


def test_pools_that_lack_what_is_asked_for(ellipsoid: HeadModel) -> None:
    with pytest.raises(UserError, match="static training needs several views of one motion"):
        supervise(ellipsoid, PaintedSubjects(has_views=False), static=True)
    with pytest.raises(UserError, match="this pool has one motion of each person"):
        supervise(ellipsoid, PaintedSubjects(has_motions=False))
    supervise(ellipsoid, PaintedSubjects(has_motions=False), static=True)
    supervise(ellipsoid, PaintedSubjects(has_views=False), half_static=True)


def test_bad_settings_are_refused(ellipsoid: HeadModel) -> None:
    with pytest.raises(ValueError, match="workers: expected at least 0, got -1"):
        SyntheticSupervisionConfig(SIDE, workers=-1)


def test_of_an_odd_number_the_middle_one_moves(ellipsoid: HeadModel) -> None:
    assert supervise(ellipsoid, half_static=True).sample(3).is_still.tolist() == [False, False, True]


def test_workers_give_the_same_and_hand_errors_over(ellipsoid: HeadModel) -> None:
    here = supervise(ellipsoid).sample(3, torch.Generator().manual_seed(1))
    there = supervise(ellipsoid, workers=1)
    broken = supervise(ellipsoid, PaintedSubjects(broken=True), workers=1)
    try:
        waiting, failing = there.request(3, torch.Generator().manual_seed(1)), broken.request(1)
        batch = waiting()
        for name in ("source_image", "driving_image", "target_image", "camera", "driving_motion"):
            assert torch.equal(getattr(batch, name), getattr(here, name)), name
        with pytest.raises(UserError, match="frame.png: is damaged"):
            failing()
    finally:
        there.close()
        broken.close()
