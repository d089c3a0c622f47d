"""Portrait crops: the fit, the crop, landmarks and pixels carried there and back, and the smoothing of tracks."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data_preprocess import portrait_crop
from data_preprocess.portrait_crop import (
    FIVE_POINTS_OF_98,
    PORTRAIT,
    REFERENCE_POINTS,
    REGRESSOR,
    CropKind,
    CropTransform,
    Placement,
    crop_portrait,
    cut_crop,
    fit_placement,
)
from data_preprocess.track_smoothing import PlacementSmoother
from portrait4d.geometry.face_alignment import warp_affine
from tests.helpers.waves import wave

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "portraits" / "2dldmks_align"


def frontal_face(kind: CropKind, pixels_per_unit: float, origin: tuple[float, float], height: int) -> Tensor:
    """Return 98 landmarks, y down, whose five points are the reference face seen from the front."""
    points = torch.zeros(98, 2, dtype=torch.float64)
    for row, (x, y, _) in zip(FIVE_POINTS_OF_98, REFERENCE_POINTS, strict=True):
        up = origin[1] + pixels_per_unit * (y + kind.raised)
        points[row] = torch.tensor([origin[0] + pixels_per_unit * x, height - 1 - up])
    return points


def smooth_picture(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(x / 23).sin(), (y / 31).cos(), ((x + y) / 37).sin()]).float() * 0.9


# ---------------------------------------------------------------------------------------------------- fit


@pytest.mark.parametrize("kind", [PORTRAIT, REGRESSOR])
def test_fit_of_a_frontal_face(kind: CropKind) -> None:
    placement = fit_placement(frontal_face(kind, 90.0, (110.0, 130.0), 240), 240, kind)
    assert placement.scale == pytest.approx(kind.face_scale / 90)
    assert placement.shift == pytest.approx((110, 130))


@pytest.mark.skipif(not REAL.is_dir(), reason="real portraits (../shared/real) are not on this machine")
def test_published_crops_are_in_their_frame() -> None:
    """preprocess-pipeline.md §5.4: with y turned over at 512, the scale is 180 and the origin within half a pixel."""
    files = sorted(REAL.glob("*.npy"))
    assert files
    for path in files:
        placement = fit_placement(torch.from_numpy(np.load(path)), 513)
        assert placement.scale == pytest.approx(1, abs=1e-12)
        assert all(256 <= value < 256.5 for value in placement.shift)


def test_landmarks_without_a_face_are_refused() -> None:
    with pytest.raises(ValueError, match=r"landmarks98: expected the points of a face, got one of [\d.e-]+ pixels"):
        fit_placement(torch.full((98, 2), 5.0), 100)
    with pytest.raises(ValueError, match="landmarks98: expected the points of a face, got one of nan pixels"):
        fit_placement(torch.full((98, 2), math.nan), 100)
    with pytest.raises(ValueError, match=r"landmarks98: expected shape \(98, 2\), got \(68, 2\)"):
        fit_placement(torch.zeros(68, 2), 100)


# ---------------------------------------------------------------------------------------------------- crop


def test_unscaled_crop_is_a_cutout() -> None:
    picture = smooth_picture(700, 600)
    transform = CropTransform((600, 700), Placement(1.0, (310.0, 340.0)))
    assert transform.resized_size == (600, 700) and transform.corner == (54, 104)  # 310 - 256, 700 - 340 - 256
    torch.testing.assert_close(cut_crop(picture, transform), picture[:, 104:616, 54:566], rtol=0, atol=1 / 127)


def test_outside_the_edge_is_repeated_or_black() -> None:
    picture = smooth_picture(100, 120)
    for kind in (PORTRAIT, REGRESSOR):
        transform = CropTransform((120, 100), Placement(1.0, (60.0, 50.0)), kind)
        crop = cut_crop(picture, transform)
        left, up = transform.corner
        assert left < 0 and up < 0
        inner = crop[:, -up : 100 - up, -left : 120 - left]
        torch.testing.assert_close(inner, picture, rtol=0, atol=1 / 127)
        if kind.repeat_edge:
            assert (crop[:, :-up] == crop[:, -up : 1 - up]).all() and (crop[:, 100 - up :] == crop[:, [99 - up]]).all()
        else:
            assert int((crop != -1).any(0).sum()) == 120 * 100


def test_large_pictures_are_resized_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = smooth_picture(300, 400)
    for shift in ((210.0, 160.0), (20.0, 290.0), (-500.0, 160.0)):
        transform = CropTransform((400, 300), Placement(3.3, shift))
        whole = cut_crop(picture, transform)
        with monkeypatch.context() as patch:
            patch.setattr(portrait_crop, "_MOST_RESIZED_PIXELS", 0)
            part = cut_crop(picture, transform)
        assert (whole - part).abs().max() < 2.5 / 127.5  # Pillow holds boxes in float32 and rounds after each axis


def test_pictures_of_another_size_or_a_vanishing_scale_are_refused() -> None:
    transform = CropTransform((50, 40), Placement(1.0, (20.0, 20.0)))
    with pytest.raises(ValueError, match=r"image: expected width and height \(50, 40\), got \(40, 50\)"):
        cut_crop(torch.zeros(3, 50, 40), transform)
    with pytest.raises(ValueError, match="size: expected at least 1 x 1 pixels, got 0 x 0"):
        cut_crop(torch.zeros(3, 40, 50), CropTransform((50, 40), Placement(0.01, (20.0, 20.0))))
    with pytest.raises(ValueError, match=r"image: expected shape \(3, H, W\), got \(1, 3, 8, 8\)"):
        crop_portrait(torch.zeros(1, 3, 8, 8), torch.zeros(98, 2))


# ---------------------------------------------------------------------------------------------------- carrying


def test_a_face_comes_to_the_middle_of_its_frame() -> None:
    points = frontal_face(PORTRAIT, 60.0, (150.0, 120.0), 260)
    portrait = crop_portrait(smooth_picture(260, 280), points, points[:68])
    assert portrait.image.shape == (3, 512, 512)
    x, y, _ = REFERENCE_POINTS[2]  # nose tip: 180 pixels per unit about the middle
    expected = [256 + 180 * x, 256 - 180 * (y + PORTRAIT.raised)]
    assert (portrait.landmarks98[54] - torch.tensor(expected)).abs().max() < 2  # whole pixels, and y upside down
    assert torch.equal(portrait.landmarks68, portrait.landmarks98[:68])
    # the published frame: `test_published_crops_are_in_their_frame`
    again = fit_placement(portrait.landmarks98, 513)
    assert again.scale == pytest.approx(1) and all(256 <= value < 256.5 for value in again.shift)
    assert crop_portrait(smooth_picture(260, 280), points).landmarks68 is None


def test_exact_landmarks_follow_the_pixels() -> None:
    transform = CropTransform((317, 411), Placement(1.37, (150.3, 220.9)))
    corners = torch.tensor([[-0.5, -0.5], [316.5, 410.5]])
    (width, height), (left, up) = transform.resized_size, transform.corner
    expected = [[-0.5 - left, -0.5 - up], [width - 0.5 - left, height - 0.5 - up]]
    np.testing.assert_allclose(transform.landmarks_to_crop(corners, exact=True), expected, atol=1e-9)
    published = transform.landmarks_to_crop(wave(68, 3) * 100 + 150)
    followed = transform.landmarks_to_crop(wave(68, 3) * 100 + 150, exact=True)
    assert published.shape == (68, 2)
    assert (published - followed).abs().max() < (1.37 + 1) / 2 + 2


def test_results_return_into_the_original() -> None:
    picture = smooth_picture(330, 410)
    transform = CropTransform((410, 330), Placement(2.1, (200.0, 150.0)))
    back = warp_affine(cut_crop(picture, transform)[None], transform.crop_to_image[None], (330, 410))[0]
    low, high = transform.landmarks_to_crop(torch.tensor([[0.0, 0.0], [409.0, 329.0]]), exact=True)
    assert (low < 0).all() and (high > 511).all()  # the crop lies within the picture
    y, x = torch.meshgrid(torch.arange(330), torch.arange(410), indexing="ij")
    inside = transform.landmarks_to_crop(torch.stack([x, y], -1), exact=True)
    covered = ((inside >= 0) & (inside <= 511)).all(-1)
    assert 50_000 < int(covered.sum()) < 70_000  # (512 / 2.1)^2
    assert (back - picture).abs()[:, covered].max() < 0.02
    assert (back[:, ((inside < -1) | (inside > 512)).any(-1)] == 0).all()
    product = torch.cat([transform.crop_to_image, torch.tensor([[0.0, 0, 1]], dtype=torch.float64)])
    affine = torch.cat([transform.image_to_crop, torch.tensor([[0.0, 0, 1]], dtype=torch.float64)])
    np.testing.assert_allclose(product @ affine, np.eye(3), atol=1e-9)


# ---------------------------------------------------------------------------------------------------- smoothing


def test_jitter_is_damped_and_films_are_independent() -> None:
    track = [Placement(1 + 0.02 * (-1) ** k, (200 + (-1) ** k, 150 - (-1) ** k)) for k in range(20)]
    runs = []
    for _ in range(2):
        smoother = PlacementSmoother()
        runs.append([smoother.smooth(placement, frame) for frame, placement in enumerate(track)])
    assert runs[0] == runs[1] and runs[0][0] == track[0]
    spread = np.std([placement.scale for placement in runs[0][5:]])
    assert spread < 0.1 * np.std([placement.scale for placement in track[5:]])
    assert np.ptp([placement.shift[0] for placement in runs[0][5:]]) < 1
