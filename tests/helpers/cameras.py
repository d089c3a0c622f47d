"""Cameras shared by tests."""

import torch

FOCAL = 4.757182


def tilted_camera() -> torch.Tensor:
    """Return the camera vector (1, 25) of the conformance values of `rendering.md` section 12."""
    cam2world = [0.96, 0, 0.28, 1.4, 0, 1, 0, 0.05, -0.28, 0, 0.96, 3.9, 0, 0, 0, 1]
    return torch.tensor([cam2world + [FOCAL, 0, 0.5, 0, FOCAL, 0.5, 0, 0, 1]])


def frontal_camera() -> torch.Tensor:
    """Return the camera vector (1, 25) of the reference's reenactment: straight on, 4.2 away, 12 degrees."""
    cam2world = [1, 0, 0, 0, 0, 1, 0, 0.01, 0, 0, 1, 4.2, 0, 0, 0, 1]
    return torch.tensor([cam2world + [FOCAL, 0, 0.5, 0, FOCAL, 0.5, 0, 0, 1]])
