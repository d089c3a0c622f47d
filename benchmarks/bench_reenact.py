"""Time reenactment stage by stage, and a source cache against none, interleaved in one run.

Without arguments: the published full-size network with seeded weights on the ellipsoid head and the bundled examples.
One table: seconds (median) per stage and per frame, peak memory, and the ratio cached / not cached.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch

from portrait4d.config.experiments import ReenactConfig
from portrait4d.config.load import load_config
from portrait4d.config.networks import ReconstructorConfig
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.geometry.flame import HeadModel
from portrait4d.inference.demo import EXAMPLES
from portrait4d.inference.reenact import Frame, Reenactor
from portrait4d.models.checkpoints import save_reconstructor
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.synthetic_heads.ellipsoid_head import VERSION, build_ellipsoid_head

MOTION_SEED = 1


def write_seeded_network(path: Path, config: str) -> None:
    """Write a network with seeded weights; "flame" motion lets the bundled examples drive it."""
    torch.manual_seed(0)
    sizes = load_config(ReconstructorConfig, config, ["motion_kind=flame"])
    head = HeadModel.from_assets(build_ellipsoid_head(), VERSION)
    save_reconstructor(path, Reconstructor(sizes, head))


def time_stages(reenactor: Reenactor, source: Frame, driver: Frame, rounds: int) -> dict[str, float]:
    """Return the median seconds of each stage and of whole frames with and without the cache, taken in turns."""
    network = reenactor.network
    samples: dict[str, list[float]] = {}

    def timed(name: str, call: object) -> object:
        _synchronise(reenactor.device)
        started = time.perf_counter()
        result = call()
        _synchronise(reenactor.device)
        samples.setdefault(name, []).append(time.perf_counter() - started)
        return result

    view = reenactor.view(driver)
    features = reenactor.encode_source(source)
    reenactor.render(source, features, driver, view)  # warm-up
    with torch.inference_mode(), reenactor.precision():
        canonical = network.canonical_encoder.reenact(features.tokens, driver.motion)
        planes, field = network.plane_generator(canonical, features.detail), network.head_pose_field(view.params)
        planes = planes.unflatten(1, (3, -1))
    for _ in range(rounds):
        timed("frame, cached source", lambda: reenactor.render(source, features, driver, view))
        timed(
            "frame, no source cache",
            lambda: reenactor.render(source, reenactor.encode_source(source), driver, view),
        )
        with torch.inference_mode(), reenactor.precision():
            timed("encode source", lambda: network.encode_source(source.image, source.motion))
            timed("re-enact", lambda: network.canonical_encoder.reenact(features.tokens, driver.motion))
            timed("generate planes", lambda: network.plane_generator(canonical, features.detail))
            timed("head-pose field", lambda: network.head_pose_field(view.params))
            timed(
                "render + super-resolve",
                lambda: network.render(planes, features.background, view.camera, field, reenactor.options),
            )
    return {name: statistics.median(values) for name, values in samples.items()}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Parse the command line, measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, help="network file (default: seeded, of --config's sizes)")
    parser.add_argument("--config", default="portrait4d-v2-512.yaml", help="sizes of the seeded network")
    parser.add_argument("--srcdir", type=Path, default=EXAMPLES, help="prepared folder; its first two portraits serve")
    parser.add_argument("--render-size", type=int, default=128, help="rays per side")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are printed")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        network = options.network or Path(folder) / "seeded.safetensors"
        if options.network is None:
            write_seeded_network(network, options.config)
        config = ReenactConfig(
            network=network,
            srcdir=options.srcdir,
            tardir=options.srcdir,
            outdir=Path(folder),
            render_size=options.render_size,
            device=options.device,
            dtype=options.dtype,
        )
        reenactor = Reenactor(config)
    portraits = PortraitFolder(options.srcdir).items()
    if reenactor.needs_motion_encoder(portraits):
        reenactor.load_motion_encoder()
    source, driver = (reenactor.load_frame(portraits[number % len(portraits)]) for number in (0, 1))
    figures = time_stages(reenactor, source, driver, options.rounds)
    figures["cached / no cache"] = figures["frame, cached source"] / figures["frame, no source cache"]
    figures["peak memory, GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.dtype} on {reenactor.device}, {torch.get_num_threads()} threads, {options.render_size}² rays")
    for name, value in figures.items():
        print(f"{name:26s} {value:9.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
