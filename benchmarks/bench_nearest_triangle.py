"""Time the nearest triangles of the head-pose grids' points on the open head's coarse mesh, natively and by PyTorch.

Prints one table: median milliseconds of both, taken in turns, and their ratio. Run from the repository root:
`python benchmarks/bench_nearest_triangle.py --threads 2`.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("PORTRAIT4D_NATIVE", "1")  # read at the first use

import torch
from interleaved import against_pytorch, median_ms, speedup

from portrait4d.config.networks import HeadPoseConfig, VolumeConfig
from portrait4d.geometry.deformation import grid_axis
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.meshes import face_corners
from portrait4d.inference.sample_heads import neutral_frames
from portrait4d.ops.nearest_triangle import nearest_triangle
from portrait4d.synthetic_heads.ellipsoid_head import VERSION, build_ellipsoid_head


def main() -> None:
    """Parse the command line, measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pose = HeadPoseConfig()
    sizes = [pose.coarse_resolution, pose.fine_resolution]
    parser.add_argument("--grids", type=int, nargs="+", default=sizes, help="points per side of a grid")
    parser.add_argument("--batch", type=int, default=1, help="meshes at once")
    parser.add_argument("--rounds", type=int, default=10, help="repetitions; medians are printed")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--json", type=Path, help="also write the milliseconds here, by number of points")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    head, params = HeadModel.from_assets(build_ellipsoid_head(), VERSION), neutral_frames(1)[0]
    vertices = head.posed_vertices(head.rest(params.shape, params.expression), params)
    triangles = face_corners(head.coarse_vertices(vertices), head.coarse_faces)
    triangles = triangles.expand(options.batch, -1, -1, -1).contiguous().to(device)
    print(f"{device}, {torch.get_num_threads()} threads, batch {options.batch}, {triangles.shape[1]} triangles")
    print(f"{'points':>10s}{'PyTorch ms':>11s}{'native ms':>11s}{'ratio':>9s}")
    figures = {}
    for size in options.grids:
        axis = grid_axis(size, VolumeConfig().box_warp, device)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(1, -1, 3)
        points = points.expand(options.batch, -1, -1).contiguous()
        times = median_ms(
            against_pytorch(lambda points=points: nearest_triangle(points, triangles)), options.rounds, device
        )
        figures[points.shape[1]] = times
        print(f"{points.shape[1]:10d}{speedup(times)}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
