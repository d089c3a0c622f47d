"""Time rendering of tri-planes of the full-size network, and the operations of its training, natively and by PyTorch.

Prints one table: median milliseconds of both, taken in turns, and their ratio. The scene is made of seeded noise, half
opaque. Run from the repository root: `python benchmarks/bench_triplane_render.py --threads 2`.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("PORTRAIT4D_NATIVE", "1")  # read at the first use

import torch
from interleaved import against_pytorch, median_ms, speedup
from torch import Tensor

from portrait4d.config.networks import HeadPoseConfig, VolumeConfig
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.deformation import HeadPoseField
from portrait4d.models.radiance_decoder import RadianceDecoder
from portrait4d.ops.backend import keep_freed_memory
from portrait4d.ops.ray_march import march
from portrait4d.rendering.plane_field import PlaneField
from portrait4d.rendering.ray_sampling import midpoint_jitter
from portrait4d.rendering.rays import camera_rays
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.rendering.volume_renderer import render_rays

SAMPLES = VolumeConfig().depth_samples, VolumeConfig().importance_samples
CHUNK = 2048
"""Rays that the PyTorch version evaluates at once on a CPU, as `inference.reenact` asks it to."""


def build_field(options: argparse.Namespace, device: torch.device, deformed: bool) -> PlaneField:
    """Return a field of seeded noise."""
    torch.manual_seed(0)
    volume, pose = VolumeConfig(), HeadPoseConfig()
    decoder = RadianceDecoder(options.channels, volume.decoder_hidden).to(device)
    torch.nn.init.normal_(decoder.density.weight, std=20)
    planes = torch.randn(1, 3, options.channels, options.plane, options.plane, device=device)
    fine, coarse = torch.rand(1, 4, *(pose.fine_resolution,) * 3), torch.rand(1, 3, *(pose.coarse_resolution,) * 3)
    deformation = HeadPoseField(fine.to(device) * 0.01, coarse.to(device) * 0.01, volume.box_warp, pose)
    return PlaneField(TriPlanes(planes, volume.box_warp), decoder, deformation if deformed else None)


def side_camera() -> Tensor:
    """Return a camera (1, 25) that looks from the side."""
    return join_camera(orbit_cam2world(torch.tensor([0.2]), torch.tensor([0.1])), intrinsics_from_fov()[None])


def rendering_calls(options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return what is timed without gradients."""
    volume = VolumeConfig()
    rays = camera_rays(side_camera().to(device), options.rays)
    jitter = midpoint_jitter(1, *SAMPLES, device)
    chunk = CHUNK if device.type == "cpu" else None
    calls = {}
    for name, deformed in (("render", False), ("render, neck rotated", True)):
        field = build_field(options, device, deformed)
        calls[name] = torch.no_grad()(
            lambda field=field: render_rays(field, rays, jitter, volume, chunk, keep_samples=False)
        )
    return calls


def training_calls(options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return what is timed with gradients: one pass's lookup, the march over both, and all that rays need."""
    volume, count = VolumeConfig(), options.train_rays**2
    planes = torch.randn(1, 3, options.channels, options.plane, options.plane, device=device, requires_grad=True)
    points = torch.rand(1, count * volume.depth_samples, 3, device=device) - 0.5
    samples = volume.depth_samples + volume.importance_samples
    densities = torch.randn(1, count, samples, device=device, requires_grad=True)
    distances = torch.linspace(3.5, 4.9, samples, device=device).expand(1, count, samples).contiguous()
    made, jitter = build_field(options, device, True), midpoint_jitter(1, *SAMPLES, device)
    rays = camera_rays(side_camera().to(device), options.train_rays)

    def train() -> None:
        field = PlaneField(TriPlanes(planes, volume.box_warp), made.decoder, made.deformation)
        render_rays(field, rays, jitter, volume).features.sum().backward()

    return {
        "lookup, forward and backward": lambda: TriPlanes(planes, volume.box_warp).sample(points).sum().backward(),
        "march, forward and backward": lambda: march(densities, distances).depth.sum().backward(),
        "render, forward and backward": train,
    }


def main() -> None:
    """Parse the command line, measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rays", type=int, default=128, help="rays per side")
    parser.add_argument("--train-rays", type=int, default=64, help="rays per side where gradients are timed")
    parser.add_argument("--plane", type=int, default=256, help="texels per side of a plane")
    parser.add_argument("--channels", type=int, default=32, help="features of a plane")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; medians are printed")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--json", type=Path, help="also write the milliseconds here")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    device, figures = torch.device(options.device), {}
    print(f"{device}, {torch.get_num_threads()} threads, {options.rays}x{options.rays} rays, planes {options.plane}")
    print(f"{'':32s}{'PyTorch ms':>11s}{'native ms':>11s}{'ratio':>9s}")
    for name, call in (rendering_calls(options, device) | training_calls(options, device)).items():
        figures[name] = median_ms(against_pytorch(call), options.rounds, device)
        print(f"{name:32s}{speedup(figures[name])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
