"""Video clips: the frames asked for, rectified rotations, real mirror images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.clip_dataset import ClipDataset
from portrait4d.data.image_io import load_image, to_uint8
from portrait4d.data.loading import BatchLoader, LoadingConfig
from portrait4d.data.record_stores import detect_kind
from portrait4d.data.records import CLIP
from portrait4d.geometry.head_rotation import rectify_head_rotations
from portrait4d.geometry.mirroring import HeadMirror, mirror_axis_angle
from tests.unit.data.conftest import SIDE


def test_items_are_the_frames_asked_for(raw_clips: Path, clip_database: Path) -> None:
    dataset = ClipDataset(clip_database)
    assert (len(dataset), dataset.resolution, dataset.frame_count(1)) == (3, SIDE, 5)
    item = dataset.load_frames(1, 3, 2)
    clip = raw_clips / "clip-001"
    labels = np.stack([np.load(clip / "flame_optim_params" / f"{k:05d}.npy") for k in range(5)])
    pictures = [to_uint8(load_image(clip / "align_images" / f"{k:05d}.png")) for k in (3, 2)]
    assert torch.equal(item.source_image, pictures[0]) and torch.equal(item.driving_image, pictures[1])
    mask = to_uint8(load_image(clip / "segs" / "00002.png"))
    assert torch.equal(item.driving_mask, mask)
    assert torch.equal(item.camera, torch.from_numpy(labels[2, :25]))
    assert torch.equal(item.shape, torch.from_numpy(labels[3, 25:325]))
    assert torch.equal(item.expression, torch.from_numpy(labels[2, 325:425]))
    expected = rectify_head_rotations(labels[:, 425:428])[2]
    np.testing.assert_allclose(item.pose[:3].numpy(), expected, atol=1e-7)
    assert torch.equal(item.pose[3:], torch.from_numpy(labels[2, 428:431]))
    assert np.array_equal(item.source_motion.numpy(), np.load(clip / "motion_feats" / "00003.npy"))
    assert item.frames.tolist() == [3, 2]
    assert detect_kind(clip_database) == CLIP


def test_flame_motions_are_expression_jaw_and_eyes(clip_database: Path) -> None:
    item = ClipDataset(clip_database, flame_motion=True).load_frames(0, 0, 1)
    assert item.source_motion.shape == (109,)
    assert torch.equal(item.driving_motion, torch.cat([item.expression, item.pose[3:], item.eye_pose]))


def test_frames_are_drawn_evenly_from_the_generator(clip_database: Path) -> None:
    dataset = ClipDataset(clip_database)
    generator = torch.Generator().manual_seed(0)
    frames = torch.stack([dataset.load(0, generator).frames for _ in range(300)])
    counts = torch.bincount(frames.flatten(), minlength=5)
    assert counts.min() > 80 and counts.max() < 160
    assert (frames[:, 0] == frames[:, 1]).float().mean() == pytest.approx(0.2, abs=0.08)
    again = dataset.load(0, torch.Generator().manual_seed(0)).frames
    assert torch.equal(again, frames[0])


def test_mirrored_clips(clip_database: Path) -> None:
    dataset = ClipDataset(clip_database, flame_motion=True, mirror=HeadMirror.unchanged())
    assert len(dataset) == 6 and dataset.is_mirrored.tolist() == [False] * 3 + [True] * 3
    item, mirrored = dataset.load_frames(1, 0, 2), dataset.load_frames(4, 0, 2)
    assert torch.equal(mirrored.source_image, item.source_image.flip(-1))
    assert torch.equal(mirrored.driving_mask, item.driving_mask.flip(-1))
    torch.testing.assert_close(mirrored.pose[3:], mirror_axis_angle(item.pose[3:]))
    torch.testing.assert_close(mirrored.eye_pose[:3], mirror_axis_angle(item.eye_pose[3:]))
    assert mirrored.camera[3] == -item.camera[3] and mirrored.camera[7] == item.camera[7]
    assert torch.equal(mirrored.driving_motion[100:103], mirrored.pose[3:])


def test_stored_motion_vectors_are_not_mirrored_but_computed_anew(clip_database: Path) -> None:
    with pytest.raises(ValueError, match="mirror: expected flame_motion or compute_motion with it"):
        ClipDataset(clip_database, mirror=HeadMirror.unchanged())
    seen = []

    def compute(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append((images, labels))
        return torch.arange(2.0)[:, None].repeat(1, 548)

    dataset = ClipDataset(clip_database, mirror=HeadMirror.unchanged(), compute_motion=compute)
    dataset.load_frames(0, 1, 2)
    assert not seen
    item = dataset.load_frames(3, 1, 2)
    images, labels = seen[0]
    assert images.shape == (2, 3, SIDE, SIDE) and images.min() >= -1 and labels.shape == (2, 437)
    assert torch.equal(to_uint8(images[0]), item.source_image), "the mirrored pictures are what is looked at"
    assert item.source_motion[0] == 0 and item.driving_motion[0] == 1


def test_batches_do_not_depend_on_workers(clip_database: Path) -> None:
    dataset = ClipDataset(clip_database)
    alone = BatchLoader(dataset, LoadingConfig(2, seed=3))
    helped = BatchLoader(dataset, LoadingConfig(2, seed=3, workers=2))
    for _ in range(3):
        first, second = next(alone), next(helped)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    helped.close()


def test_wrong_frames_are_refused(clip_database: Path) -> None:
    dataset = ClipDataset(clip_database)
    with pytest.raises(ValueError, match="source, driving: expected 0 to 4, got 5, 0"):
        dataset.load_frames(0, 5, 0)
    with pytest.raises(IndexError, match="expected 0 to 2, got 3"):
        dataset[3]
