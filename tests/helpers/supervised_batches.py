"""Supervised batches of waves, small enough to run losses on."""

import torch

from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.head_params import HeadParams
from portrait4d.training.supervision import PlaneSamples, SupervisedBatch
from tests.helpers.waves import wave


def wavy_batch(count: int, size: int, rays: int, motion_dim: int = 548, extras: bool = True) -> SupervisedBatch:
    """Return `count` subjects, the second half still, pictures of `size` pixels, truth for `rays` rays a side."""
    yaw = torch.linspace(-0.3, 0.3, count)
    camera = join_camera(orbit_cam2world(yaw, 0.1 * yaw), intrinsics_from_fov().expand(count, 3, 3))
    batch = SupervisedBatch(
        *(wave(count, 3, size, size, frequency=number) for number in (0.31, 0.57, 0.83)),
        wave(count, 1, rays, rays, frequency=0.41).sign(),
        wave(count, 3, size, size, frequency=0.23),
        camera,
        camera,
        HeadParams(*(0.05 * wave(count, width, frequency=0.7) for width in (300, 100, 6, 6))),
        wave(count, motion_dim, frequency=0.9),
        wave(count, motion_dim, frequency=1.1),
        torch.arange(count) >= count / 2,
    )
    if not extras:
        return batch
    truth = {
        "depth": 4 + 0.3 * wave(count, 1, rays, rays, frequency=0.61),
        "features": wave(count, 8, rays, rays, frequency=0.37),
        "background": wave(count, 8, rays, rays, frequency=0.19),
        "plane_samples": PlaneSamples(0.3 * wave(count, 9, 3, frequency=0.5), wave(count, 9, 8, frequency=0.77)),
    }
    return SupervisedBatch(**vars(batch) | truth)
