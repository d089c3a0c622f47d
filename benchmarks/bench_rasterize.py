"""Time the rasteriser on the open ellipsoid head and on a sphere of about ten thousand triangles.

Prints one table: median milliseconds of rasterising by PyTorch and natively, taken in turns, their ratio, milliseconds
of interpolating three features, and pixels covered. Run from the repository root:
`python benchmarks/bench_rasterize.py --threads 1`.
"""

import argparse
import json
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("PORTRAIT4D_NATIVE", "1")  # read at the first use

import torch
import trimesh
from interleaved import against_pytorch, median_ms, speedup
from torch import Tensor

from portrait4d.geometry.cameras import FOV_DEG
from portrait4d.ops.rasterize import interpolate_vertices, rasterize_perspective
from portrait4d.synthetic_heads.ellipsoid_head import build_ellipsoid_head

CAMERA_DISTANCE = 4.2
HEAD_SCALE = 3.0


def build_meshes() -> dict[str, tuple[Tensor, Tensor]]:
    """Return name -> vertices (V, 3) in camera axes and faces (T, 3)."""
    head = build_ellipsoid_head()
    sphere = trimesh.creation.uv_sphere(radius=0.11, count=(51, 51))
    meshes = {"ellipsoid head": (head.template, head.faces), "sphere": (sphere.vertices, sphere.faces)}
    offset = torch.tensor([0, 0, -CAMERA_DISTANCE])
    return {
        name: (torch.tensor(vertices).float() * HEAD_SCALE + offset, torch.tensor(faces).long())
        for name, (vertices, faces) in meshes.items()
    }


def main() -> None:
    """Parse the command line, measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512], help="pixels per side")
    parser.add_argument("--batch", type=int, default=1, help="meshes at once")
    parser.add_argument("--rounds", type=int, default=10, help="repetitions; medians are printed")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--json", type=Path, help="also write the milliseconds here")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print(f"{device}, {torch.get_num_threads()} threads, batch {options.batch}, median of {options.rounds}")
    columns = f"{'PyTorch ms':>11s}{'native ms':>11s}{'ratio':>9s}{'features ms':>13s}"
    print(f"{'mesh':16s}{'triangles':>10s}{'size':>6s}{'culled':>8s}{'pixels':>9s}{columns}")
    figures = []
    for name, (vertices, faces) in build_meshes().items():
        points = vertices.expand(options.batch, -1, -1).to(device)
        faces = faces.to(device)
        for size in options.sizes:
            for cull in (True, False):
                rasterize = partial(rasterize_perspective, points, faces, size, FOV_DEG, cull)
                fragments = rasterize()
                interpolate = partial(interpolate_vertices, fragments, faces, points)
                times = median_ms(against_pytorch(rasterize), options.rounds, device)
                features = median_ms({"features": interpolate}, options.rounds, device)["features"]
                pixels = int(fragments.mask.sum())
                setting = {"mesh": name, "triangles": len(faces), "size": size, "culled": cull, "pixels": pixels}
                figures.append(setting | times | {"features": features})
                print(
                    f"{name:16s}{len(faces):10d}{size:6d}{'yes' if cull else 'no':>8s}{pixels:9d}"
                    f"{speedup(times)}{features:13.1f}"
                )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
