"""Time volume rendering of tri-planes against an earlier version of this repository, in turns, each in its own process.

    mkdir earlier && git archive b2d6d0f portrait4d | tar x -C earlier        # the first version that reenacted
    python benchmarks/bench_earlier_rendering.py earlier --threads 2

Both render the full-size network's rays of one seeded scene; the pictures' largest difference is printed too.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
WORKER = """
import sys, time
import torch
from portrait4d.config.networks import HeadPoseConfig, VolumeConfig
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.deformation import HeadPoseField
from portrait4d.models.radiance_decoder import RadianceDecoder
from portrait4d.rendering.ray_sampling import midpoint_jitter
from portrait4d.rendering.rays import camera_rays
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.rendering.volume_renderer import render_rays

torch.set_num_threads(int(sys.argv[1]))
try:
    from portrait4d.ops.backend import keep_freed_memory
    from portrait4d.rendering.plane_field import PlaneField
    keep_freed_memory()
except ImportError:
    from portrait4d.rendering.volume_renderer import FieldSample
    def PlaneField(planes, decoder, deformation):
        def field(points):
            features, densities = decoder(planes.sample(points if deformation is None else deformation(points)))
            return FieldSample(features, densities[..., 0])
        return field
volume, pose = VolumeConfig(), HeadPoseConfig()
torch.manual_seed(0)
decoder = RadianceDecoder(32, volume.decoder_hidden)
torch.nn.init.normal_(decoder.density.weight, std=20)
planes = torch.randn(1, 3, 32, 256, 256)
fine, coarse = (torch.rand(1, channels, *(side,) * 3) * 0.01 for channels, side in ((4, 24), (3, 8)))
turned = HeadPoseField(fine, coarse, volume.box_warp, pose)
camera = join_camera(orbit_cam2world(torch.tensor([0.2]), torch.tensor([0.1])), intrinsics_from_fov()[None])
rays = camera_rays(camera, 128)
jitter = midpoint_jitter(1, volume.depth_samples, volume.importance_samples, "cpu")
for line in sys.stdin:
    deformation = turned if line.split()[0] == "turned" else None
    with torch.no_grad():
        started = time.perf_counter()
        field = PlaneField(TriPlanes(planes, volume.box_warp), decoder, deformation)
        result = render_rays(field, rays, jitter, volume, 2048)
        seconds = time.perf_counter() - started
    torch.save(result.features, line.split()[1])
    print(1000 * seconds, flush=True)
"""


class Version:
    """A process that renders with one version of the package."""

    def __init__(self, folder: Path, threads: int, picture: Path) -> None:
        self.picture = picture
        environment = os.environ | {"PYTHONPATH": str(folder), "PORTRAIT4D_NATIVE": "1"}
        command = [sys.executable, "-c", WORKER, str(threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, text=True)

    def render(self, scene: str) -> float:
        """Render "straight" or "turned" and return the milliseconds."""
        self.process.stdin.write(f"{scene} {self.picture}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("a version failed; its message stands above")
        return float(line)


def main() -> None:
    """Parse the command line, measure in turns and print a table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("earlier", type=Path, help="folder that holds the earlier version's portrait4d")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; medians are printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        versions = [
            Version(place.resolve(), options.threads, Path(folder) / f"{number}.pt")
            for number, place in enumerate((options.earlier, HERE))
        ]
        print(f"128x128 rays, 48 + 48 samples, {options.threads} threads")
        print("neck       earlier ms   now ms  ratio  difference")
        for scene in ("straight", "turned"):
            rounds = [[version.render(scene) for version in versions] for _ in range(options.rounds + 1)][1:]
            then, now = (statistics.median(column) for column in zip(*rounds, strict=True))
            first, second = (torch.load(version.picture) for version in versions)
            error = (first - second).abs().max()
            print(f"{scene:10s} {then:10.0f} {now:8.0f} {then / now:6.1f}  {error:.1e}", flush=True)


if __name__ == "__main__":
    main()
