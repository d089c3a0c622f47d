"""Video clips of a database: a source frame and a driving frame of one clip, labels, motion vectors.

Only the two frames are copied out of a clip's 53 MB. Source: datasets.md §5.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.image_io import from_uint8
from portrait4d.data.record_arrays import clip_arrays
from portrait4d.data.record_dataset import RecordDataset
from portrait4d.data.record_stores import MotionFunction, record_errors, rescale_camera
from portrait4d.data.records import CLIP
from portrait4d.data.sampling import subset_indices
from portrait4d.geometry.head_params import split_label
from portrait4d.geometry.head_rotation import rectify_head_rotations
from portrait4d.geometry.mirroring import HeadMirror

_HEAD_ROTATION = slice(425, 428)


class ClipItem(NamedTuple):
    """Two frames of a clip; batches have a leading B. The target picture is the driving one.

    Attributes:
        source_image, driving_image: (3, R, R) uint8 RGB.
        driving_mask: (3, R, R) uint8, head 255, background 0.
        camera: (25,) of the driving frame; it contains the head rotation.
        shape: (300,) of the source frame.
        expression, pose, eye_pose: (100,), (6,), (6,) of the driving frame; head rotation rectified over the clip.
        source_motion, driving_motion: (548,), or (109,) expression | jaw | eyes.
        frames: (2,) int64 numbers of source and driving frame.
    """

    source_image: Tensor
    driving_image: Tensor
    driving_mask: Tensor
    camera: Tensor
    shape: Tensor
    expression: Tensor
    pose: Tensor
    eye_pose: Tensor
    source_motion: Tensor
    driving_motion: Tensor
    frames: Tensor


class ClipDataset(RecordDataset[ClipItem]):
    """The clips of a database; an item is two frames of a clip, drawn anew at each reading.

    Args:
        path: LMDB database or folder of shards.
        max_size: keep this many clips, chosen by `seed`.
        seed: of that choice.
        flame_motion: give the head model's motion (109,) instead of the stored PD-FGC vectors (548,).
        mirror: maps of the head model's coefficients; given, every clip comes a second time, mirrored.
        compute_motion: how to get PD-FGC vectors of mirrored frames, which cannot be made from the stored ones.
        rescale_old_camera: convert labels of old preprocessing (`rescale_camera`).

    Attributes:
        resolution: side of all pictures in pixels.
        record_indices, is_mirrored: (len,) record of each item, and whether it is a mirrored copy.

    Raises:
        InputFileError: no database, damaged, or empty.
        ValueError: `mirror` with PD-FGC vectors but without `compute_motion`.
    """

    def __init__(
        self,
        path: str | Path,
        max_size: int | None = None,
        seed: int = 0,
        flame_motion: bool = False,
        mirror: HeadMirror | None = None,
        compute_motion: MotionFunction | None = None,
        rescale_old_camera: bool = False,
    ) -> None:
        if mirror is not None and not flame_motion and compute_motion is None:
            raise ValueError(
                "mirror: expected flame_motion or compute_motion with it, got neither; stored PD-FGC motion vectors "
                "have no mirror image"
            )
        super().__init__(path, CLIP, lambda fields: clip_arrays(fields).images.shape[1], mirror)
        self.flame_motion, self.compute_motion = flame_motion, compute_motion
        self.rescale_old_camera = rescale_old_camera
        self.choose_records(subset_indices(len(self.store), max_size, seed))

    def frame_count(self, index: int) -> int:
        """Return how many frames the clip of item `index` has.

        Raises:
            IndexError, InputFileError: as `load`.
        """
        record = self.record_of(index)
        with self.store.fields(record) as fields, record_errors(self.store, record):
            return len(clip_arrays(fields).images)

    def load(self, index: int, generator: torch.Generator | None = None) -> ClipItem:
        """Load two frames of clip `index`, each drawn evenly from all (they may be the same).

        Raises:
            IndexError: no such item.
            InputFileError: its record is damaged or of another size.
        """
        source, driving = torch.randint(self.frame_count(index), (2,), generator=generator).tolist()
        return self.load_frames(index, source, driving)

    def load_frames(self, index: int, source: int, driving: int) -> ClipItem:
        """Load frames number `source` and `driving` of clip `index`; see `load`.

        Raises:
            ValueError: a frame number that the clip does not have.
            IndexError, InputFileError: as `load`.
        """
        record = self.record_of(index)
        rows = [source, driving]
        with self.store.fields(record) as fields:
            with record_errors(self.store, record):
                arrays = clip_arrays(fields)
                if arrays.images.shape[1] != self.resolution:
                    raise ValueError(f"images: expected side {self.resolution}, got {arrays.images.shape[1]}")
            if not 0 <= min(rows) <= max(rows) < len(arrays.images):
                raise ValueError(f"source, driving: expected 0 to {len(arrays.images) - 1}, got {source}, {driving}")
            images = arrays.images[rows].transpose(0, 3, 1, 2)
            mask = np.broadcast_to(arrays.masks[driving].transpose(2, 0, 1), self.image_shape)
            labels = self._labels(arrays.labels)[rows]
            motions = arrays.motions[rows]
            flip = -1 if self.is_mirrored[index] else 1
            images, mask = (torch.from_numpy(np.array(a[..., ::flip], order="C")) for a in (images, mask))
        return self._assemble(index, images, mask, torch.from_numpy(labels), torch.from_numpy(motions), rows)

    def _assemble(
        self, index: int, images: Tensor, mask: Tensor, labels: Tensor, motions: Tensor, rows: list[int]
    ) -> ClipItem:
        if self.is_mirrored[index]:
            labels = self.mirror.label(labels)
        camera, params = split_label(labels)
        if self.flame_motion:
            motions = params.flame_motion()
        elif self.is_mirrored[index]:
            motions = self.compute_motion(from_uint8(images), labels)
        driving = (camera[1], params.shape[0], params.expression[1], params.pose[1], params.eye_pose[1])
        return ClipItem(images[0], images[1], mask, *driving, motions[0], motions[1], torch.tensor(rows))

    def _labels(self, labels: np.ndarray) -> np.ndarray:
        labels = rescale_camera(labels, self.resolution) if self.rescale_old_camera else labels.copy()
        labels[:, _HEAD_ROTATION] = rectify_head_rotations(labels[:, _HEAD_ROTATION])
        return labels
