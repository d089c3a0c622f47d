"""Judges of reenacted pictures: everything that compares a picture with the true one, and lists of what is missing.

Networks of other authors judge only where their weights are; what cannot be measured is named in `Judges.missing`, with
the command that fetches what it needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.config.recon_metrics import FaceEncoder, ReconMetricsConfig
from portrait4d.geometry.face_alignment import identity_crop
from portrait4d.inference.face_readers import FaceReader, PdfgcReader, Reading, SyntheticReader, join_readings
from portrait4d.inference.pose_readout import load_pose_readout
from portrait4d.metrics.frame_errors import LEVELS, jitter, mean_absolute_error
from portrait4d.metrics.image_quality import psnr, ssim
from portrait4d.models.checkpoints import load_compact_motion_encoder
from portrait4d.models.pretrained.detectors import INCEPTION, PIXELS16, Detector, load_detector
from portrait4d.models.pretrained.face_identity import FaceIdentity, load_face_identity
from portrait4d.models.pretrained.motion_encoder import load_motion_encoder
from portrait4d.models.pretrained.perceptual import PerceptualDistance, load_perceptual
from portrait4d.models.pretrained.registry import EXTERNAL_WEIGHTS, asset_places, fetch_command

LandmarkEstimator = Callable[[Tensor], Tensor]
"""Pictures (B, 3, S, S) in [-1, 1] to landmarks (B, K, 2) in pixels."""

AT_ONCE = 8

DEFINITIONS = {
    "psnr": "dB, peak 2 of pictures in [-1, 1], mean over frames of each frame's",
    "psnr_head": "the same of the pixels in the true mask of the head",
    "ssim": "Gaussian window of 11 pixels",
    "lpips": "VGG16, version 0.1, at the network's picture size",
    "identity": "cosine of ArcFace (iresnet18) embeddings of the picture and of the source",
    "mask_iou": "overlap of the rendered mask with the true one, each cut at 1/2",
    "jitter_pixels": "mean absolute difference of accelerations (x[t-1] - 2 x[t] + x[t+1] over consecutive frames) of "
    "picture and truth, in levels of 255",
    "jitter_expression": "the same of the numbers of expression_error",
    "jitter_landmarks": "the same of estimated landmarks, in pixels",
    "mouth_correlation": "Pearson's correlation of picture and truth over frames: mean of the readings of the jaw's "
    "opening and of parted lips",
    "blink_correlation": "likewise, mean of the readings of both lids",
    "rank1": "share of persons whose result is nearest to their own true picture among all persons' under the same "
    "motion: mean absolute difference in each true picture's mask",
    "fid_pixels16": "Frechet distance of 16 x 16 pixel means; not comparable with published values",
    "fid": "Frechet distance of a detector's features; with few pictures far above its value for many",
}


@dataclass(frozen=True)
class Truths:
    """N true pictures of one subject and what its results are compared with besides.

    Attributes:
        images: (N, 3, S, S).
        masks: (N, 1, S, S) in [0, 1], or None.
        landmarks: (N, 70, 2) pixels, y up, of the truths.
        source: (1, 3, S, S) and `source_landmarks` (1, 70, 2).
        runs: lists of three or more numbers of consecutive frames.
    """

    images: Tensor
    masks: Tensor | None
    landmarks: Tensor
    source: Tensor
    source_landmarks: Tensor
    runs: Sequence[list[int]]


@dataclass(frozen=True)
class Impressions:
    """What networks say of N pictures: face `reading`, identity `embedding` (N, 512), `points` (N, K, 2); or None."""

    reading: Reading | None
    embedding: Tensor | None
    points: Tensor | None


class Judges:
    """All judges that can work here.

    Args:
        config: detector and encoder.
        encoder: which face reader.
        device: where they work.
        landmarks_of: landmark estimator, of which this package has none.

    Attributes:
        missing: metric -> what it lacks.
        reader: of expression and pose; None if its weights are missing.
        detectors: of FID, by the metric's name.

    Raises:
        InputFileError: a damaged file of weights, or an unusable detector.
    """

    def __init__(
        self,
        config: ReconMetricsConfig,
        encoder: FaceEncoder,
        device: torch.device,
        landmarks_of: LandmarkEstimator | None = None,
    ) -> None:
        self.missing: dict[str, str] = {}
        self.landmarks_of = landmarks_of
        if landmarks_of is None:
            self.missing["jitter_landmarks"] = "no landmark estimator: `run_recon_metrics` takes one as `landmarks_of`"
        self.perceptual: PerceptualDistance | None = None
        if self._there(("lpips",), "vgg16", "lpips_vgg"):
            self.perceptual = load_perceptual().to(device)
        self.identity: FaceIdentity | None = None
        if self._there(("identity",), "face_identity"):
            self.identity = load_face_identity().to(device)
        self.reader = self._load_reader(encoder, device)
        self.detectors: dict[str, Detector] = {"fid_pixels16": load_detector(PIXELS16)}
        if config.detector == PIXELS16:
            self.missing["fid"] = f"not asked for, by --detector {PIXELS16}"
        elif config.detector != INCEPTION or self._there(("fid",), "inception"):
            self.detectors["fid"] = load_detector(config.detector, device, config.accept_unverified)

    def _there(self, metrics: tuple[str, ...], *keys: str) -> bool:
        places = {key: asset_places(EXTERNAL_WEIGHTS[key].path) for key in keys}
        absent = [key for key in keys if not any(place.is_file() for place in places[key])]
        if absent:
            titles = " and ".join(EXTERNAL_WEIGHTS[key].title for key in absent)
            self.missing |= dict.fromkeys(metrics, f"needs {titles}: {fetch_command(*absent)}")
        return not absent

    def _load_reader(self, encoder: FaceEncoder, device: torch.device) -> FaceReader | None:
        names = ("expression_error", "pose_error", "jitter_expression")
        if encoder == "pdfgc":
            self.missing |= dict.fromkeys(("mouth_correlation", "blink_correlation"), "needs --encoder synthetic")
            there = self._there(names, "motion_encoder")
            return PdfgcReader(load_motion_encoder().to(device).eval()) if there else None
        readout = load_pose_readout().to(device)
        return SyntheticReader(load_compact_motion_encoder().to(device).eval(), readout)

    @property
    def definitions(self) -> dict[str, str]:
        """What every metric is."""
        return DEFINITIONS | (self.reader.definition if self.reader else {})

    def look(self, pictures: Tensor, landmarks: Tensor) -> Impressions:
        """Let networks look at pictures (N, 3, S, S) with faces where `landmarks` (N, 70, 2), y up, are."""
        reading = embedding = None
        if self.reader is not None:
            parts = [
                self.reader.read(*part) for part in zip(pictures.split(AT_ONCE), landmarks.split(AT_ONCE), strict=True)
            ]
            reading = join_readings(parts)
        if self.identity is not None:
            embedding = _in_parts(self._embed, pictures, landmarks)
        points = None if self.landmarks_of is None else _in_parts(self.landmarks_of, pictures)
        return Impressions(reading, embedding, points)

    def _embed(self, pictures: Tensor, landmarks: Tensor) -> Tensor:
        return self.identity(identity_crop(pictures, landmarks, reverse_y=True)[0])

    def compare(self, pictures: Tensor, truths: Truths, seen: Impressions) -> dict[str, Tensor]:
        """Measure pictures (N, 3, S, S) in [-1, 1] against the true ones.

        Args:
            pictures: results, or what a baseline answers.
            truths: of the same number.
            seen: what `look` says of the true pictures.

        Returns:
            {metric or movement: (N,)}; jitter is NaN but for inner frames of runs.
        """
        pairs = pictures, truths.images
        found = {"psnr": _in_parts(psnr, *pairs), "ssim": _in_parts(ssim, *pairs)}
        if truths.masks is not None:
            found["psnr_head"] = _in_parts(psnr, *pairs, truths.masks)
        if self.perceptual is not None:
            found["lpips"] = _in_parts(self.perceptual, *pairs)
        ours = self.look(pictures, truths.landmarks)
        if self.identity is not None:
            source = self._embed(truths.source, truths.source_landmarks)
            found["identity"] = functional.cosine_similarity(ours.embedding, source)
        if self.reader is not None:
            found["expression_error"] = mean_absolute_error(ours.reading.expression, seen.reading.expression)
            found["pose_error"] = mean_absolute_error(ours.reading.pose, seen.reading.pose)
            found["jitter_expression"] = _jitter(ours.reading.expression, seen.reading.expression, truths.runs)
            found |= ours.reading.moves
        if self.landmarks_of is not None:
            found["jitter_landmarks"] = _jitter(ours.points, seen.points, truths.runs)
        return found | {"jitter_pixels": LEVELS * _jitter(pictures, truths.images, truths.runs)}


def _in_parts(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """Apply a function to a few of N items at a time."""
    return torch.cat([function(*part) for part in zip(*(batch.split(AT_ONCE) for batch in batches), strict=True)])


def _jitter(frames: Tensor, truths: Tensor, runs: Sequence[list[int]]) -> Tensor:
    found = frames.new_full((len(frames),), float("nan"))
    for run in runs:
        found[run[1:-1]] = jitter(frames[run], truths[run])
    return found
