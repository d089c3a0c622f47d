"""Where faces are in pictures: detected in each, or followed through a clip. Source: preprocess-pipeline.md §4."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from data_preprocess.face_boxes import FaceBoxes, FaceChoice, choose_faces
from data_preprocess.face_networks import FaceNetworks
from data_preprocess.landmarks_2d import DETECTION_ENLARGEMENT, TRACKING_ENLARGEMENT, bounding_boxes
from data_preprocess.pictures import Picture
from data_preprocess.portrait_crop import Placement, fit_placement
from data_preprocess.track_smoothing import PlacementSmoother
from portrait4d.files.errors import InputFileError, UserError

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class FoundFace:
    """A face in a picture.

    Attributes:
        image: the picture (3, H, W) in [-1, 1].
        box: (4,) in its pixels.
        landmarks98: (98, 2) float64 likewise, y down.
        placement: of the portrait.
        index, count: which of how many faces of the picture.
    """

    image: Tensor
    box: Tensor
    landmarks98: Tensor
    placement: Placement
    index: int = 0
    count: int = 1


@dataclass
class Finding:
    """What was found in a picture: faces, and problems with it or with some of them."""

    picture: Picture
    faces: list[FoundFace] = field(default_factory=list)
    problems: list[UserError] = field(default_factory=list)


class FaceDetector:
    """Find faces in pictures that have nothing to do with each other.

    Args:
        networks: to find them with.
        choice: which faces to keep.
    """

    def __init__(self, networks: FaceNetworks, choice: FaceChoice = "largest") -> None:
        self.networks = networks
        self.choice: FaceChoice = choice

    def find(self, pictures: list[Picture]) -> list[Finding]:
        """Find the faces of a batch; pictures that are done, or have a problem, have none."""
        findings = [Finding(p, problems=[p.problem] if p.problem else []) for p in pictures]
        places: list[tuple[Finding, FaceBoxes, int]] = []
        for finding, faces in self._detect([finding for finding in findings if finding.picture.image is not None]):
            if not len(faces):
                finding.problems.append(InputFileError(finding.picture.name, "no face found"))
            places += [(finding, faces, index) for index in range(len(faces))]

        def locate(some: list[tuple[Finding, FaceBoxes, int]]) -> list[FoundFace]:
            images = [finding.picture.image for finding, _, _ in some]
            boxes = torch.stack([faces.boxes[index] for _, faces, index in some])
            located = locate_faces(self.networks, images, boxes, DETECTION_ENLARGEMENT)
            pairs = zip(images, boxes, located, some, strict=True)
            return [FoundFace(image, box, *found, k, len(faces)) for image, box, found, (_, faces, k) in pairs]

        for (finding, _, _), face in zip(places, call_each(locate, places), strict=True):
            if isinstance(face, ValueError):
                finding.problems.append(InputFileError(finding.picture.name, f"no landmarks of a face ({face})"))
            else:
                finding.faces.append(face)
        return findings

    def _detect(self, findings: list[Finding]) -> Iterable[tuple[Finding, FaceBoxes]]:
        by_size: dict[torch.Size, list[Finding]] = {}
        for finding in findings:
            by_size.setdefault(finding.picture.image.shape, []).append(finding)
        for size, group in by_size.items():
            found = self.networks.detect(torch.stack([finding.picture.image for finding in group]))
            for finding, faces in zip(group, found, strict=True):
                yield finding, choose_faces(faces, self.choice, tuple(size[1:]))


class FaceTracker:
    """Follow one face through a clip: detect it once, then go by the landmarks of the picture before.

    Where there is no picture before, or the face was lost, it is detected. Lost means that the landmarks' crop misses
    the picture, or that they make no face.

    Args:
        detector: finds the first one.
        recall: landmarks (98, 2) and height of a picture that was done earlier, None if it has no face.
        smooth: let steady faces lie still.
    """

    def __init__(
        self, detector: FaceDetector, recall: Callable[[Picture], tuple[Tensor, int] | None], smooth: bool = False
    ) -> None:
        self.detector = detector
        self.recall = recall
        self._smoother = PlacementSmoother() if smooth else None
        self._last: Tensor | None = None

    def find(self, pictures: list[Picture]) -> list[Finding]:
        """Find the face in each of the next pictures of the clip."""
        return [self._find_next(picture) for picture in pictures]

    def _find_next(self, picture: Picture) -> Finding:
        if picture.is_done:
            self._remember(picture)
        if picture.image is None:
            return Finding(picture, problems=[picture.problem] if picture.problem else [])
        followed = None if self._last is None else self._follow(picture)
        finding = self.detector.find([picture])[0] if followed is None else Finding(picture, [followed])
        self._last = finding.faces[0].landmarks98 if finding.faces else None
        finding.faces = [self._smoothed(face, picture.number) for face in finding.faces]
        return finding

    def _follow(self, picture: Picture) -> FoundFace | None:
        boxes = bounding_boxes(self._last[None])
        try:
            found = locate_faces(self.detector.networks, [picture.image], boxes, TRACKING_ENLARGEMENT)
        except ValueError:
            return None
        return FoundFace(picture.image, boxes[0], *found[0])

    def _smoothed(self, face: FoundFace, number: int) -> FoundFace:
        if self._smoother is None:
            return face
        return replace(face, placement=self._smoother.smooth(face.placement, number))

    def _remember(self, picture: Picture) -> None:
        recalled = self.recall(picture)
        self._last = None if recalled is None else recalled[0]
        if recalled is not None and self._smoother is not None:
            self._smoother.smooth(fit_placement(*recalled), picture.number)


def locate_faces(
    networks: FaceNetworks, images: list[Tensor], boxes: Tensor, enlargement: float
) -> list[tuple[Tensor, Placement]]:
    """Return the landmarks (98, 2) and the placement of one face per picture.

    Raises:
        ValueError: a box that misses its picture, or landmarks that make no face.
    """
    points = networks.landmarks98(images, boxes, enlargement)
    return [(one, fit_placement(one, image.shape[1])) for one, image in zip(points, images, strict=True)]


def call_each(function: Callable[[list[S]], list[T]], items: list[S]) -> list[T | ValueError]:
    """Call a batched function; if it refuses the batch, item by item, so that only those that it refuses fail."""
    if not items:
        return []
    try:
        return function(items)
    except ValueError as error:
        if len(items) == 1:
            return [error]
        return [call_each(function, [item])[0] for item in items]
