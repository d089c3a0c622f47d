"""The published networks' place in a clip, with stand-ins for them: faces, gaps, one scale, the way back."""

import numpy as np
import torch
from torch import Tensor

from data_preprocess.bfm_to_flame.parameter_mapper import unmapped_head
from data_preprocess.clip_tracker import ClipTracker
from portrait4d.data.image_io import from_uint8
from portrait4d.geometry.face_alignment import warp_affine
from tests.helpers.stub_faces import StubNetworks

SIDE = 96


def picture(x: int, size: int = 32) -> np.ndarray:
    """Return a dark picture with a bright square whose left edge is at x."""
    rows = np.zeros((SIDE, SIDE, 3), np.uint8)
    rows[30 : 30 + size, x : x + size] = np.linspace(140, 255, size, dtype=np.uint8)[:, None]
    return rows


def build_tracker() -> ClipTracker:
    def encode_motion(images: Tensor, landmarks_pixels: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 512, 512) and landmarks_pixels.shape[1:] == (68, 2)
        return images.mean((1, 2, 3))[:, None].expand(-1, 548)

    return ClipTracker(StubNetworks().networks, lambda identity, _: unmapped_head(len(identity)), encode_motion)


def test_faces_are_found_described_and_cut() -> None:
    frames = build_tracker().track([picture(20), picture(22)])
    for frame in frames:
        assert frame.image.shape == (3, 512, 512)
        assert frame.label.shape == (437,) and frame.label.dtype == np.float32
        assert frame.motion.shape == (548,) and frame.landmarks_pixels.shape == (68, 2)
        middle = frame.landmarks_pixels.mean(0)
        assert 180 < middle[0] < 330 and 180 < middle[1] < 330


def test_crops_know_the_way_back() -> None:
    rows = picture(20)
    (frame,) = build_tracker().track([rows])
    transform = torch.from_numpy(frame.crop.crop_to_image)[None]
    back = warp_affine(frame.image[None], transform, (SIDE, SIDE))[0]
    seen = warp_affine(torch.ones(1, 1, 512, 512), transform, (SIDE, SIDE))[0, 0] > 0.999
    truth = from_uint8(torch.from_numpy(rows).permute(2, 0, 1))
    assert seen.float().mean() > 0.2
    assert (back - truth)[:, seen].abs().mean() < 0.03
    assert frame.crop.image_size == (SIDE, SIDE)


def test_frames_without_a_face_are_none_and_the_face_is_found_again() -> None:
    tracker, dark = build_tracker(), np.zeros((SIDE, SIDE, 3), np.uint8)
    first = tracker.track([picture(20)])
    second = tracker.track([dark, dark, picture(40)])
    assert [frame is None for frame in first + second] == [False, True, True, False]
    assert tracker.track([]) == []


def test_the_scale_is_that_of_the_first_frame() -> None:
    frames = build_tracker().track([picture(20)]) + build_tracker().track([picture(20, 40)])
    alone = [abs(np.linalg.det(frame.crop.crop_to_image[:, :2])) for frame in frames]
    assert alone[1] > 1.3 * alone[0]  # a larger face
    tracker = build_tracker()
    frames = [tracker.track([picture(20)])[0], tracker.track([picture(20, 40)])[0]]
    together = [abs(np.linalg.det(frame.crop.crop_to_image[:, :2])) for frame in frames]
    np.testing.assert_allclose(together, alone[0], rtol=1e-6)
