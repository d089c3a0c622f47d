"""Subjects from pools: frames of one clip, their views, and pools that cannot be used."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from portrait4d.data.image_io import load_image, to_uint8
from portrait4d.data.pack_folders import PackConfig, pack_clips
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.synthetic_heads.portrait_sets import MANIFEST, PortraitSetConfig, worker_pool, write_portrait_set
from portrait4d.training.subject_frames import (
    ClipSubjects,
    FolderSubjects,
    PortraitFrame,
    SubjectFrames,
    ask_worker,
    worker_result,
)
from tests.helpers.raw_folders import write_clips

SIDE, SEEDS = 32, range(12)
CAMERA, SHAPE, MOTION = slice(0, 25), slice(25, 325), slice(325, 437)


@pytest.fixture(scope="module")
def clip_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of two frames with one extra view."""
    root = tmp_path_factory.mktemp("clips") / "set"
    write_portrait_set(PortraitSetConfig(root, identities=2, clips=2, frames=2, views=1, resolution=SIDE, fps=1.0))
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSubjects:
    raw = write_clips(tmp_path_factory.mktemp("raw") / "clips", 3, 5, SIDE)
    return ClipSubjects(pack_clips(PackConfig(raw, tmp_path_factory.mktemp("packed"), SIDE, frames=5)).target)


def same(first: PortraitFrame, second: PortraitFrame) -> bool:
    return all(np.array_equal(value, getattr(second, name)) for name, value in vars(first).items())


def check_frames(frames: SubjectFrames) -> None:
    for frame in frames[:3]:
        assert frame.image.shape == (3, SIDE, SIDE) and frame.image.dtype == np.uint8
        assert frame.mask.shape == (1, SIDE, SIDE) and frame.mask.dtype == np.uint8
        assert frame.label.shape == (437,) and frame.motion.shape == (548,)
    assert np.array_equal(frames.driving.motion, frames.target.motion)
    assert np.array_equal(frames.driving.label[MOTION], frames.target.label[MOTION])
    assert frames.depth is None


def test_frames_of_a_clip(clips: ClipSubjects) -> None:
    assert clips.has_motions and not clips.has_views
    subjects = [clips.load(seed, still=False) for seed in SEEDS]
    for frames in subjects:
        check_frames(frames)
        assert same(frames.driving, frames.target)
    assert any(not same(frames.source, frames.target) for frames in subjects)
    assert all(same(*pair) for pair in zip(subjects[3][:3], clips.load(3, still=False)[:3], strict=True))


def test_a_frame_of_a_clip_has_its_own_label(clips: ClipSubjects) -> None:
    for frames in (clips.load(seed, still=False) for seed in SEEDS):
        if not same(frames.source, frames.target):
            item = next(i for i in _items(clips) if np.array_equal(i.source_image.numpy(), frames.source.image))
            assert np.array_equal(frames.source.motion, item.source_motion.numpy())
            assert np.array_equal(frames.source.label[SHAPE], item.shape.numpy())
            return
    pytest.fail("no subject with two frames")


def _items(clips: ClipSubjects) -> list:
    return [clips.dataset.load_frames(index, frame, frame) for index in range(3) for frame in range(5)]


def test_a_still_subject_of_a_clip_is_one_frame(clips: ClipSubjects) -> None:
    for seed in SEEDS:
        frames = clips.load(seed, still=True)
        assert same(frames.source, frames.driving) and same(frames.source, frames.target)


def test_views_of_a_clip(clip_set: Path) -> None:
    pool = FolderSubjects(clip_set)
    assert pool.has_motions and pool.has_views
    subjects = [pool.load(seed, still=False) for seed in SEEDS]
    for frames in subjects:
        check_frames(frames)
        assert np.array_equal(frames.source.label[SHAPE], frames.target.label[SHAPE])
        assert not np.array_equal(frames.source.label[CAMERA], frames.target.label[CAMERA])
    assert any(not np.array_equal(frames.source.motion, frames.target.motion) for frames in subjects)


def test_a_still_subject_shows_one_motion_from_two_sides(clip_set: Path) -> None:
    for seed in SEEDS:
        frames = FolderSubjects(clip_set).load(seed, still=True)
        assert np.array_equal(frames.source.motion, frames.target.motion)
        assert np.array_equal(frames.source.label[MOTION], frames.target.label[MOTION])
        assert not np.array_equal(frames.source.label[CAMERA], frames.target.label[CAMERA])
        assert not np.array_equal(frames.source.image, frames.target.image)


def test_the_files_of_a_view(clip_set: Path) -> None:
    folder = clip_set / "clip-00001"
    frame = FolderSubjects(clip_set)._frame("clip-00001/align_images/00001.png", 1)
    picture, mask = (load_image(folder / "views" / kind / "00001_v01.png") for kind in ("align_images", "segs"))
    assert np.array_equal(frame.image, to_uint8(picture).numpy())
    assert np.array_equal(frame.mask[0], to_uint8(mask)[0].numpy())
    assert np.array_equal(frame.label, np.load(folder / "views/flame_optim_params/00001_v01.npy"))
    assert np.array_equal(frame.motion, np.load(folder / "motion_feats/00001.npy"))


def test_what_a_manifest_says_about_a_pool(tmp_path: Path) -> None:
    rows = [{"file": f"00000/align_images/0000{k}.png", "person": k, "motion": k, "views": k} for k in range(2)]
    (tmp_path / MANIFEST).write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = FolderSubjects(tmp_path)
    assert not pool.has_motions and not pool.has_views and pool.views == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        ("", "lists no portrait"),
        ("{", "not a manifest of portraits"),
        ('{"file": "a"}\n', "not a manifest of portraits"),
        ("3\n", "not a manifest of portraits"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path: Path, content: str | None, problem: str) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(InputFileError, match=problem):
        FolderSubjects(tmp_path)


def test_workers_end_by_force_only_and_then_all_of_them() -> None:
    before, pool = multiprocessing.active_children(), worker_pool(2)
    try:
        process = ask_worker(pool, os.getpid)
        for worker in set(multiprocessing.active_children()) - set(before):  # not even begun to run
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGINT)
        sleeping = [ask_worker(pool, time.sleep, 600) for _ in range(2)]
        os.kill(worker_result(process), signal.SIGTERM)
        assert not any(future.done() for future in sleeping)
        os.kill(worker_result(process), signal.SIGKILL)
        for future in sleeping:
            with pytest.raises(UserError, match="a worker process was ended from outside"):
                worker_result(future)
        with pytest.raises(UserError, match="a worker process was ended from outside"):
            ask_worker(pool, os.getpid)
    finally:
        pool.shutdown(cancel_futures=True)
    assert not set(multiprocessing.active_children()) - set(before)
