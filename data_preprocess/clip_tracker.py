"""Faces of clips found and described by the published networks, in memory: what `portrait4d/animate.py` needs.

The steps are those of `pipeline.py`, `bfm2flame_simplified.py` and `extract_pdfgc.py`. The scale of the crops is that
of the first pictures with a face for the whole clip, and the crops' places are smoothed, so that faces lie still.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_preprocess.bfm_to_flame.parameter_mapper import MappedHead, load_parameter_mapper, simplified_labels
from data_preprocess.face_networks import FaceNetworks, load_face_networks
from data_preprocess.find_faces import FaceDetector, FaceTracker, FoundFace, call_each
from data_preprocess.media import Clip
from data_preprocess.pictures import Picture
from data_preprocess.portrait_crop import CropTransform, crop_portrait
from portrait4d import __version__
from portrait4d.data.image_io import from_uint8
from portrait4d.inference.tracking import CropPlace, TrackedFrame
from portrait4d.models.pretrained.motion_encoder import load_motion_encoder
from portrait4d.ops.backend import pick_device

MapParameters = Callable[[Tensor, Tensor], MappedHead]
EncodeMotion = Callable[[Tensor, Tensor], Tensor]


class ClipTracker:
    """Follow the largest face of a clip; see `portrait4d.inference.tracking.Tracker`.

    Args:
        networks: find and describe faces.
        map_parameters: identity (B, 80) and expression (B, 64) of the Basel Face Model to FLAME's.
        encode_motion: pictures (B, 3, S, S) and landmarks (B, 68, 2) in them to motion vectors (B, 548).
    """

    def __init__(self, networks: FaceNetworks, map_parameters: MapParameters, encode_motion: EncodeMotion) -> None:
        self.networks, self.map_parameters, self.encode_motion = networks, map_parameters, encode_motion
        self._finder = FaceTracker(FaceDetector(networks), recall=lambda picture: None, smooth=True)
        self._clip = Clip(Path("clip"), Path(), None, None)
        self._seen = 0
        self._scale: float | None = None

    @torch.no_grad()
    def track(self, pictures: Sequence[np.ndarray]) -> list[TrackedFrame | None]:
        """Track the next pictures of the clip, uint8 (H, W, 3) RGB, in order; None where there is no face."""
        images = [from_uint8(torch.from_numpy(rows).permute(2, 0, 1)) for rows in pictures]
        numbers = range(self._seen, self._seen + len(images))
        self._seen += len(images)
        findings = self._finder.find(
            [Picture(self._clip, f"frame {k}", "", k, image) for k, image in zip(numbers, images, strict=True)]
        )
        faces = [finding.faces[0] if finding.faces else None for finding in findings]
        described = iter(call_each(self._describe, self._at_one_scale([face for face in faces if face is not None])))
        found = [None if face is None else next(described) for face in faces]
        return [None if isinstance(one, ValueError) else one for one in found]

    def _at_one_scale(self, faces: list[FoundFace]) -> list[FoundFace]:
        if faces and self._scale is None:
            self._scale = float(np.median([face.placement.scale for face in faces]))
        return [replace(face, placement=face.placement._replace(scale=self._scale)) for face in faces]

    def _describe(self, faces: list[FoundFace]) -> list[TrackedFrame]:
        images = [face.image for face in faces]
        landmarks68 = self.networks.landmarks68(images, torch.stack([face.box for face in faces]))
        coefficients = self.networks.reconstruct(images, torch.stack([face.landmarks98 for face in faces])).coefficients
        mapped = self.map_parameters(coefficients.identity.cpu(), coefficients.expression.cpu())
        labels = simplified_labels(mapped, coefficients.angle_rad.cpu().numpy()).numpy()
        crops = [
            crop_portrait(face.image, face.landmarks98, points.double(), placement=face.placement)
            for face, points in zip(faces, landmarks68, strict=True)
        ]
        crop_points = torch.stack([crop.landmarks68 for crop in crops]).float()
        motions = self.encode_motion(torch.stack([crop.image for crop in crops]), crop_points).cpu().numpy()
        return [
            TrackedFrame(crop.image, label, points, motion, _place(crop.transform))
            for crop, label, points, motion in zip(crops, labels, crop_points.numpy(), motions, strict=True)
        ]


class PublishedTrackers:
    """Makes trackers with the published weights; see `portrait4d.inference.tracking.TrackerMaker`.

    Args:
        device: "auto", "cpu" or "cuda".
    """

    name = f"published face networks, portrait4d {__version__}"
    hint = "use pictures in which it is larger, upright and not covered"

    def __init__(self, device: str = "auto") -> None:
        self._device = device

    def __call__(self) -> ClipTracker:
        """Return a tracker for a new clip.

        Raises:
            AssetMissingError: names the weights that are missing, and the command that fetches them.
            InputFileError: a file is damaged or is not what its name says.
        """
        return ClipTracker(*self._networks)

    @cached_property
    def _networks(self) -> tuple[FaceNetworks, MapParameters, EncodeMotion]:
        device = pick_device(self._device)
        encoder = load_motion_encoder().to(device)

        def encode_motion(images: Tensor, landmarks_pixels: Tensor) -> Tensor:
            return encoder.encode_motion(images.to(device), landmarks_pixels.to(device))

        return load_face_networks(device), load_parameter_mapper(), encode_motion


def _place(transform: CropTransform) -> CropPlace:
    return CropPlace(transform.image_size, transform.crop_to_image.numpy())
