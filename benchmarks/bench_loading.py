"""Time loading of stills and clips from a database against reading the same PNG or JPEG files, in turns.

One table: items per second (median of the rounds) by picture size, file kind, container and number of workers. An item
of stills is picture, mask and label; of clips two pictures, a mask, labels and motions of the whole clip (which the
head rotations need). All files are in the page cache: what is measured is decoding and copying, not the disk.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from portrait4d.data.clip_dataset import ClipDataset  # noqa: E402
from portrait4d.data.convert_records import convert_records  # noqa: E402
from portrait4d.data.image_io import decode_image  # noqa: E402
from portrait4d.data.loading import BatchLoader, LoadingConfig  # noqa: E402
from portrait4d.data.pack_folders import PackConfig, pack_clips, pack_stills  # noqa: E402
from portrait4d.data.pack_sources import plan_clips, plan_stills  # noqa: E402
from portrait4d.data.portrait_dataset import PortraitDataset, PortraitItem  # noqa: E402
from portrait4d.data.portrait_folder import PortraitFolder, PreparedPortrait  # noqa: E402
from portrait4d.geometry.head_params import split_label  # noqa: E402
from tests.helpers.raw_folders import write_portrait  # noqa: E402

STEPS = 4


class StillFiles:
    """The same stills read from their files."""

    def __init__(self, root: Path) -> None:
        self.portraits = [source.portrait for source in plan_stills(root, "none")]

    def __len__(self) -> int:
        return len(self.portraits)

    def load(self, index: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Load picture, mask and label, in the same parts as the database's items."""
        portrait = self.portraits[index]
        camera, params = split_label(torch.from_numpy(portrait.load_frame_label(simplified=False))[None])
        parts = (camera, params.shape, params.expression, params.pose, params.eye_pose)
        pictures = (_picture(path) for path in (portrait.image_path, portrait.segmentation_path))
        return PortraitItem(*pictures, *(part[0] for part in parts))


class ClipFiles:
    """The same clips read from their files."""

    def __init__(self, root: Path) -> None:
        self.clips = [PortraitFolder(source.folder).items() for source in plan_clips(root)[0]]

    def __len__(self) -> int:
        return len(self.clips)

    def load(self, index: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Load two pictures, a mask, all labels and two motion vectors."""
        clip = self.clips[index]
        rows = torch.randint(len(clip), (2,), generator=generator).tolist()
        source, driving = (clip[row] for row in rows)
        labels = np.stack([frame.load_frame_label(simplified=False) for frame in clip])
        motions = np.stack([frame.load_motion() for frame in (source, driving)])
        pictures = [_picture(p) for p in (source.image_path, driving.image_path, driving.segmentation_path)]
        return (*pictures, torch.from_numpy(labels), torch.from_numpy(motions))


def _picture(path: Path) -> Tensor:
    return decode_image(path.read_bytes(), path.name)


def rate(dataset: object, workers: int, batch: int, seconds: float) -> float:
    """Return items per second after the first batches."""
    loader = BatchLoader(dataset, LoadingConfig(batch, workers=workers, pin_memory=False))
    for _ in range(STEPS):
        next(loader)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        next(loader)
        count += batch
    passed = time.perf_counter() - started
    loader.close()
    return count / passed


def repeat_file(portrait: PreparedPortrait, copies: int) -> None:
    """Give a portrait's files further names: few painted heads stand for many."""
    files = [portrait.image_path, portrait.segmentation_path]
    files += [portrait.array_path(name) for name in ("flame_optim_params", "motion_feats")]
    for copy in range(1, copies):
        for path in files:
            path.with_name(f"{path.stem}-{copy:03d}{path.suffix}").hardlink_to(path)


def make_datasets(folder: Path, side: int, kind: str, heads: int, copies: int) -> dict[str, dict[str, object]]:
    """Write raw folders, pack them, and return the data sets by container."""
    stills, clips = folder / "stills", folder / "clips"
    for head in range(heads):
        write_portrait(stills, f"{head:05d}", head, side, 0.1 * head - 0.2, kind)
        for clip in range(2):
            write_portrait(clips / f"clip-{clip}", f"{head:05d}", head + clip, side, 0.1 * head - 0.2, kind)
    for portraits in (stills, clips / "clip-0", clips / "clip-1"):
        for portrait in PortraitFolder(portraits).items():
            repeat_file(portrait, copies)
    frames = heads * copies
    packed = pack_stills(PackConfig(stills, folder / "out", side)).target
    packed_clips = pack_clips(PackConfig(clips, folder / "out", side, frames=frames)).target
    convert_records(PortraitDataset(packed).store, folder / "shards", "shards")
    return {
        "stills": {
            "files": StillFiles(stills),
            "lmdb": PortraitDataset(packed),
            "shards": PortraitDataset(folder / "shards"),
        },
        "clips": {"files": ClipFiles(clips), "lmdb": ClipDataset(packed_clips)},
    }


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="*", default=[128, 512], help="picture sizes")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="numbers of workers")
    parser.add_argument("--kinds", nargs="*", default=["PNG", "JPEG"], help="file kinds")
    parser.add_argument("--heads", type=int, default=5, help="painted heads")
    parser.add_argument("--copies", type=int, default=10, help="files of each")
    parser.add_argument("--batch", type=int, default=4, help="items per batch")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each case, in turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'side':>5} {'kind':5} {'data':7} {'from':7} {'workers':>7} {'items/s':>9} {'against files':>14}")
    for side in options.sides:
        for kind in options.kinds:
            with tempfile.TemporaryDirectory() as name:
                datasets = make_datasets(Path(name), side, kind, options.heads, options.copies)
                for data, containers in datasets.items():
                    for workers in options.workers:
                        rates: dict[str, list[float]] = {container: [] for container in containers}
                        for _ in range(options.rounds):
                            for container, dataset in containers.items():
                                rates[container].append(rate(dataset, workers, options.batch, options.seconds))
                        medians = {container: statistics.median(values) for container, values in rates.items()}
                        for container, items in medians.items():
                            share = items / medians["files"]
                            print(f"{side:5} {kind:5} {data:7} {container:7} {workers:7} {items:9.1f} {share:13.2f}x")


if __name__ == "__main__":
    main()
