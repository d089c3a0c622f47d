"""Errors of frames that are not about single pixels: what faces do, how they tremble, who they are. Pure functions."""

import math

import torch
from torch import Tensor

LEVELS = 127.5
"""Levels of 8-bit pictures per unit of pictures in [-1, 1]."""


def mean_absolute_error(readings: Tensor, truths: Tensor) -> Tensor:
    """Return the mean absolute difference (B,) over the numbers (B, D) read from a picture and from the true one.

    Raises:
        ValueError: other or unequal shapes.
    """
    if readings.ndim != 2 or readings.shape != truths.shape:
        raise ValueError(f"readings: expected shape {tuple(truths.shape)} = (B, D), got {tuple(readings.shape)}")
    return (readings - truths).abs().mean(dim=1)


def jitter(frames: Tensor, truths: Tensor) -> Tensor:
    """Return how much accelerations differ from the truth's: the mean absolute difference, for each inner frame.

    The acceleration at t is x[t-1] - 2 x[t] + x[t+1]; what both have of it, real movement, is no error.

    Args:
        frames: (T, ...) consecutive frames: pictures, landmarks, or what a reader says.
        truths: of the same shape.

    Returns:
        (T - 2,) in the unit of the values, per frame squared.

    Raises:
        ValueError: unequal shapes, or fewer than three frames.
    """
    if frames.shape != truths.shape or len(frames) < 3:
        raise ValueError(
            f"frames: expected shape {tuple(truths.shape)} of at least 3 frames, got {tuple(frames.shape)}"
        )
    error = frames - truths
    return (error[:-2] - 2 * error[1:-1] + error[2:]).abs().flatten(1).mean(dim=1)


def facing_angles_deg(world2camera: Tensor) -> Tensor:
    """Return yaw and pitch (B, 2) in degrees of upright heads seen by cameras; the camera's roll does not matter.

    Args:
        world2camera: (B, 3, 3) rotations; cameras look along -z, faces to world +z.

    Returns:
        Yaw, positive when the face turns to the picture's right; pitch, positive when it looks down.
    """
    x, y, z = world2camera[..., 2].unbind(dim=1)
    return torch.stack([torch.atan2(x, z), torch.asin(-y.clamp(-1, 1))], dim=1) * (180 / math.pi)


def masked_distances(pictures: Tensor, truths: Tensor, masks: Tensor) -> Tensor:
    """Return the mean absolute difference (N, M) of pictures (N, 3, H, W) and truths (M, 3, H, W) in the truths' masks.

    Args:
        masks: (M, 1, H, W) in [0, 1].
    """
    columns = [
        ((pictures - truth).abs().mean(dim=1) * mask).sum(dim=(1, 2)) / mask.sum().clamp_min(1e-6)
        for truth, mask in zip(truths, masks, strict=True)
    ]
    return torch.stack(columns, dim=1)


def own_is_nearest(distances: Tensor) -> Tensor:
    """Tell for each row of distances (N, N) whether its smallest one is on the diagonal: (N,) bool."""
    return distances.argmin(dim=1) == torch.arange(len(distances), device=distances.device)
