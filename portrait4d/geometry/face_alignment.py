"""Faces brought to a fixed frame: similarity fit of anchor points, affine warp, and the crop the motion encoder sees.

Pixel coordinates here are pixel indices: (x right, y down), integers at pixel centres. A transform is a 2x3 matrix M
with destination = M (x, y, 1). Source: networks-auxiliary.md §1.5, preprocess-motion.md §2.
"""

import torch
from torch import Tensor
from torch.nn import functional

MOTION_CROP_SIZE = 224
"""Side of the motion encoder's input in pixels."""

MOTION_ANCHORS_PIXELS = ((87.0, 59.0), (137.0, 59.0), (112.0, 120.0))
"""Where the image-left eye, the image-right eye and the inner mouth go in the 224-pixel frame before the final crop."""

IDENTITY_CROP_SIZE = 112
"""Side of the face identity network's input in pixels."""

IDENTITY_ANCHORS_PIXELS = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Where eye centres, nose tip and mouth corners go in the 112-pixel crop."""

LANDMARKS_98_TO_70 = (
    [*range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60)]
    + [60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75]
    + [*range(76, 98)]
)
"""Which of WFLW's 98 points are the 68 + 2 points, in their order (`flame-fitting.md` section 5)."""

_IDENTITY_LANDMARKS = (68, 69, 30, 48, 54)
FACE_WINDOW_PIXELS = (40.0, 26.0, 144.0)
"""Left and upper edge and side of the square from brows to chin in the same frame, pixel corners at whole numbers."""

_ANCHOR_LANDMARKS = (slice(36, 42), slice(42, 48), slice(60, 68))
_NOTHING = 1e-12  # relative size below which coordinates differ by rounding only
_MARGIN = 16  # cut from the left and the right; twice as much from the bottom, nothing from the top


def fit_similarity(source_points: Tensor, target_points: Tensor) -> Tensor:
    """Fit the similarity (rotation, uniform scale, translation; no reflection) that maps source to target points best.

    Least squares over the points, computed in float64. In two dimensions Umeyama's solution needs no SVD: with centred
    points s, d read as complex numbers, scale * exp(i angle) = sum(conj(s) d) / sum(|s|^2). Where that is 0 or
    undefined (all source or all target points in one place, or mirror images without a best rotation), the identity.

    Args:
        source_points: (..., N, 2), N >= 2, any unit, any floating type.
        target_points: (..., N, 2), broadcast against the source.

    Returns:
        (..., 2, 3) float64.

    Raises:
        ValueError: wrong shapes, or points that are not finite.

    Source: networks-auxiliary.md §1.5 step 4.
    """
    for name, points in (("source_points", source_points), ("target_points", target_points)):
        if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] < 2:
            raise ValueError(f"{name}: expected shape (..., N >= 2, 2), got {tuple(points.shape)}")
        if not torch.isfinite(points).all():
            raise ValueError(f"{name}: expected finite coordinates, got NaN or infinity")
    if source_points.shape[-2] != target_points.shape[-2]:
        raise ValueError(
            f"target_points: expected {source_points.shape[-2]} points as in the source, got {target_points.shape[-2]}"
        )
    source, target = torch.broadcast_tensors(source_points.double(), target_points.double())
    source_mean, target_mean = source.mean(-2), target.mean(-2)
    sx, sy = (source - source_mean[..., None, :]).unbind(-1)
    dx, dy = (target - target_mean[..., None, :]).unbind(-1)
    spread = (sx * sx + sy * sy).sum(-1)
    real = (sx * dx + sy * dy).sum(-1) / spread
    imaginary = (sx * dy - sy * dx).sum(-1) / spread
    rotation = torch.stack([real, -imaginary, imaginary, real], -1).unflatten(-1, (2, 2))
    translation = target_mean - (rotation @ source_mean[..., None])[..., 0]
    fitted = torch.cat([rotation, translation[..., None]], -1)
    scale = torch.hypot(real, imaginary)
    usable = (spread.sqrt() > _NOTHING * source.abs().amax((-2, -1))) & (
        scale * spread.sqrt() > _NOTHING * target.abs().amax((-2, -1))
    )
    return torch.where(usable[..., None, None], fitted, torch.eye(2, 3, dtype=fitted.dtype, device=fitted.device))


def warp_affine(images: Tensor, transforms: Tensor, size: tuple[int, int]) -> Tensor:
    """Warp images by affine transforms of pixel indices: bilinear sampling, zero outside.

    Output pixel (x, y) is the image at M^-1 (x, y, 1). Zero is mid-grey for images in [-1, 1]. The same as kornia 0.6
    `warp_affine` with default flags (align_corners=True).

    Args:
        images: (B, C, H, W) floating point.
        transforms: (B, 2, 3) source pixels to output pixels, invertible.
        size: output (height, width) in pixels.

    Returns:
        (B, C, height, width), type of `images`.

    Raises:
        ValueError: wrong shapes, or a transform that cannot be inverted.

    Source: networks-auxiliary.md §1.5 step 5.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images: expected floating (B, C, H, W), got {images.dtype} {tuple(images.shape)}")
    if transforms.shape != (len(images), 2, 3):
        raise ValueError(f"transforms: expected shape {(len(images), 2, 3)}, got {tuple(transforms.shape)}")
    height, width = size
    matrix = transforms.to(images.device, torch.float64)
    inverse, failed = torch.linalg.inv_ex(matrix[..., :2])
    if failed.any() or not torch.isfinite(inverse).all():
        raise ValueError("transforms: expected invertible matrices, got a singular or non-finite one")
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64, device=images.device),
        torch.arange(width, dtype=torch.float64, device=images.device),
        indexing="ij",
    )
    offsets = torch.stack([x, y], -1) - matrix[:, None, None, :, 2]
    source_pixels = torch.einsum("bij,bhwj->bhwi", inverse, offsets)
    extent = torch.tensor([images.shape[3], images.shape[2]], dtype=torch.float64, device=images.device)
    # Half-pixel form of the same sampling positions; unlike 2 p / (S - 1) - 1 it holds for one-pixel images too.
    grid = (2 * source_pixels + 1) / extent - 1
    return functional.grid_sample(
        images, grid.to(images.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )


def motion_crop(images: Tensor, landmarks_pixels: Tensor, reverse_y: bool = False) -> tuple[Tensor, Tensor]:
    """Cut the eye-and-mouth-aligned 224-pixel crop that the motion encoder expects.

    Args:
        images: (B, 3, S, S) floating point in [-1, 1].
        landmarks_pixels: (B, >= 68, 2) (x, y) in pixels of the images; the first 68 in 68-point order.
        reverse_y: True for landmarks with y up (projected from the head model): y becomes S - 1 - y.
            False for detected landmarks (files), y down.

    Returns:
        crops: (B, 3, 224, 224) in [-1, 1], type of `images`.
        transforms: (B, 2, 3) float32, image pixels to the 224-pixel frame *before* its bottom and sides are cut.

    Raises:
        ValueError: wrong shapes, or landmarks that are not finite.

    Source: networks-auxiliary.md §1.5.
    """
    transforms = _fit_motion_frame(images, landmarks_pixels, reverse_y).float()
    warped = warp_affine(images, transforms, (MOTION_CROP_SIZE, MOTION_CROP_SIZE))
    kept = warped[:, :, : MOTION_CROP_SIZE - 2 * _MARGIN, _MARGIN : MOTION_CROP_SIZE - _MARGIN]
    crops = functional.interpolate(
        kept, size=(MOTION_CROP_SIZE, MOTION_CROP_SIZE), mode="bilinear", align_corners=False
    )
    return crops.clamp(-1, 1), transforms


def face_crop(images: Tensor, landmarks_pixels: Tensor, size: int, reverse_y: bool = False) -> Tensor:
    """Cut the square from brows to chin, aligned as `motion_crop` does, straight to `size` pixels; grey outside.

    Nothing is low-pass filtered: pictures should not show the face much larger than `size`.

    Args:
        images, landmarks_pixels, reverse_y: as `motion_crop`.
        size: side of the crops in pixels.

    Returns:
        (B, 3, size, size) in [-1, 1], type of `images`.

    Raises:
        ValueError: wrong shapes, or landmarks that are not finite.
    """
    left, upper, side = FACE_WINDOW_PIXELS
    transforms = _fit_motion_frame(images, landmarks_pixels, reverse_y)
    transforms[..., 2] += torch.tensor([0.5 - left, 0.5 - upper], dtype=torch.float64, device=transforms.device)
    transforms *= size / side
    transforms[..., 2] -= 0.5
    return warp_affine(images, transforms, (size, size)).clamp(-1, 1)


def _fit_motion_frame(images: Tensor, landmarks_pixels: Tensor, reverse_y: bool) -> Tensor:
    """Return transforms (B, 2, 3) float64 of image pixels to the 224-pixel frame, eyes and mouth at their anchors."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images: expected shape (B, 3, S, S), got {tuple(images.shape)}")
    points = landmarks_pixels
    if points.ndim != 3 or len(points) != len(images) or points.shape[1] < 68 or points.shape[2] != 2:
        raise ValueError(f"landmarks_pixels: expected shape ({len(images)}, >= 68, 2), got {tuple(points.shape)}")
    points = points.to(images.device, torch.float64)
    if reverse_y:
        points = torch.stack([points[..., 0], images.shape[2] - 1 - points[..., 1]], -1)
    anchors = torch.stack([points[:, part].mean(1) for part in _ANCHOR_LANDMARKS], 1)
    targets = torch.tensor(MOTION_ANCHORS_PIXELS, dtype=torch.float64, device=images.device)
    return fit_similarity(anchors, targets)


def identity_crop(images: Tensor, landmarks_pixels: Tensor, reverse_y: bool = False) -> tuple[Tensor, Tensor]:
    """Cut the 112-pixel crop, aligned at eyes, nose and mouth, that face identity networks expect.

    Args:
        images: (B, 3, S, S) floating point in [-1, 1]; gradients flow through.
        landmarks_pixels: (B, 70, 2) (x, y) in pixels of the images: 68 points, then the two eye centres; no gradient.
        reverse_y: True for landmarks with y up (projected from the head model): y becomes S - 1 - y.

    Returns:
        crops: (B, 3, 112, 112) in [-1, 1], type of `images`.
        transforms: (B, 2, 3) float32, image pixels to crop pixels.

    Raises:
        ValueError: wrong shapes, or landmarks that are not finite.

    Source: training-recon-v1.md §8, "Identity alignment".
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images: expected shape (B, 3, S, S), got {tuple(images.shape)}")
    if landmarks_pixels.shape != (len(images), 70, 2):
        expected = (len(images), 70, 2)
        raise ValueError(f"landmarks_pixels: expected shape {expected}, got {tuple(landmarks_pixels.shape)}")
    points = landmarks_pixels.detach().to(images.device, torch.float64)[:, list(_IDENTITY_LANDMARKS)]
    if reverse_y:
        points = torch.stack([points[..., 0], images.shape[2] - 1 - points[..., 1]], -1)
    targets = torch.tensor(IDENTITY_ANCHORS_PIXELS, dtype=torch.float64, device=images.device)
    transforms = fit_similarity(points, targets).float()
    return warp_affine(images, transforms, (IDENTITY_CROP_SIZE, IDENTITY_CROP_SIZE)).clamp(-1, 1), transforms
