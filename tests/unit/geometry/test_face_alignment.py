"""Similarity fit, affine warp and motion crop: hand-made cases, an SVD twin, and the reference's numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.image_io import load_image
from portrait4d.geometry.face_alignment import face_crop, fit_similarity, motion_crop, warp_affine
from tests.helpers.hash_fill import hash_tensor

SHARED = Path(__file__).resolve().parents[4] / "shared"


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit (N, 2) to (N, 2) by the singular value decomposition of networks-auxiliary.md §1.5 step 4."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    u, sigma, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0 if np.linalg.det(covariance) >= 0 else -1.0])
    if np.linalg.matrix_rank(covariance) == 1:
        signs[1] = 1.0 if np.linalg.det(u) * np.linalg.det(vt) > 0 else -1.0
    rotation = u @ np.diag(signs) @ vt
    scale = (sigma * signs).sum() / source.var(0).sum()
    return np.hstack([scale * rotation, (target_mean - scale * rotation @ source_mean)[:, None]])


def landmarks(centre: tuple[float, float] = (32.0, 32.0), scale: float = 1.0) -> torch.Tensor:
    """Return (1, 68, 2) points whose three anchors form the target triangle times `scale` about `centre`."""
    points = torch.zeros(1, 68, 2)
    for part, anchor in ((slice(36, 42), (-25.0, -30.5)), (slice(42, 48), (25.0, -30.5)), (slice(60, 68), (0.0, 30.5))):
        points[0, part] = torch.tensor(centre) + scale * torch.tensor(anchor)
    return points


@pytest.mark.parametrize("count", [2, 3, 5])
def test_fit_equals_svd_solution(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    source = torch.randn(50, count, 2, generator=generator, dtype=torch.float64) * 40 + 250
    target = torch.randn(50, count, 2, generator=generator, dtype=torch.float64) * 20 + 112
    fitted = fit_similarity(source, target)
    for k in range(50):
        torch.testing.assert_close(
            fitted[k].numpy(), umeyama(source[k].numpy(), target[k].numpy()), rtol=1e-9, atol=1e-9
        )


def test_fit_of_points_on_a_line_equals_svd_solution() -> None:
    source = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]], dtype=torch.float64)
    target = torch.tensor([[5.0, 1.0], [4.0, 3.0], [2.0, 7.0]], dtype=torch.float64)
    torch.testing.assert_close(fit_similarity(source, target).numpy(), umeyama(source.numpy(), target.numpy()))


def test_fit_recovers_a_known_similarity() -> None:
    angle, scale, shift = 0.7, 2.5, torch.tensor([3.0, -8.0], dtype=torch.float64)
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    source = hash_tensor(0, [4, 3, 2]).double()
    fitted = fit_similarity(source, scale * source @ rotation.T + shift)
    expected = torch.cat([scale * rotation, shift[:, None]], 1).expand(4, 2, 3)
    torch.testing.assert_close(fitted, expected, rtol=0, atol=1e-6)


def test_fit_never_mirrors() -> None:
    source = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0]])
    fitted = fit_similarity(source, source * torch.tensor([1.0, -1.0]))
    assert torch.linalg.det(fitted[:, :2]) > 0


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ([[0.1, 0.7]] * 3, [[87, 59], [137, 59], [112, 120]]),
        ([[87, 59], [137, 59], [112, 120]], [[0.1, 0.7]] * 3),
        ([[1, 0], [-1, 0], [0, 1], [0, -1]], [[1, 0], [-1, 0], [0, -1], [0, 1]]),
    ],
)
def test_fit_without_a_solution_is_the_identity(source: list, target: list) -> None:
    fitted = fit_similarity(torch.tensor(source, dtype=torch.float32), torch.tensor(target, dtype=torch.float32))
    assert torch.equal(fitted, torch.eye(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (torch.zeros(1, 2), torch.zeros(1, 2), r"source_points: expected shape \(\.\.\., N >= 2, 2\), got \(1, 2\)"),
        (torch.zeros(3, 3), torch.zeros(3, 2), "source_points: expected shape"),
        (torch.zeros(3, 2), torch.zeros(3), "target_points: expected shape"),
        (torch.zeros(3, 2), torch.zeros(4, 2), "target_points: expected 3 points as in the source, got 4"),
        (torch.full((3, 2), torch.nan), torch.zeros(3, 2), "source_points: expected finite coordinates"),
    ],
)
def test_fit_rejects(source: torch.Tensor, target: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_similarity(source, target)


def test_warp_conformance() -> None:
    transform = torch.tensor([[[0.9, -0.2, 3.0], [0.2, 0.9, -1.5]]])
    warped = warp_affine(hash_tensor(1000, [1, 3, 16, 16]), transform, (8, 8))
    assert warped.mean().item() == pytest.approx(0.0307273, rel=2e-5)
    assert warped.std().item() == pytest.approx(0.336545, rel=2e-5)
    assert warped.flatten()[-1].item() == pytest.approx(0.43876, rel=2e-5)


def test_warp_by_whole_pixels_moves_them_and_fills_with_zero() -> None:
    images = hash_tensor(3, [2, 3, 5, 7])
    shift = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    transforms = torch.stack([torch.eye(2, 3), shift])
    warped = warp_affine(images, transforms, (5, 7))
    torch.testing.assert_close(warped[0], images[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(warped[1, :, :4, 2:], images[1, :, 1:, :5], rtol=0, atol=1e-5)
    assert warped[1, :, :, :2].abs().max() < 1e-5
    assert warped[1, :, 4].abs().max() < 1e-5


def test_warp_of_one_pixel_image() -> None:
    images = torch.full((1, 1, 1, 1), 0.5)
    warped = warp_affine(images, torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]), (1, 3))
    torch.testing.assert_close(warped, torch.tensor([[[[0.0, 0.5, 0.0]]]]))


def test_warp_gradient() -> None:
    images = hash_tensor(1, [1, 2, 5, 4]).double().requires_grad_()
    transforms = torch.tensor([[[0.9, -0.2, 0.3], [0.2, 0.9, -0.5]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: warp_affine(x, transforms, (3, 4)), images)


@pytest.mark.parametrize(
    ("images", "transforms", "message"),
    [
        (torch.zeros(3, 4, 4), torch.eye(2, 3)[None], r"images: expected floating \(B, C, H, W\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.eye(2, 3)[None], "images: expected floating"),
        (torch.zeros(2, 3, 4, 4), torch.eye(2, 3)[None], r"transforms: expected shape \(2, 2, 3\), got \(1, 2, 3\)"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 3), "transforms: expected invertible"),
        (torch.zeros(1, 3, 4, 4), torch.full((1, 2, 3), torch.nan), "transforms: expected invertible"),
    ],
)
def test_warp_rejects(images: torch.Tensor, transforms: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warp_affine(images, transforms, (4, 4))


def test_motion_crop_aligns_anchors_and_stays_in_range() -> None:
    images = hash_tensor(0, [2, 3, 64, 64])
    points = torch.cat([landmarks(), landmarks((30.0, 35.0), 0.5)])
    crops, transforms = motion_crop(images, points)
    assert crops.shape == (2, 3, 224, 224)
    assert crops.abs().max() <= 1
    assert transforms.dtype == torch.float32
    torch.testing.assert_close(transforms[0], torch.tensor([[1.0, 0, 80], [0, 1, 57.5]]))
    torch.testing.assert_close(transforms[1], torch.tensor([[2.0, 0, 52], [0, 2, 19.5]]))


def test_motion_crop_keeps_the_top_and_the_middle() -> None:
    ramp = torch.stack(torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")).flip(0) / 224
    images = torch.cat([ramp, torch.zeros(1, 224, 224)])[None]
    crops, transforms = motion_crop(images, landmarks((112.0, 89.5)))
    torch.testing.assert_close(transforms[0], torch.eye(2, 3), rtol=0, atol=1e-4)
    step = 192 / 224
    expected_x = (16 + step * (100.5) - 0.5) / 224
    expected_y = (step * (150.5) - 0.5) / 224
    assert crops[0, 0, 150, 100].item() == pytest.approx(expected_x, abs=1e-5)
    assert crops[0, 1, 150, 100].item() == pytest.approx(expected_y, abs=1e-5)


def test_face_crop_of_a_face_in_place_copies_its_window() -> None:
    images = hash_tensor(0, [1, 3, 224, 224])
    crop = face_crop(images, landmarks((112.0, 89.5)), 144)
    torch.testing.assert_close(crop, images[..., 26:170, 40:184], rtol=0, atol=1e-3)


def test_face_crop_shows_the_same_place_at_any_size() -> None:
    ramp = torch.stack(torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")).flip(0) / 224
    images = torch.cat([ramp, torch.zeros(1, 224, 224)])[None]
    for size in (36, 72):
        crop = face_crop(images, landmarks((112.0, 89.5)), size)
        step = 144 / size
        assert crop[0, 0, 3, 5].item() == pytest.approx((40 + step * 5.5 - 0.5) / 224, abs=1e-5)
        assert crop[0, 1, 3, 5].item() == pytest.approx((26 + step * 3.5 - 0.5) / 224, abs=1e-5)


def test_reverse_y_is_a_pixel_index_flip() -> None:
    images = hash_tensor(0, [1, 3, 64, 64])
    points = landmarks((30.0, 33.0))
    points_up = torch.stack([points[..., 0], 63 - points[..., 1]], -1)
    points_up = torch.cat([points_up, torch.full((1, 2, 2), 7.0)], 1)  # the head model has 70 points
    down, up = motion_crop(images, points), motion_crop(images, points_up, reverse_y=True)
    torch.testing.assert_close(down, up, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "points", "message"),
    [
        (torch.zeros(1, 4, 8, 8), torch.zeros(1, 68, 2), r"images: expected shape \(B, 3, S, S\), got \(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 5, 2), r"landmarks_pixels: expected shape \(1, >= 68, 2\)"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(1, 68, 2), "landmarks_pixels: expected shape"),
        (torch.zeros(1, 3, 8, 8), torch.full((1, 68, 2), torch.inf), "expected finite coordinates"),
    ],
)
def test_motion_crop_rejects(images: torch.Tensor, points: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        motion_crop(images, points)


@pytest.mark.parametrize("case", ["a", "b"])
def test_motion_crop_of_a_photo_equals_the_reference(case: str) -> None:
    golden_path = SHARED / "golden" / f"motion-{case}.npz"
    if not golden_path.is_file() or not (SHARED / "real" / "portraits").is_dir():
        pytest.skip(f"needs {golden_path} and the photos in {SHARED / 'real'}, which stay outside the repository")
    golden = np.load(golden_path)
    photo = SHARED / "real" / "portraits" / "align_images" / str(golden["photo"])
    points = np.load(photo.parents[1] / "3dldmks_align" / f"{photo.stem}.npy")
    crops, transforms = motion_crop(load_image(photo)[None], torch.from_numpy(points)[None])
    np.testing.assert_allclose(transforms[0].numpy(), golden["transform"], rtol=1e-6, atol=0)
    np.testing.assert_allclose(crops[0, :, ::4, ::4].numpy(), golden["crop"], rtol=0, atol=1e-4)
