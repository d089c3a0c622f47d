"""Which head a generator in training is asked for: rows of a data set, whole or mixed (training-genhead.md §5)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import LABEL_DIM, HeadParams, split_label
from portrait4d.geometry.neck_pose import camera_for_posed_neck

LabelOf = Callable[[Tensor], Tensor]
"""Rows (B,) int64 of a data set to their frame labels (B, 437)."""


class LabelMemory:
    """The labels of a data set, each read once when it is first asked for: a run draws every row many times.

    Args:
        label: reads the label (437,) of a row.
        rows: of the data set.
        device: where labels are wanted; they are kept on the CPU.
    """

    def __init__(self, label: Callable[[int], Tensor], rows: int, device: torch.device) -> None:
        self.label, self.device = label, device
        self.table = torch.empty(rows, LABEL_DIM)  # takes up memory only where something is written
        self.is_known = torch.zeros(rows, dtype=torch.bool)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the labels (B, 437) of rows (B,) int64."""
        for row in rows[~self.is_known[rows]].tolist():
            self.table[row] = self.label(row)
        self.is_known[rows] = True
        found = self.table[rows]
        if self.device.type == "cuda":
            found = found.pin_memory()
        return found.to(self.device, non_blocking=True)


class ConditionRows(NamedTuple):
    """Rows, each (B,), that the parts of B conditions come from.

    Attributes:
        shape, expression, eye_pose, camera: of the part of that name; the jaw comes with the expression.
        neck: of the neck's rotation; None for unrotated necks.
    """

    shape: Tensor
    expression: Tensor
    eye_pose: Tensor
    camera: Tensor
    neck: Tensor | None


class FakeConditions(NamedTuple):
    """Heads to be made.

    Attributes:
        params: of B heads.
        camera: (B, 25) that sees the head with its neck posed.
        camera_upright: (B, 25) that sees it with its neck unrotated, as stored.
    """

    params: HeadParams
    camera: Tensor
    camera_upright: Tensor


def draw_condition_rows(
    count: int, rows: int, combine: bool, generator: torch.Generator | None = None
) -> ConditionRows:
    """Draw rows evenly, with replacement.

    Args:
        count: B.
        rows: of the data set.
        combine: draw each part by itself, instead of taking one row for all and no neck rotation.
        generator: on the CPU.

    Raises:
        ValueError: no rows, or no conditions.
    """
    if count < 1 or rows < 1:
        raise ValueError(f"count, rows: expected at least 1, got {count} and {rows}")
    if combine:
        return ConditionRows(*(torch.randint(rows, (count,), generator=generator) for _ in ConditionRows._fields))
    row = torch.randint(rows, (count,), generator=generator)
    return ConditionRows(row, row, row, row, None)


def build_conditions(head: HeadModel, rows: ConditionRows, label_of: LabelOf) -> FakeConditions:
    """Look rows up and join their parts.

    Args:
        head: the head model, on the labels' device.
        rows: as drawn.
        label_of: reads labels.
    """
    labels: dict[int, Tensor] = {}  # by the identity of the list of rows: whole rows share one
    cameras = {}
    parts = {}
    for name, numbers in rows._asdict().items():
        if numbers is not None:
            if id(numbers) not in labels:
                labels[id(numbers)] = label_of(numbers)
            cameras[name], parts[name] = split_label(labels[id(numbers)])
    jaw = parts["expression"].pose[:, 3:]
    neck = parts["neck"].pose[:, :3] if "neck" in parts else torch.zeros_like(jaw)
    params = HeadParams(
        parts["shape"].shape, parts["expression"].expression, torch.cat([neck, jaw], dim=1), parts["eye_pose"].eye_pose
    )
    return FakeConditions(params, camera_for_posed_neck(head, params, cameras["camera"]), cameras["camera"])
