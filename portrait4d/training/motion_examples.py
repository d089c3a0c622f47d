"""Faces of the open head world with the inputs of their motion vectors, in memory: what the motion encoder learns from.

Landmarks are those of the head model, in pixels of the picture, x right, y up.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.data.clip_dataset import ClipDataset
from portrait4d.data.image_io import from_uint8, to_uint8
from portrait4d.data.portrait_dataset import PortraitDataset
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.ops.resize import resize_antialiased
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.synthetic_heads.motion_inputs import motion_inputs
from portrait4d.training.examples_in_memory import ExamplesInMemory

_GROUP = 32


class MotionExample(NamedTuple):
    """A face; batches have a leading B.

    Attributes:
        image: (3, P, P) uint8 RGB.
        landmarks: (68, 2) pixels, y up.
        inputs: (27,) see `synthetic_heads/motion_inputs.py`.
    """

    image: Tensor
    landmarks: Tensor
    inputs: Tensor


class FaceFrame(NamedTuple):
    """What databases hold of a face: image (3, R, R) uint8, camera (25,), and parts of the head parameters."""

    image: Tensor
    camera: Tensor
    shape: Tensor
    expression: Tensor
    pose: Tensor
    eye_pose: Tensor


class FaceGroup(NamedTuple):
    """B faces: images (B, 3, P, P) uint8, landmarks (B, 70, 2) in pixels with y up, and their parameters."""

    images: Tensor
    landmarks: Tensor
    params: HeadParams


class MotionExamples(ExamplesInMemory[MotionExample]):
    """Faces with the inputs of their motion vectors."""


def read_stills(path: str | Path, head: HeadModel, size: int) -> MotionExamples:
    """Read the stills of a database; pictures are brought to `size` pixels a side.

    Raises:
        InputFileError: no database, damaged, or empty.
    """
    return _collect(still_frames(path), head, size)


def read_clips(path: str | Path, head: HeadModel, size: int) -> MotionExamples:
    """Read every frame of the clips of a database; as `read_stills`."""
    return _collect(clip_frames(path), head, size)


def still_frames(path: str | Path) -> Iterator[FaceFrame]:
    """Yield the stills of a database.

    Raises:
        InputFileError: no database, damaged, or empty.
    """
    dataset = PortraitDataset(path)
    for index in range(len(dataset)):
        item = dataset.load(index)
        yield FaceFrame(item.image, *item[2:])


def clip_frames(path: str | Path) -> Iterator[FaceFrame]:
    """Yield every frame of the clips of a database; as `still_frames`."""
    dataset = ClipDataset(path)
    for clip in range(len(dataset)):
        for frame in range(dataset.frame_count(clip)):
            item = dataset.load_frames(clip, frame, frame)
            params = (item.shape, item.expression, item.pose, item.eye_pose)
            yield FaceFrame(item.driving_image, item.camera, *params)


def grouped_frames(frames: Iterable[FaceFrame], head: HeadModel, size: int) -> Iterator[FaceGroup]:
    """Yield frames a few at a time: pictures of `size` pixels a side, parameters, and all 70 landmarks."""
    frames = iter(frames)
    while group := list(islice(frames, _GROUP)):
        image, camera, *parameters = (torch.stack(values) for values in zip(*group, strict=True))
        params = HeadParams(*parameters)
        landmarks = landmarks_2d(head, params, camera_for_posed_neck(head, params, camera), size)
        yield FaceGroup(to_uint8(resize_antialiased(from_uint8(image), size)), landmarks, params)


def join_examples(parts: Sequence[MotionExamples]) -> MotionExamples:
    """Put examples with pictures of one size behind each other."""
    return MotionExamples(_join([part.examples for part in parts]))


@torch.no_grad()
def _collect(frames: Iterable[FaceFrame], head: HeadModel, size: int) -> MotionExamples:
    return MotionExamples(
        _join(
            [
                MotionExample(group.images, group.landmarks[:, :68], motion_inputs(group.params))
                for group in grouped_frames(frames, head, size)
            ]
        )
    )


def _join(groups: Sequence[MotionExample]) -> MotionExample:
    return MotionExample(*(torch.cat(values) for values in zip(*groups, strict=True)))
