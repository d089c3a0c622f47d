"""Likeness of pictures: closed forms, and scikit-image's SSIM."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from portrait4d.metrics.image_quality import depth_error, mask_overlap, psnr, ssim
from tests.helpers.waves import wave


def test_psnr_of_a_constant_difference() -> None:
    truth = wave(3, 3, 8, 6, frequency=0.7)
    picture = truth + torch.tensor([0.2, 0.02, 2.0])[:, None, None, None]
    expected = [20 * math.log10(2 / difference) for difference in (0.2, 0.02, 2.0)]
    assert psnr(picture, truth).tolist() == pytest.approx(expected, rel=1e-5)


def test_psnr_of_equal_pictures_is_bounded() -> None:
    truth = wave(1, 3, 4, 4, frequency=0.3)
    assert psnr(truth, truth).item() == pytest.approx(10 * math.log10(4e10), rel=1e-5)


def test_psnr_inside_a_mask_sees_nothing_else() -> None:
    truth = wave(2, 3, 6, 6, frequency=0.3)
    mask = torch.zeros(2, 1, 6, 6)
    mask[..., :2] = 1
    picture = torch.where(mask > 0, truth + 0.2, truth + 5)
    assert psnr(picture, truth, mask).tolist() == pytest.approx([20.0, 20.0], rel=1e-5)
    assert torch.allclose(psnr(picture, truth, torch.ones(2, 1, 6, 6)), psnr(picture, truth))


@pytest.mark.parametrize(("height", "width"), [(11, 11), (24, 31)])
def test_ssim_is_scikit_image_s(height: int, width: int) -> None:
    truth = wave(2, 3, height, width, frequency=0.37)
    picture = (truth + 0.4 * wave(2, 3, height, width, frequency=0.91)).clamp(-1, 1)
    found = ssim(picture, truth)
    for ours, one, other in zip(found.tolist(), picture.double().numpy(), truth.double().numpy(), strict=True):
        options = {"channel_axis": 0, "data_range": 2.0, "gaussian_weights": True, "sigma": 1.5}
        theirs = structural_similarity(one, other, use_sample_covariance=False, **options)
        assert ours == pytest.approx(theirs, abs=1e-5) and -1 < theirs < 0.99


def test_ssim_of_equal_pictures_is_one_and_small_ones_are_refused() -> None:
    truth = wave(1, 3, 16, 16, frequency=0.5)
    assert ssim(truth, truth).item() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"picture: expected at least 11 pixels a side, got \(10, 16\)"):
        ssim(truth[..., :10, :], truth[..., :10, :])


def test_overlap_of_masks() -> None:
    ours, theirs = np.zeros((3, 1, 2, 4), np.float32), np.zeros((3, 1, 2, 4), np.float32)
    ours[0, ..., :2], theirs[0, ..., 1:4] = 0.9, 0.6  # 2 of 8 in common
    ours[1, ..., :2] = 1  # nothing in common
    ours[2], theirs[2] = 0.5, 0.4  # both empty
    assert mask_overlap(torch.from_numpy(ours), torch.from_numpy(theirs)).tolist() == [0.25, 0.0, 1.0]


def test_error_of_depths_counts_inside_the_mask_only() -> None:
    truth = torch.full((2, 1, 3, 3), 4.0)
    depth, mask = truth.clone(), torch.zeros(2, 1, 3, 3)
    depth[0, 0, 0] = torch.tensor([4.1, 3.7, 9.0])
    mask[0, 0, 0, :2] = 1
    assert depth_error(depth, truth, mask).tolist() == pytest.approx([0.2, 0.0], abs=1e-6)
