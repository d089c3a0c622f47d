"""Networks' places taken by small formulas: inputs and stubs of losses-*.npz (`golden/README-losses.md`)."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from portrait4d.models.discriminator import DiscriminatorInput
from tests.golden import weights

PREFIX = "losses-a"
PICTURES = {"image_sr": "image_sr", "image": "image", "uv": "correspondence", "seg": "mask"}
"""Recorded names of what a critic sees, and ours."""


@lru_cache(maxsize=64)
def pictures(name: str, size: int, channels: int = 3, batch: int = 3) -> Tensor:
    """Return I(name, size, channels) for `batch` samples; not to be changed in place."""
    samples = [weights.image(f"{PREFIX}/{name}/{i}", size, size, channels) for i in range(batch)]
    return torch.from_numpy(np.stack(samples))


def named_tensor(name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """Return T(name, shape, std)."""
    return torch.from_numpy(weights.tensor(f"{PREFIX}/{name}", shape, 0, std))


@lru_cache(maxsize=64)
def stub_weights(name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """Return W(name, shape, std), the weights of a stub; not to be changed in place."""
    return torch.from_numpy(weights.tensor(name, shape, 0, std))


class StubCritic:
    """Critic with four learnable `gains`.

    For each picture l = <A, x> / sqrt(C s s); logit = camera + sum gain (l + 0.15 l^2).
    """

    def __init__(self, camera: Tensor) -> None:
        self.camera = camera
        self.gains = torch.ones(len(PICTURES), requires_grad=True)
        self.seen: list[DiscriminatorInput] = []

    def __call__(self, inputs: DiscriminatorInput) -> Tensor:
        """Return logits (B, 1), and remember the inputs."""
        self.seen.append(inputs)
        logits = self.camera @ stub_weights("critic/camera", (25,), 0.1)
        for gain, (name, ours) in zip(self.gains, PICTURES.items(), strict=True):
            picture = getattr(inputs, ours)
            if picture is None:
                continue
            shape = tuple(picture.shape[1:])
            direction = stub_weights(f"critic/{name}/{shape[-1]}", shape, 1)
            projection = (picture * direction).flatten(1).sum(dim=1) / math.sqrt(math.prod(shape))
            logits = logits + gain * (projection + 0.15 * projection**2)
        return logits[:, None]


def stub_densities(points: Tensor, scales: Tensor) -> list[Tensor]:
    """Return 3 scale_k sin(<W_k, p>) (B, N) of points (B, N, 3) for each of the `scales` (K,)."""
    return [
        3 * scale * torch.sin(points @ stub_weights(f"sigma/{k}", (3,), 8)) for k, scale in enumerate(scales.unbind())
    ]


def block_means(pictures_in: Tensor, blocks: int) -> Tensor:
    """Return the means of square blocks of `blocks` pixels a side, flattened: (B, C * rows * columns)."""
    return torch.nn.functional.avg_pool2d(pictures_in, blocks).flatten(1)


def stub_perceptual(first: Tensor, second: Tensor) -> Tensor:
    """Return 0.7 mean (x - y)^2 (B, 1, 1, 1), in place of LPIPS."""
    return 0.7 * (first - second).square().mean(dim=(1, 2, 3), keepdim=True)


def stub_identity(crops: Tensor) -> Tensor:
    """Return 16 numbers of crops (B, 3, 112, 112), in place of a face identity network."""
    return block_means(crops, 16) @ stub_weights("identity/projection", (16, 147), 1).T


def stub_motion(crops: Tensor) -> Tensor:
    """Return eye, emotion and mouth (B, 548) of crops (B, 3, 224, 224), in place of the motion encoder."""
    return (block_means(crops, 32) @ stub_weights("motion/projection", (554, 147), 1).T)[:, 6:]


def stub_deform(points: Tensor) -> Tensor:
    """Return points p s + t, in place of a deformation."""
    scale, shift = weights.tensor("deform/scale", (3,), 1, 0.1), weights.tensor("deform/shift", (3,), 0, 0.05)
    return points * torch.from_numpy(scale) + torch.from_numpy(shift)


def stub_planes(batch: int) -> Tensor:
    """Return predicted tri-planes (B, 3, 32, 16, 16)."""
    planes = [[weights.image(f"{PREFIX}/pred/planes/{i}/{j}", 16, 16, 32) for j in range(3)] for i in range(batch)]
    return torch.from_numpy(np.array(planes))
