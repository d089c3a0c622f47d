"""Time one GenHead picture stage by stage, and its peak memory.

Without arguments: the published full-size network with seeded weights on the ellipsoid head, 64² rays. One table:
seconds (median) of each stage, of a whole picture, and of a further frame of the same head (planes kept).
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from portrait4d.config.gan_networks import GenHeadConfig, tiny_genhead
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.flame import HeadModel
from portrait4d.inference.sample_heads import neutral_frames
from portrait4d.models.checkpoints import load_genhead
from portrait4d.models.genhead import GenHead, GenHeadOptions
from portrait4d.ops.backend import keep_freed_memory, pick_device
from portrait4d.synthetic_heads.head_template import build_open_head

CPU_RAYS_PER_CHUNK = 2048
HEADS = {"ellipsoid": ("ellipsoid", 1), "open-head": ("open-head", 1)}


def build_seeded_network(config: GenHeadConfig, head: str) -> GenHead:
    """Build a network with seeded weights on an open head."""
    torch.manual_seed(0)
    name, version = HEADS[head]
    network = GenHead(config, HeadModel.from_assets(build_open_head(name, version), version))
    torch.nn.init.normal_(network.decoder.density.weight, std=3)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def time_stages(network: GenHead, options: GenHeadOptions, rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each stage, of a whole picture and of a further frame."""
    camera = join_camera(orbit_cam2world(torch.tensor([0.2]), torch.tensor([0.1])), intrinsics_from_fov()[None])
    camera, params = camera.to(device), neutral_frames(5)[1]
    params = type(params)(
        *(value.to(device) for value in (params.shape, params.expression, params.pose, params.eye_pose))
    )
    latent = torch.ones(1, network.config.mapping.latent_dim, device=device)
    samples: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], object]) -> object:
        _synchronise(device)
        started = time.perf_counter()
        result = call()
        _synchronise(device)
        samples.setdefault(name, []).append(time.perf_counter() - started)
        return result

    conditioning = network.conditioning(camera, params.shape)
    styles = network.map_styles(latent, conditioning)
    network(latent, styles, params, camera, options)  # warm-up
    for _ in range(rounds):
        planes = timed("planes", lambda: network.generate_planes(styles))
        background = timed("background", lambda: network.generate_background(latent))
        mesh = timed("masks and correspondence map", lambda: network.draw_mesh(params, camera))
        field = timed("deformation field", lambda: network.part_field(params))
        given = planes, background, camera, field, mesh, options
        result = timed("render + super-resolve", lambda given=given: network.render(*given))
        low = result.features
        timed(
            "of which super-resolution",
            lambda low=low: network.super_resolution.forward_folded(options.super_resolution, low[:, :3], low),
        )
        timed(
            "whole picture", lambda: network(latent, network.map_styles(latent, conditioning), params, camera, options)
        )
    figures = {name: statistics.median(values) for name, values in samples.items()}
    further = ("masks and correspondence map", "deformation field", "render + super-resolve")
    return figures | {"further frame of the head": sum(figures[name] for name in further)}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Parse the command line, measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, help="network file (default: seeded, full size)")
    parser.add_argument("--tiny", action="store_true", help="seeded network of the tests' size instead")
    parser.add_argument("--head", default="ellipsoid", choices=sorted(HEADS), help="head model of a seeded network")
    parser.add_argument("--render-size", type=int, help="rays per side (default: the network's)")
    parser.add_argument("--chunk", type=int, help="rays at once (default: chosen for the device)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are printed")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    device = pick_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    if options.network:
        network = load_genhead(options.network, build_open_head)
    else:
        network = build_seeded_network(tiny_genhead() if options.tiny else GenHeadConfig(), options.head)
    network = network.to(device, memory_format=torch.channels_last)
    rendering = GenHeadOptions(
        resolution=options.render_size,
        chunk=options.chunk or (CPU_RAYS_PER_CHUNK if device.type == "cpu" else None),
        super_resolution=network.super_resolution.fold(None),
    )
    figures = time_stages(network, rendering, options.rounds, device)
    figures["peak memory, GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device.type == "cuda":
        figures["peak GPU memory, GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
    rays = options.render_size or network.config.render_resolution
    print(f"float32 on {device}, {torch.get_num_threads()} threads, {rays}² rays, {network.head.name} head")
    for name, value in figures.items():
        print(f"{name:30s} {value:9.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
