"""Clips of held-out persons: who is shown, doing what, seen from where."""

import numpy as np
import pytest
import torch

from portrait4d.config.recon_training import ValidationConfig
from portrait4d.geometry.cameras import split_camera
from portrait4d.geometry.head_params import split_label
from portrait4d.synthetic_heads.motions import motion_vector, sample_clip_motions
from portrait4d.training.held_out_clips import FIRST_FRAME, render_clips
from portrait4d.training.subject_frames import PortraitFrame, SubjectFrames

KINDS = ("clip_self", "clip_cross", "clip_novel")
CONFIG = ValidationConfig(1, seed=3, clips=2, clip_frames=3)
SIZE = 32
SHAPE, REST, CAMERA = slice(25, 325), slice(325, 437), slice(0, 25)


@pytest.fixture(scope="module")
def clips() -> dict[str, list[SubjectFrames]]:
    return render_clips(CONFIG, SIZE, KINDS)


def camera_position(frame: PortraitFrame) -> np.ndarray:
    """Return where the label's camera is, (3,)."""
    camera, _ = split_label(torch.from_numpy(frame.label)[None])
    return split_camera(camera).cam2world[0, :3, 3].numpy()


def test_clips_follow_each_other(clips: dict[str, list[SubjectFrames]]) -> None:
    for subjects in clips.values():
        assert len(subjects) == CONFIG.clips * CONFIG.clip_frames
        for number, one in enumerate(subjects):
            clip, frame = divmod(number, CONFIG.clip_frames)
            motions = sample_clip_motions(CONFIG.seed, clip, FIRST_FRAME + CONFIG.clip_frames)
            assert np.array_equal(one.source.motion, motion_vector(motions[0]))
            assert np.array_equal(one.target.motion, motion_vector(motions[FIRST_FRAME + frame]))
            assert np.array_equal(one.driving.motion, one.target.motion)
            assert np.array_equal(one.driving.label[REST], one.target.label[REST])
            assert np.array_equal(one.source.label[SHAPE], one.target.label[SHAPE])
            assert one.target.image.shape == (3, SIZE, SIZE) and one.depth is None
    people = [clips["clip_self"][k].source.label[SHAPE] for k in (0, CONFIG.clip_frames)]
    assert not np.array_equal(*people)


def test_own_and_others_drive(clips: dict[str, list[SubjectFrames]]) -> None:
    for own, other, novel in zip(*clips.values(), strict=True):
        assert own.driving is own.target and novel.driving is own.driving and other.target is own.target
        assert not np.array_equal(other.driving.label[SHAPE], own.driving.label[SHAPE])
        assert not np.array_equal(other.driving.image, own.driving.image)


def test_novel_views_are_from_the_side(clips: dict[str, list[SubjectFrames]]) -> None:
    yaws = []
    for one in clips["clip_novel"]:
        seen, own = (np.append(camera_position(frame)[[0, 2]], 0) for frame in (one.target, one.driving))
        assert np.array_equal(one.target.label[SHAPE], one.driving.label[SHAPE])
        assert not np.array_equal(one.target.image, one.driving.image)
        angle = np.arctan2(seen[0], seen[1]) - np.arctan2(own[0], own[1])
        yaws.append(np.rad2deg(angle))
    assert np.abs(yaws) == pytest.approx(30, abs=4), "about the neck, not about the world's axis"
    assert len(set(np.sign(yaws[: CONFIG.clip_frames]))) == 1 and np.sign(yaws[0]) == -np.sign(yaws[-1])


def test_no_kind_but_those_asked_for() -> None:
    small = ValidationConfig(1, seed=3, clips=1, clip_frames=3)
    assert render_clips(small, SIZE, ("clip_novel",)).keys() == {"clip_novel"}
