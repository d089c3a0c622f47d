"""Draw a training run as one picture: curves of its stats.jsonl above picture grids over time.

    python benchmarks/plot_run.py RUN --out run.png --curves Loss/G/loss Loss/D/loss --measures metric-fid2k.jsonl

RUN is a run directory. Needs matplotlib (pip install matplotlib).
"""

import argparse
import json
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402 (behind the choice of a drawer without screen)


def read_lines(path: Path) -> list[dict]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def draw_curves(axis: plt.Axes, lines: list[dict], names: list[str], title: str) -> None:
    """Draw statistics over kimg, each where it was measured anew."""
    for name in names:
        points = [(line["Progress/kimg"]["mean"], line[name]["mean"]) for line in lines if name in line]
        if points:
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1)
    axis.set_xlabel("kimg")
    axis.set_title(title, fontsize=8)
    axis.legend(fontsize=6)
    axis.tick_params(labelsize=6)
    axis.grid(alpha=0.3)


def draw_measures(axis: plt.Axes, lines: list[dict]) -> None:
    """Draw metrics of snapshots over kimg, and the floor of two halves of the reals where it was measured."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        kimg = int(re.search(r"network-snapshot-(\d+)", line["snapshot_pkl"])[1])
        for name, value in line["results"].items():
            points.setdefault(name, []).append((kimg, value))
    for name, values in points.items():
        axis.plot(*zip(*sorted(values), strict=True), marker="o", markersize=3, linewidth=1, label=name)
    axis.set_yscale("log")
    axis.set_xlabel("kimg")
    axis.legend(fontsize=6)
    axis.tick_params(labelsize=6)
    axis.grid(alpha=0.3)


def choose(files: list[Path], count: int) -> list[Path]:
    """Return `count` files, evenly spread, first and last included."""
    if len(files) <= count:
        return files
    return [files[round(k * (len(files) - 1) / (count - 1))] for k in range(count)]


def main() -> int:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--curves", nargs="*", action="append", default=[], help="one diagram; may be repeated")
    parser.add_argument("--grid", default="_sr", help="suffix of the picture grids")
    parser.add_argument("--rows", type=int, default=2, help="rows of tiles shown of each grid")
    parser.add_argument("--tile", type=int, default=64, help="pixels of a tile")
    parser.add_argument("--measures", type=Path, default=None, help="JSON lines of calc_metrics_deform.py")
    options = parser.parse_args()
    lines = read_lines(options.run / "stats.jsonl")
    grids = choose(sorted(options.run.glob(f"fakes??????{options.grid}.png")), 4)
    diagrams = len(options.curves) + (options.measures is not None)
    below = 0.62 * options.rows * ((len(grids) + 1) // 2) + 0.3
    figure = plt.figure(figsize=(10, 2.6 + below), dpi=110)
    halves = figure.subfigures(2, 1, height_ratios=(2.6, below))
    axes = halves[0].subplots(1, max(diagrams, 1), squeeze=False)[0]
    for axis, names in zip(axes, options.curves, strict=False):
        draw_curves(axis, lines, names, "")
    if options.measures is not None:
        draw_measures(axes[len(options.curves)], read_lines(options.measures))
    columns = halves[1].subplots((len(grids) + 1) // 2, 2, squeeze=False).flatten()
    for axis in columns:
        axis.axis("off")
    for axis, path in zip(columns, grids, strict=False):
        picture = plt.imread(path)[: options.rows * options.tile]
        axis.imshow(picture)
        axis.set_title(f"{int(re.search('fakes(......)', path.name)[1])} kimg", fontsize=8)
    halves[0].subplots_adjust(bottom=0.2, top=0.95, left=0.06, right=0.98)
    halves[1].subplots_adjust(bottom=0.01, top=0.93, left=0.01, right=0.99, wspace=0.02, hspace=0.14)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
