"""A tiny seeded GenHead and a frame to render with it."""

from dataclasses import replace

import torch

from portrait4d.config.gan_networks import tiny_genhead
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.models.genhead import GenHead


def build_tiny_genhead(head: HeadModel, **changes: object) -> GenHead:
    """Build a seeded tiny GenHead, its configuration changed, with noise and varied densities (they start at zero)."""
    torch.manual_seed(0)
    network = GenHead(replace(tiny_genhead(), **changes), head)
    torch.nn.init.normal_(network.decoder.density.weight, std=20)
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.2)
    return network


def frame(batch: int = 2) -> tuple[HeadParams, torch.Tensor]:
    """Return head parameters with every part moved, the jaw open, and cameras (B, 25) around the head."""
    numbers = torch.linspace(-1, 1, batch)[:, None]
    pose = torch.cat([0.1 + 0 * numbers, 0.2 * numbers, 0.05 * numbers, 0.3 + 0 * numbers, 0 * numbers, 0 * numbers], 1)
    params = HeadParams(numbers.expand(-1, 300) / 10, numbers.expand(-1, 100) / 10, pose, numbers.expand(-1, 6) / 10)
    cam2world = orbit_cam2world(0.3 * numbers[:, 0], 0.1 * numbers[:, 0])
    return params, join_camera(cam2world, intrinsics_from_fov().expand(batch, 3, 3))
