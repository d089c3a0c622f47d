"""Varied subjects: colours that change alike, mirrors with labels that fit, and nothing random but the seed."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams, join_label, split_label
from portrait4d.geometry.mirroring import HeadMirror
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.synthetic_heads.figure import open_head_model
from portrait4d.synthetic_heads.motions import motion_vector, sample_still_motion
from portrait4d.training.subject_frames import PortraitFrame, SubjectFrames
from portrait4d.training.subject_variation import VariedSubjects, recolour
from tests.helpers.cameras import frontal_camera

SIDE = 16


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return open_head_model()


@dataclass(frozen=True)
class StripedSubjects:
    """One grey stripe at the left; the head winks with one eye and turns."""

    has_motions: bool = True
    has_views: bool = False

    def load(self, seed: int, still: bool) -> SubjectFrames:
        """Make the subject of a seed, which is always the same."""
        image = np.full((3, SIDE, SIDE), 60, np.uint8)
        image[:, :, :4] = 180
        motion = sample_still_motion(3, 0)
        params = HeadParams(
            torch.zeros(1, 300),
            torch.from_numpy(motion.expression)[None],
            torch.from_numpy(np.concatenate([motion.neck_rad, motion.jaw_rad]))[None],
            torch.from_numpy(np.tile(motion.gaze_rad, 2))[None],
        )
        label = join_label(frontal_camera(), params)[0].numpy()
        frame = PortraitFrame(image, image[:1], label, motion_vector(motion))
        return SubjectFrames(frame, frame, frame, np.arange(4, dtype=np.float32).reshape(1, 1, 4))


def is_mirrored(subject: SubjectFrames) -> bool:
    return subject.target.mask[0, 0, 0] < subject.target.mask[0, 0, -1]


def test_half_of_the_subjects_are_mirrored_with_all_that_belongs_to_them(head: HeadModel) -> None:
    plain = StripedSubjects().load(0, False)
    varied = VariedSubjects(StripedSubjects(), HeadMirror.fit(head))
    subjects = [varied.load(seed, False) for seed in range(20)]
    mirrored = [subject for subject in subjects if is_mirrored(subject)]
    assert 4 <= len(mirrored) <= 16
    subject = mirrored[0]
    assert subject.depth[0, 0].tolist() == [3, 2, 1, 0]
    points = []
    for frame in (plain.target, subject.target):
        camera, params = split_label(torch.from_numpy(frame.label)[None])
        points.append(landmarks_2d(head, params, camera, SIDE)[0, 68:])  # eye centres
    expected = points[0].flip(0) * torch.tensor([-1.0, 1.0]) + torch.tensor([float(SIDE), 0.0])
    torch.testing.assert_close(points[1], expected, atol=1e-2, rtol=0)
    assert not np.allclose(subject.target.motion, plain.target.motion, atol=1e-3)  # its gaze goes the other way
    other = next(subject for subject in subjects if not is_mirrored(subject))
    assert np.array_equal(other.target.motion, plain.target.motion) and np.array_equal(
        other.target.label, plain.target.label
    )


def test_colours_change_alike_and_by_the_seed_alone() -> None:
    varied = VariedSubjects(StripedSubjects(), HeadMirror.unchanged())
    first, again, other = (varied.load(seed, True) for seed in (1, 1, 2))
    assert np.array_equal(first.source.image, again.source.image)
    assert np.array_equal(first.source.image, first.target.image)
    assert (
        len({tuple(subject.source.image[:, 0, 8]) for subject in (first, other, StripedSubjects().load(0, True))}) == 3
    )


def test_recolouring_multiplies_adds_and_stays_in_range() -> None:
    image = np.array([[[10]], [[20]], [[250]]], np.uint8)
    swapped = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.5]], np.float32)
    assert recolour(image, swapped, 2.0).ravel().tolist() == [22, 12, 255]
