"""Run our code on recorded numbers: `python tests/golden/check.py --golden DIR [--real DIR]`.

Prints `file array max_abs max_rel ok|FAIL` for each array (max_rel is relative to the array's largest golden value),
names files of a kind it does not know, and exits with 1 if an array fails. Manifests and stand-in files that DIR
lacks come from this folder; photos come from --real. A kind is a function in one of the kind_*.py modules, found by
file name.
"""

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.golden import (  # noqa: E402
    kind_bfm2flame,
    kind_crop,
    kind_deep3d,
    kind_fan,
    kind_genhead,
    kind_h3r,
    kind_losses_genhead,
    kind_losses_recon,
    kind_motion,
    kind_network,
    kind_reconstructor,
    kind_records,
    kind_retinaface,
    kind_sampling,
)
from tests.golden.comparison import Context, Result  # noqa: E402

KINDS = {
    "bfm2flame-*.npz": kind_bfm2flame.check,
    "crop-*.npz": kind_crop.check,
    "deep3d-*.npz": kind_deep3d.check,
    "fan-*.npz": kind_fan.check,
    "genhead-*.npz": kind_genhead.check,
    "h3r-*.npz": kind_h3r.check,
    "reconstructor-*.npz": kind_reconstructor.check,
    "losses-genhead*.npz": kind_losses_genhead.check,
    "losses-recon*.npz": kind_losses_recon.check,
    "motion-*.npz": kind_motion.check,
    "network-*.pkl": kind_network.check,
    "records*.npz": kind_records.check,
    "retinaface-*.npz": kind_retinaface.check,
    "sampling*.npz": kind_sampling.check,
}
ACCESSORIES = ("manifest-*.json", "network-*.json", "standin.*", "weights.py", "README*.md")
"""Files that other files are checked with."""


def check_folder(context: Context, names: list[str] | None = None) -> tuple[list[Result], list[Path]]:
    """Check the golden files of a folder, all or those named; return the results and the files of unknown kind."""
    results, unknown = [], []
    for path in sorted(context.golden.iterdir()):
        if names is not None and path.name not in names:
            continue
        kinds = [check for pattern, check in KINDS.items() if path.match(pattern)]
        if kinds:
            started = time.perf_counter()
            for result in kinds[0](path, context):
                print(result.line(), flush=True)
                results.append(result)
            print(f"# {path.name} took {time.perf_counter() - started:.1f} s", flush=True)
        elif path.suffix in {".npz", ".pkl"} and not any(path.match(pattern) for pattern in ACCESSORIES):
            unknown.append(path)
    return results, unknown


def main() -> int:
    """Parse the command line, check, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=HERE, help="folder of golden files (default: this script's)")
    parser.add_argument("--real", type=Path, default=ROOT.parent / "shared" / "real", help="folder of real portraits")
    parser.add_argument("--only", nargs="*", help="file names to check (default: all)")
    options = parser.parse_args()
    if not options.golden.is_dir():
        print(f"{options.golden}: no such folder", file=sys.stderr)
        return 2
    results, unknown = check_folder(Context(options.golden, HERE, options.real), options.only)
    for path in unknown:
        print(f"{path.name}: kind not known yet, not checked")
    failed = [result for result in results if not result.ok]
    print(f"{len(results)} arrays, {len(failed)} failed, {len(unknown)} files of unknown kind")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
