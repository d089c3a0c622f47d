"""Check every record of a database or of tar shards: `python -m portrait4d.data.validate --data DIR`.

Decodable, one size, finite labels with a sane camera, masks that are not empty; with a head model also how much of the
projected head lies inside the mask. Prints a table and exits with 1 if a record is bad.
"""

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from portrait4d.data.label_checks import label_problems
from portrait4d.data.record_arrays import clip_arrays, mask_coverage, still_label, still_motion, still_picture
from portrait4d.data.record_stores import detect_kind, open_records
from portrait4d.data.records import STILL, Fields, RecordStore
from portrait4d.files.errors import UserError
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.flame_assets import load_flame_assets
from portrait4d.geometry.head_params import split_label
from portrait4d.rendering.mesh_maps import render_region_mask

MIN_OVERLAP = 0.7
"""Share of the projected head that must lie inside the mask."""
_MASK_SIDE = 64
_SHOWN = 30


@dataclass
class Validation:
    """What was found.

    Attributes:
        records, pictures: how many were checked.
        sides: pictures by side in pixels.
        problems: (record, what is wrong).
        overlaps: share of the projected head inside the mask, one for each checked frame.
    """

    records: int = 0
    pictures: int = 0
    sides: Counter[int] = field(default_factory=Counter)
    problems: list[tuple[int, str]] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)

    def table(self) -> str:
        """Return the table for the terminal."""
        bad = len({record for record, _ in self.problems})
        rows = [("records", str(self.records)), ("pictures", str(self.pictures))]
        rows.append(("side in pixels", ", ".join(f"{side} ({n})" for side, n in sorted(self.sides.items())) or "-"))
        if self.overlaps:
            low, middle = min(self.overlaps), float(np.median(self.overlaps))
            rows.append(("head inside mask", f"median {middle:.3f}, least {low:.3f}"))
        rows.append(("bad records", str(bad)))
        lines = [f"{name:<18}{value}" for name, value in rows]
        lines += [f"{record:>8}  {problem}" for record, problem in self.problems[:_SHOWN]]
        return "\n".join(lines + [f"... and {len(self.problems) - _SHOWN} more"] * (len(self.problems) > _SHOWN))


def validate_records(store: RecordStore, head: HeadModel | None = None, limit: int | None = None) -> Validation:
    """Check the records of a store, all or the first `limit`; of clips, labels of all frames and one mask each.

    Args:
        store: still pictures or clips.
        head: the head model of the labels; None leaves the comparison of masks with heads out.
        limit: records to check.
    """
    result = Validation()
    check = _check_still if store.kind == STILL else _check_clip
    for index in tqdm(range(len(store) if limit is None else min(limit, len(store))), unit="record"):
        result.records += 1
        try:
            with store.fields(index) as fields:
                problems = list(check(fields, result, head))
        except (UserError, ValueError) as error:
            problems = [str(error)]
        result.problems += [(index, problem) for problem in problems]
    if len(result.sides) > 1:
        result.problems.append((0, f"pictures of {len(result.sides)} sizes"))
    return result


def head_inside_mask(head: HeadModel, label: np.ndarray, mask: np.ndarray) -> float:
    """Return which share of the face region, projected by a frame label (437,), lies inside the mask (H, W) uint8.

    Raises:
        ValueError: the label shows no head.
    """
    camera, params = split_label(torch.from_numpy(label.copy())[None])
    shown = render_region_mask(head, params.without_neck_rotation(), camera, _MASK_SIDE, "face")[0, 0].numpy() > 0.5
    if not shown.any():
        raise ValueError("label: expected a head in the picture, got none")
    steps = (np.arange(_MASK_SIDE) + 0.5) * len(mask) / _MASK_SIDE
    inside = mask[np.ix_(steps.astype(int), steps.astype(int))] > 127
    return float((shown & inside).sum() / shown.sum())


def _check_still(fields: Fields, result: Validation, head: HeadModel | None) -> Iterator[str]:
    image, mask = still_picture(fields, "image"), mask_coverage(fields)
    result.pictures += 1
    result.sides[image.shape[1]] += 1
    if image.shape[1:] != mask.shape or image.shape[1] != image.shape[2]:
        yield f"image: {image.shape[2]} x {image.shape[1]} pixels, mask {mask.shape[1]} x {mask.shape[0]}"
        return
    if not np.isfinite(still_motion(fields)).all():
        yield "mots: NaN or infinite numbers"
    yield from _check_frame(still_label(fields), mask, result, head)


def _check_clip(fields: Fields, result: Validation, head: HeadModel | None) -> Iterator[str]:
    arrays = clip_arrays(fields)
    result.pictures += len(arrays.images)
    result.sides[arrays.images.shape[1]] += len(arrays.images)
    if not np.isfinite(arrays.motions).all():
        yield "mots: NaN or infinite numbers"
    for frame, label in enumerate(arrays.labels[1:], 1):
        yield from (f"frame {frame}: {problem}" for problem in label_problems(label))
    yield from _check_frame(arrays.labels[0], arrays.masks[0, ..., 0], result, head)


def _check_frame(label: np.ndarray, mask: np.ndarray, result: Validation, head: HeadModel | None) -> Iterator[str]:
    problems = label_problems(label)
    yield from problems
    if not (mask > 127).any():
        yield "mask: empty"
    if head is not None and not problems:
        overlap = head_inside_mask(head, label, mask)
        result.overlaps.append(overlap)
        if overlap < MIN_OVERLAP:
            yield f"mask: only {overlap:.2f} of the projected head lies inside"


def load_head_model(name: str) -> HeadModel:
    """Load FLAME from a folder, or build an open head from `MODULE:FUNCTION` that gives its `HeadAssets`.

    Raises:
        UserError: neither.
    """
    module, _, function = name.partition(":")
    if Path(name).is_dir():
        return HeadModel.from_assets(load_flame_assets(Path(name)))
    try:
        return HeadModel.from_assets(getattr(importlib.import_module(module), function)())
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--head-model {name}: neither FLAME's folder nor MODULE:FUNCTION ({error})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, validate, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m portrait4d.data.validate", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of an LMDB database or of tar shards")
    parser.add_argument(
        "--head-model", help="FLAME's folder, or MODULE:FUNCTION of an open head; also compare heads with masks"
    )
    parser.add_argument("--limit", type=int, help="check the first records only")
    options = parser.parse_args(arguments)
    try:
        head = load_head_model(options.head_model) if options.head_model else None
        store = open_records(options.data, detect_kind(options.data))
        result = validate_records(store, head, options.limit)
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    sys.stdout.write(result.table() + "\n")
    return 1 if result.problems or not result.records else 0


if __name__ == "__main__":
    sys.exit(main())
