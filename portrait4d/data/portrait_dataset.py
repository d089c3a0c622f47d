"""Still portraits of a database: pictures, masks, labels.

The picture size comes from the database, whatever its folder is called. Mirrored copies are real ones: picture, mask,
camera, head rotations and coefficients are mirrored (`geometry/mirroring.py`). Source: datasets.md §5.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.record_arrays import still_label, still_motion, still_picture, still_side
from portrait4d.data.record_dataset import RecordDataset
from portrait4d.data.record_stores import record_errors, rescale_camera
from portrait4d.data.records import STILL, Fields
from portrait4d.data.sampling import subset_indices
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.geometry.mirroring import HeadMirror


class PortraitItem(NamedTuple):
    """One portrait; batches have a leading B.

    Attributes:
        image: (3, R, R) uint8 RGB.
        mask: (3, R, R) uint8, head 255, background 0; channels of a coloured mask in the reference's order, BGR.
        camera: (25,) camera vector that contains the head rotation.
        shape, expression, pose, eye_pose: (300,), (100,), (6,), (6,); see `geometry/head_params.py`.
    """

    image: Tensor
    mask: Tensor
    camera: Tensor
    shape: Tensor
    expression: Tensor
    pose: Tensor
    eye_pose: Tensor


class PortraitDataset(RecordDataset[PortraitItem]):
    """The portraits of a database in order, each as often as told, mirrored copies behind the originals.

    Args:
        path: LMDB database or folder of shards.
        max_size: keep this many records, chosen by `seed`.
        seed: of that choice.
        mirror: maps of the head model's coefficients; given, every item comes a second time, mirrored.
        repetitions: (records,) how often each record comes, for databases packed without repetitions.
        rescale_old_camera: convert labels of old preprocessing (`rescale_camera`).

    Attributes:
        resolution: side of all pictures in pixels.
        record_indices: (len,) record of each item.
        is_mirrored: (len,) whether the item is a mirrored copy.

    Raises:
        InputFileError: no database, damaged, or empty.
        ValueError: `repetitions` of another length.
    """

    def __init__(
        self,
        path: str | Path,
        max_size: int | None = None,
        seed: int = 0,
        mirror: HeadMirror | None = None,
        repetitions: Sequence[int] | np.ndarray | None = None,
        rescale_old_camera: bool = False,
    ) -> None:
        super().__init__(path, STILL, still_side, mirror)
        self.rescale_old_camera = rescale_old_camera
        chosen = subset_indices(len(self.store), max_size, seed)
        if repetitions is not None:
            if len(repetitions) != len(self.store):
                raise ValueError(f"repetitions: expected {len(self.store)} numbers, got {len(repetitions)}")
            chosen = chosen.repeat(np.asarray(repetitions)[chosen])
        self.choose_records(chosen)

    def load(self, index: int, generator: torch.Generator | None = None) -> PortraitItem:
        """Load item `index`. Nothing is random here; `generator` is what clip datasets take.

        Raises:
            IndexError: no such item.
            InputFileError: its record is damaged or of another size.
        """
        record = self.record_of(index)
        with self.store.fields(record) as fields, record_errors(self.store, record):
            image, mask = self._picture(fields, "image"), self._picture(fields, "seg")[::-1]
            label = self._label(fields, index)
        if self.is_mirrored[index]:
            image, mask = image[..., ::-1], mask[..., ::-1]
        camera, params = split_label(label[None])
        parts = (camera, params.shape, params.expression, params.pose, params.eye_pose)
        return PortraitItem(
            *(torch.from_numpy(np.ascontiguousarray(rows)) for rows in (image, mask)), *(p[0] for p in parts)
        )

    def label(self, index: int) -> Tensor:
        """Return the frame label (437,) of item `index` without reading its pictures.

        Raises:
            IndexError, InputFileError: as `load`.
        """
        record = self.record_of(index)
        with self.store.fields(record) as fields, record_errors(self.store, record):
            return self._label(fields, index)

    def head_params(self, index: int) -> tuple[Tensor, HeadParams]:
        """Return camera (1, 25) and head parameters (batch size 1) of item `index`; as `label`."""
        return split_label(self.label(index)[None])

    def motion(self, index: int) -> Tensor:
        """Return the stored motion vector (548,) of item `index`.

        Raises:
            ValueError: the item is mirrored; a network's motion vector has no mirror image.
            IndexError, InputFileError: as `load`.
        """
        record = self.record_of(index)
        if self.is_mirrored[index]:
            raise ValueError(f"index: expected an item that is not mirrored, got {index}; compute its motion anew")
        with self.store.fields(record) as fields, record_errors(self.store, record):
            return torch.from_numpy(still_motion(fields))

    def _picture(self, fields: Fields, name: str) -> np.ndarray:
        picture = still_picture(fields, name)
        if picture.shape != self.image_shape:
            raise ValueError(f"{name}: expected shape {self.image_shape} as in record 0, got {picture.shape}")
        return picture

    def _label(self, fields: Fields, index: int) -> Tensor:
        label = still_label(fields)
        if self.rescale_old_camera:
            label = rescale_camera(label, self.resolution)
        label = torch.from_numpy(label)
        return self.mirror.label(label[None])[0] if self.is_mirrored[index] else label
