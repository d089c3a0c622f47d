"""Faces of the open head world with their landmarks, in memory: what the landmark network learns from."""

from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.config.motion_training import MotionDataConfig
from portrait4d.geometry.face_alignment import fit_similarity
from portrait4d.geometry.flame import HeadModel
from portrait4d.training.examples_in_memory import ExamplesInMemory, require_data
from portrait4d.training.motion_examples import clip_frames, grouped_frames, still_frames

FACE_MARGIN = 0.14
"""Room beside the mean face in the view of the second look, in sides of the view."""


class LandmarkExample(NamedTuple):
    """A face; batches have a leading B.

    Attributes:
        image: (3, P, P) uint8 RGB.
        points: (70, 2) (x, y) as fractions of the picture, y down.
    """

    image: Tensor
    points: Tensor


class LandmarkExamples(ExamplesInMemory[LandmarkExample]):
    """Faces with their landmarks."""


@torch.no_grad()
def read_landmarks(data: MotionDataConfig, head: HeadModel, size: int) -> tuple[LandmarkExamples, LandmarkExamples]:
    """Read what is learnt from, and what is only measured (empty if there is none), at `size` pixels a side.

    Raises:
        UserError: no data.
        InputFileError: no database, damaged, or empty.
    """
    require_data(data)
    learnt, measured = ((still_frames, data.path), (clip_frames, data.clips)), ((still_frames, data.held_out),)
    results = []
    for sources in (learnt, measured):
        groups = [LandmarkExample(torch.empty(0, 3, size, size, dtype=torch.uint8), torch.empty(0, 70, 2))]
        for read, path in sources:
            for group in grouped_frames(read(path), head, size) if path is not None else ():
                places = group.landmarks / size
                groups.append(LandmarkExample(group.images, torch.stack([places[..., 0], 1 - places[..., 1]], dim=-1)))
        results.append(LandmarkExamples(LandmarkExample(*map(torch.cat, zip(*groups, strict=True)))))
    return results[0], results[1]


def mean_face(points: Tensor) -> Tensor:
    """Return where the points of the mean face lie in the view of the second look, fractions of it.

    Faces (N, 70, 2) are brought onto the first one, averaged, and centred with FACE_MARGIN beside them.
    """
    mean = points[0].double()
    for _ in range(3):
        moved = fit_similarity(points, mean)
        mean = (points.double() @ moved[:, :, :2].mT + moved[:, None, :, 2]).mean(dim=0)
    eyes = mean[42:48].mean(dim=0) - mean[36:42].mean(dim=0)
    cosine, sine = eyes / eyes.norm()
    mean = mean @ torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])
    low, high = mean.amin(dim=0), mean.amax(dim=0)
    scale = (1 - 2 * FACE_MARGIN) / (high - low).max()
    return (0.5 + (mean - (low + high) / 2) * scale).float()
