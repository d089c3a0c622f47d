"""Faces in batches: only what is refused fails; pictures of several sizes; done and bad ones pass through."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from data_preprocess.find_faces import FaceDetector, FaceTracker, call_each
from data_preprocess.media import Clip
from data_preprocess.pictures import Picture, batch_pictures
from portrait4d.files.errors import UserError
from tests.helpers.stub_faces import StubNetworks

CLIP = Clip(Path("clip"), Path("out"), (), 0)


def picture(number: int, height: int = 64, width: int = 64, face: bool = True, **changes: object) -> Picture:
    image = torch.full((3, height, width), -1.0)
    if face:
        image[:, 16:48, 10:42] = 0.5
    return replace(Picture(CLIP, f"{number}.png", f"{number}.png", number, image), **changes)


def test_only_refused_items_fail() -> None:
    calls = []

    def halve(values: list[int]) -> list[int]:
        calls.append(list(values))
        if any(value % 2 for value in values):
            raise ValueError("odd")
        return [value // 2 for value in values]

    results = call_each(halve, [2, 3, 8])
    assert results[0] == 1 and isinstance(results[1], ValueError) and results[2] == 4
    assert calls == [[2, 3, 8], [2], [3], [8]]
    assert call_each(halve, [4, 6]) == [2, 3] and call_each(halve, []) == []


def test_sizes_are_detected_apart_and_come_back_in_order() -> None:
    stub, seen = StubNetworks(), []

    def detect(images: Tensor) -> list:
        seen.append(tuple(images.shape))
        return stub.detect(images)

    problem = UserError("bad")
    pictures = [
        picture(0),
        picture(1, 80, 60),
        picture(2, image=None),
        picture(3, face=False),
        picture(4, image=None, problem=problem),
        picture(5, 80, 60),
    ]
    findings = FaceDetector(replace(stub.networks, detect=detect)).find(pictures)
    assert [finding.picture.number for finding in findings] == list(range(6))
    assert [len(finding.faces) for finding in findings] == [1, 1, 0, 0, 0, 1]
    assert seen == [(2, 3, 64, 64), (2, 3, 80, 60)]
    assert findings[2].problems == [] and findings[4].problems == [problem]
    assert str(findings[3].problems[0]) == "3.png: no face found"
    for finding in (findings[0], findings[1], findings[5]):
        assert finding.faces[0].image is finding.picture.image
        assert finding.faces[0].box.tolist() == [10, 16, 42, 48]


def test_landmarks_that_make_no_face_are_a_problem_of_that_picture() -> None:
    stub = StubNetworks()

    def landmarks98(images: list[Tensor], boxes: Tensor, enlargement: float) -> Tensor:
        points = stub.landmarks98(images, boxes, enlargement)
        return torch.stack(
            [one * 0 if image.shape[1] == 80 else one for one, image in zip(points, images, strict=True)]
        )

    findings = FaceDetector(replace(stub.networks, landmarks98=landmarks98)).find([picture(0), picture(1, 80)])
    assert len(findings[0].faces) == 1 and findings[0].problems == []
    assert findings[1].faces == [] and "1.png: no landmarks of a face" in str(findings[1].problems[0])


def test_a_damaged_frame_does_not_lose_the_face() -> None:
    stub = StubNetworks()
    tracker = FaceTracker(FaceDetector(stub.networks), lambda _: None)
    problem = UserError("bad")
    findings = tracker.find([picture(0), picture(1, image=None, problem=problem), picture(2)])
    assert findings[1].problems == [problem]
    assert stub.detected == 1 and len(findings[2].faces) == 1


def test_batches_are_bounded_by_count_and_pixels() -> None:
    def sizes(sides: list[int], most: int, most_pixels: int) -> list[int]:
        pictures = (picture(number, side, side, face=False) for number, side in enumerate(sides))
        return [len(batch) for batch in batch_pictures(pictures, most, most_pixels)]

    assert sizes([10] * 7, 3, 10_000) == [3, 3, 1]
    assert sizes([10, 10, 10, 30, 10], 9, 250) == [2, 1, 1, 1]
    assert sizes([], 3, 100) == []
