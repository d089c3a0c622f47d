"""Stand-ins for the preprocessing networks: a face is what is bright in a picture, and its landmarks fill its box.

Run as a script this is preprocess_dir.py with these networks.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from data_preprocess.bfm_coefficients import BfmCoefficients
from data_preprocess.bfm_regressor import Reconstruction, align_face
from data_preprocess.face_boxes import FaceBoxes
from data_preprocess.face_networks import FaceNetworks
from data_preprocess.landmarks_2d import crop_corners, cut_box, enlarge_boxes
from portrait4d.data.portrait_folder import PortraitFolder
from tests.helpers.cli import ROOT

PORTRAITS = PortraitFolder(ROOT / "portrait4d/examples/synthetic/portraits/00000").items()
"""Twelve synthetic portraits of 256 pixels with their landmarks."""

_BRIGHT = -0.5


def bright_box(image: Tensor) -> Tensor | None:
    """Return the box (4,) around what is bright in a picture (3, H, W), None if nothing is."""
    bright = image.amax(0) > _BRIGHT
    if not bright.any():
        return None
    y, x = bright.nonzero().unbind(1)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


def template(count: int) -> Tensor:
    """Return 98 or 68 landmarks of a synthetic portrait, stretched to the unit square."""
    portrait = PORTRAITS[0]
    points = torch.from_numpy(portrait.load_landmarks98() if count == 98 else portrait.load_landmarks68()).double()
    low, high = points.amin(0), points.amax(0)
    return (points - low) / (high - low)


class StubNetworks:
    """Bright faces; counts the calls of `detect`. A flat dark picture has no face."""

    def __init__(self) -> None:
        self.detected = 0
        self.networks = FaceNetworks(self.detect, self.landmarks98, self.landmarks68, self.reconstruct)

    def detect(self, images: Tensor) -> list[FaceBoxes]:
        """Return one face, or none, per picture."""
        self.detected += len(images)
        boxes = [bright_box(image) for image in images]
        found = [torch.zeros(0, 4) if box is None else box[None] for box in boxes]
        return [FaceBoxes(box, torch.ones(len(box)), torch.zeros(len(box), 5, 2)) for box in found]

    def landmarks98(self, images: Sequence[Tensor], boxes: Tensor, enlargement: float) -> Tensor:
        """Stretch the template over what is bright within the enlarged boxes; nothing bright gives one point."""
        corners = crop_corners(enlarge_boxes(boxes, enlargement))
        return torch.stack([self._stretch(image, corner) for image, corner in zip(images, corners, strict=True)])

    def landmarks68(self, images: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Stretch the template over the boxes."""
        return (template(68) * (boxes[:, None, 2:] - boxes[:, None, :2]) + boxes[:, None, :2]).float()

    def reconstruct(self, images: list[Tensor], landmarks98: Tensor) -> Reconstruction:
        """Return the mean brightness of the aligned crop as every coefficient."""
        crops = torch.stack(
            [align_face(image, points).image for image, points in zip(images, landmarks98, strict=True)]
        )
        return Reconstruction(crops, BfmCoefficients.from_vector(crops.mean((1, 2, 3))[:, None].expand(-1, 257)))

    @staticmethod
    def _stretch(image: Tensor, corners: Tensor) -> Tensor:
        box = bright_box(cut_box(image, corners))
        if box is None:
            return corners[:2].double().expand(98, 2)
        return template(98) * (box[2:] - box[:2]) + box[:2] + corners[:2]


class MortalNetworks(StubNetworks):
    """Bright faces; the first process that looks for one leaves a marker and dies. Where a marker is, none dies."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = marker

    def detect(self, images: Tensor) -> list[FaceBoxes]:
        """Die, or return one face, or none, per picture."""
        if not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().detect(images)


def load_mortal(_device: torch.device, marker: Path, accept_unverified: bool = False) -> FaceNetworks:
    """Stand for `face_networks.load_face_networks`, with networks that die once."""
    assert not accept_unverified
    return MortalNetworks(marker).networks


def main() -> None:
    """Run preprocess_dir.py with networks that take bright things for faces."""
    from data_preprocess import pipeline, preprocess_dir

    pipeline.load_face_networks = lambda *_: StubNetworks().networks
    preprocess_dir.main()


if __name__ == "__main__":
    main()
