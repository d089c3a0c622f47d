"""What faces in pictures do, read by networks: expression and pose as numbers to compare with those of true pictures.

The synthetic reader is made for the open head world: our compact motion encoder, and on its features a linear read-out
of yaw and pitch (`pose_readout`). The other one is PD-FGC's motion encoder.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from portrait4d.geometry.face_alignment import motion_crop
from portrait4d.inference.pose_readout import FEATURE_LAYERS, PoseReadout, pose_features
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.models.pretrained.motion_encoder import MotionEncoder
from portrait4d.synthetic_heads.motion_inputs import MOTION_INPUTS


class Reading(NamedTuple):
    """What a reader says of B faces.

    Attributes:
        expression: (B, E) numbers of which `expression_error` is the mean absolute difference.
        pose: (B, P) likewise, of `pose_error`.
        moves: (B,) numbers of single movements by name, of which correlations are told.
    """

    expression: Tensor
    pose: Tensor
    moves: dict[str, Tensor]


class FaceReader(Protocol):
    """Reads faces.

    Attributes:
        definition: what `expression` and `pose` are, in words.
    """

    definition: dict[str, str]

    def encode_motion(self, images: Tensor, landmarks_pixels: Tensor, reverse_y: bool = False) -> Tensor:
        """Return motion vectors (B, 548); see `MotionEncoder.encode_motion`."""
        ...

    def read(self, images: Tensor, landmarks_pixels: Tensor) -> Reading:
        """Read faces in pictures (B, 3, S, S) with landmarks (B, >= 68, 2) in pixels, y **up**."""
        ...


class SyntheticReader:
    """The compact motion encoder and the read-out of yaw and pitch."""

    definition = {
        "expression_error": "mean absolute difference of 25 numbers (24 expressions and the opening of the jaw; 1 is "
        "the complete expression, or 0.2 rad), read by the compact motion encoder from result and truth, aligned by "
        "the truth's landmarks",
        "pose_error": "mean absolute difference of yaw and pitch in degrees, read linearly from the compact motion "
        "encoder's features; roll is not measured",
    }

    def __init__(self, encoder: CompactMotionEncoder, readout: PoseReadout) -> None:
        self.encoder, self.readout = encoder, readout
        self._expression = [k for k, name in enumerate(MOTION_INPUTS) if not name.startswith("gaze")]
        self._mouth = [MOTION_INPUTS.index(name) for name in ("jaw_open", "lips_apart")]
        self._lids = [MOTION_INPUTS.index(name) for name in ("blink_left", "blink_right")]

    def encode_motion(self, images: Tensor, landmarks_pixels: Tensor, reverse_y: bool = False) -> Tensor:
        """Return motion vectors (B, 548)."""
        return self.encoder.encode_motion(images, landmarks_pixels, reverse_y)

    def read(self, images: Tensor, landmarks_pixels: Tensor) -> Reading:
        """Read faces; pose is yaw and pitch in degrees, moves are "mouth" and "blink"."""
        features = pose_features(self.encoder, self.encoder.crop(images, landmarks_pixels, reverse_y=True))
        inputs = self.encoder.read_out[FEATURE_LAYERS:](features) * self.encoder.scale
        moves = {"mouth": inputs[:, self._mouth].mean(dim=1), "blink": inputs[:, self._lids].mean(dim=1)}
        return Reading(inputs[:, self._expression], self.readout(features), moves)


class PdfgcReader:
    """PD-FGC's motion encoder."""

    definition = {
        "expression_error": "mean absolute difference of the 548 numbers (eye, emotion, mouth) of PD-FGC's motion "
        "encoder, result and truth aligned by the truth's landmarks",
        "pose_error": "mean absolute difference of the 6 numbers of PD-FGC's head pose code; no angles",
    }

    def __init__(self, encoder: MotionEncoder) -> None:
        self.encoder = encoder

    def encode_motion(self, images: Tensor, landmarks_pixels: Tensor, reverse_y: bool = False) -> Tensor:
        """Return motion vectors (B, 548)."""
        return self.encoder.encode_motion(images, landmarks_pixels, reverse_y)

    def read(self, images: Tensor, landmarks_pixels: Tensor) -> Reading:
        """Read faces: codes, no single movements."""
        codes = self.encoder(motion_crop(images, landmarks_pixels, reverse_y=True)[0])
        return Reading(codes.vector, codes.head_pose, {})


def join_readings(parts: Sequence[Reading]) -> Reading:
    """Join what a reader says of several batches."""
    moves = {name: torch.cat([part.moves[name] for part in parts]) for name in parts[0].moves}
    return Reading(torch.cat([part.expression for part in parts]), torch.cat([part.pose for part in parts]), moves)
