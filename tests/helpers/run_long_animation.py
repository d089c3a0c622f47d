"""Animate by a film of so many frames with a tiny network and a stub tracker.

Prints the peak memory in MiB after 100 frames and after all. Without a film in FOLDER it makes one and stops.

Usage: python run_long_animation.py FOLDER FRAMES
"""

import resource
import sys
from fractions import Fraction
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from portrait4d.config.animation import AnimateConfig
from portrait4d.data.image_io import from_uint8, save_image
from portrait4d.geometry.flame import HeadModel
from portrait4d.inference.animate_job import run_animation
from portrait4d.models.checkpoints import save_reconstructor
from portrait4d.synthetic_heads.ellipsoid_head import VERSION, build_ellipsoid_head
from tests.conftest import build_tiny
from tests.helpers.films import write_film
from tests.helpers.stub_tracker import StubTrackers, grey_picture


def main(folder: Path, frames: int) -> None:
    """Make everything that is needed in `folder`, and animate."""
    torch.set_num_threads(1)
    network, film, photo = folder / "network.safetensors", folder / "in.mp4", folder / "photo.png"
    if not film.exists():
        head = HeadModel.from_assets(build_ellipsoid_head(), VERSION)
        save_reconstructor(network, build_tiny(head, motion_kind="pdfgc"))
        save_image(photo, from_uint8(torch.from_numpy(grey_picture(150)).permute(2, 0, 1)))
        write_film(film, [grey_picture(60 + k % 100, 48, 64) for k in range(frames)], Fraction(1, 25), sound="aac")
        return
    config = AnimateConfig(
        (photo,), str(film), folder / "out.mp4", network, render_size=4, device="cpu", stabilise="light", cache=None,
        save_template=folder / "t.safetensors",
    )  # fmt: skip

    def tell(done: int, total: int | None) -> None:
        if done in (100, frames):
            sys.stdout.write(f"{done} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f}\n")
            sys.stdout.flush()

    run_animation(config, tell, StubTrackers())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
