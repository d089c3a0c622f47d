"""OpenCV's bilinear resize in closed form; the golden crops of FAN-4 and RetinaFace hold it to the bit."""

import numpy as np
import pytest
import torch

from data_preprocess.opencv_resize import resize_opencv


def test_constant_pictures_stay() -> None:
    image = torch.tensor([0, 7, 255], dtype=torch.uint8).view(3, 1, 1).expand(3, 5, 9)
    for size in ((20, 3), (1, 1), (9, 5), (4, 40)):
        resized = resize_opencv(image, size)
        assert resized.shape == (3, size[1], size[0])
        assert (resized == image[:, :1, :1]).all()


def test_halves_are_means() -> None:
    image = torch.tensor([[[1, 2, 10, 20], [3, 4, 30, 41]]], dtype=torch.uint8)
    assert resize_opencv(image, (2, 1)).tolist() == [[[3, 25]]]  # 2.5 and 25.25


def test_enlarging_interpolates_between_pixel_centres() -> None:
    image = torch.tensor([[[0, 80, 160]]], dtype=torch.uint8)
    assert resize_opencv(image, (6, 1)).tolist() == [[[0, 20, 60, 100, 140, 160]]]
    assert resize_opencv(image.mT, (1, 6)).tolist() == [[[v] for v in (0, 20, 60, 100, 140, 160)]]


def test_shrinking_skips_pixels() -> None:
    image = torch.arange(30, dtype=torch.uint8).view(1, 1, 30)
    assert resize_opencv(image, (10, 1)).tolist() == [[list(range(1, 30, 3))]]  # at 3 i + 1
    assert resize_opencv(image, (10, 1), step=2.0).tolist() == [[[round(2 * i + 0.51) for i in range(10)]]]


def test_result_is_within_a_level_of_exact_bilinear() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 13, 17), dtype=np.uint8))
    exact = torch.nn.functional.interpolate(image[None].double(), size=(29, 31), mode="bilinear", align_corners=False)
    assert (resize_opencv(image, (31, 29)).double() - exact[0]).abs().max() <= 1


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image: expected uint8 \(C, H, W\), got torch.float32 \(3, 4, 4\)"):
        resize_opencv(torch.zeros(3, 4, 4), (2, 2))
    with pytest.raises(ValueError, match="size: expected at least 1 x 1 pixels, got 0 x 2"):
        resize_opencv(torch.zeros(3, 4, 4, dtype=torch.uint8), (0, 2))
