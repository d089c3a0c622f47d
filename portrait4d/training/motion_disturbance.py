"""Random changes of what the compact motion encoder is shown: mirror images, colours, noise, detail, landmarks."""

from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.config.motion_training import DisturbanceConfig
from portrait4d.geometry.mirroring import LANDMARK_SWAPS
from portrait4d.ops.resize import resize_antialiased
from portrait4d.synthetic_heads.motion_inputs import mirror_inputs
from portrait4d.training.picture_warp import recolour_pictures

_LUMA = (0.299, 0.587, 0.114)


class MotionSample(NamedTuple):
    """Faces: images (B, 3, S, S) in [-1, 1], landmarks (B, 68, 2) in pixels with y up, inputs (B, 27)."""

    images: Tensor
    landmarks: Tensor
    inputs: Tensor


def disturb_view(
    sample: MotionSample,
    config: DisturbanceConfig,
    generator: torch.Generator,
    host_generator: torch.Generator,
) -> MotionSample:
    """Mirror some faces, take detail away, and move landmarks.

    Args:
        sample, config: faces, and how much.
        generator, host_generator: on the device of the sample, and on the CPU.
    """
    if config.mirror:
        sample = mirror_some(sample, generator)
    images, landmarks = reduce_detail(sample.images, sample.landmarks, config.lowest_size, host_generator)
    spread = config.landmark_jitter * images.shape[-1]
    jitter = spread * torch.randn(landmarks.shape, generator=generator, device=landmarks.device)
    return MotionSample(images, landmarks + jitter, sample.inputs)


def disturb_colours(crops: Tensor, config: DisturbanceConfig, generator: torch.Generator) -> Tensor:
    """Change colours of crops (B, 3, H, W) and add noise; they stay in [-1, 1]."""
    recoloured = recolour_pictures(crops, sample_colours(len(crops), config, generator))
    noise = torch.randn(crops.shape, generator=generator, device=crops.device)
    return (recoloured + config.noise * _uniform(crops, 0, 1, generator) * noise).clamp(-1, 1)


def mirror_some(sample: MotionSample, generator: torch.Generator) -> MotionSample:
    """Mirror about half of the faces, with landmarks and motions."""
    images, landmarks, inputs = sample
    turned = landmarks[:, list(LANDMARK_SWAPS[68])] * landmarks.new_tensor([-1.0, 1.0])
    turned[..., 0] += images.shape[-1]
    chosen = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return MotionSample(
        torch.where(chosen[:, None, None, None], images.flip(-1), images),
        torch.where(chosen[:, None, None], turned, landmarks),
        torch.where(chosen[:, None], mirror_inputs(inputs), inputs),
    )


def sample_colours(count: int, config: DisturbanceConfig, generator: torch.Generator) -> Tensor:
    """Draw affine maps of colours (count, 3, 4): part of the grey picture, factors, an offset."""
    like = torch.empty(count, 3, 1, device=generator.device)
    grey = config.grey * _uniform(like, 0, 1, generator).square()  # mostly little
    luma = like.new_tensor(_LUMA).expand(3, 3)
    mixed = torch.lerp(torch.eye(3, device=like.device), luma, grey)
    factor = 1 + _uniform(like, -config.contrast, config.contrast, generator)
    tint = 1 + config.tint * (2 * torch.rand(like.shape, generator=generator, device=like.device) - 1)
    offset = _uniform(like, -config.brightness, config.brightness, generator).expand_as(like)
    return torch.cat([mixed * factor * tint, offset], dim=2)


def reduce_detail(
    images: Tensor, landmarks: Tensor, lowest_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Leave the pictures as they are, or reduce them all to one size from `lowest_size` on; half of the time each."""
    side = images.shape[-1]
    lowest = min(lowest_size, side)
    size = min(int(torch.randint(lowest, 2 * side - lowest + 1, (), generator=generator)), side)
    return resize_antialiased(images, size), landmarks * (size / side)


def _uniform(like: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw one number for each sample, in a shape (B, 1, ...) that goes with `like`."""
    shape = (len(like),) + (1,) * (like.ndim - 1)
    return low + (high - low) * torch.rand(shape, generator=generator, device=like.device)
