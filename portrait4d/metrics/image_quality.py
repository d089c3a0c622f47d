"""How close pictures are to the truth, for each picture: PSNR, SSIM, overlap of masks, error of depths.

Pictures are (B, 3, H, W) in [-1, 1], so the peak of PSNR is 2. SSIM: Wang et al. 2004, Gaussian window of 11 pixels and
standard deviation 1.5, constants 0.01 and 0.03 of the range, mean over positions inside the picture and over channels.
"""

import torch
from torch import Tensor
from torch.nn import functional

PEAK = 2.0
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
_LEAST_ERROR = 1e-10


def psnr(picture: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the peak signal-to-noise ratio (B,) in dB, at most 106; of the pixels in a mask (B, 1, H, W) if given."""
    squared = (picture - truth).square()
    if mask is None:
        error = squared.mean(dim=(1, 2, 3))
    else:
        error = (squared.mean(dim=1, keepdim=True) * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp_min(1e-6)
    return 10 * torch.log10(PEAK**2 / error.clamp_min(_LEAST_ERROR))


def ssim(picture: Tensor, truth: Tensor) -> Tensor:
    """Return the structural similarity (B,), 1 for equal pictures.

    Raises:
        ValueError: pictures smaller than the window.
    """
    if min(picture.shape[-2:]) < _WINDOW:
        raise ValueError(f"picture: expected at least {_WINDOW} pixels a side, got {tuple(picture.shape[-2:])}")
    places = torch.arange(_WINDOW, dtype=picture.dtype, device=picture.device) - _WINDOW // 2
    weights = torch.exp(-0.5 * (places / _SIGMA).square())
    weights = weights / weights.sum()

    def average(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1)[:, None]
        flat = functional.conv2d(functional.conv2d(flat, weights[None, None, None]), weights[None, None, :, None])
        return flat.view(*values.shape[:2], *flat.shape[-2:])

    means = average(picture), average(truth)
    variances = average(picture.square()) - means[0].square(), average(truth.square()) - means[1].square()
    covariance = average(picture * truth) - means[0] * means[1]
    likeness = (2 * means[0] * means[1] + _C1) * (2 * covariance + _C2)
    likeness = likeness / ((means[0].square() + means[1].square() + _C1) * (variances[0] + variances[1] + _C2))
    return likeness.mean(dim=(1, 2, 3))


def mask_overlap(mask: Tensor, truth: Tensor) -> Tensor:
    """Return intersection over union (B,) of masks (B, 1, H, W) in [0, 1], each cut at 1/2; 1 if both are empty."""
    ours, theirs = mask > 0.5, truth > 0.5
    union = (ours | theirs).sum(dim=(1, 2, 3))
    both = (ours & theirs).sum(dim=(1, 2, 3))
    return torch.where(union == 0, 1.0, both / union.clamp_min(1))


def depth_error(depth: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute difference (B,) of depths (B, 1, H, W) inside a mask (B, 1, H, W), world units."""
    inside = (mask > 0.5).to(depth.dtype)
    return ((depth - truth).abs() * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3)).clamp_min(1)
