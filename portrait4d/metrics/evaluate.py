"""Metrics by name: how many pictures each needs, features of streams of pictures, and the numbers in the end.

Source: metrics.md sections 1 and 5. Pictures come as bytes (uint8), as databases store them and as detectors take them.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from portrait4d.metrics.distances import (
    Moments,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from portrait4d.metrics.feature_statistics import Capture, FeatureStatistics
from portrait4d.models.pretrained.detectors import Detector, detect_classes

_NAME = re.compile(r"(fid|kid|is|pr)([1-9]\d*)(k3|k|)(_full)?")
_FULL_LIMITS = {"fid": None, "kid": 1_000_000, "pr": 200_000}
_NEIGHBOURS = 3


class NumberedImages(NamedTuple):
    """A batch: `images` (B, 3, H, W) uint8 RGB, and each one's number in its set, `numbers` (B,) int64."""

    images: Tensor
    numbers: Tensor


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    Attributes:
        name: of results and files.
        kind: Frechet or kernel distance, precision and recall, inception score.
        real_limit: the first so many reals count; None for all.
        fakes: number of fakes.
        mirrors: whether a request for mirrored reals holds.
    """

    name: str
    kind: Literal["fid", "kid", "pr", "is"]
    real_limit: int | None
    fakes: int
    mirrors: bool

    @property
    def capture(self) -> Capture:
        """What must be kept of either set."""
        if self.kind == "fid":
            return Capture(moments=True)
        kept = max(self.fakes, self.real_limit or self.fakes)
        return Capture(moments=False, features=kept)


@dataclass(frozen=True)
class SetStatistics:
    """What is known of a set: `features` of a detector, and its `classes` (probabilities) where a metric needs them."""

    features: FeatureStatistics
    classes: FeatureStatistics | None = None


def parse_metric(name: str) -> Metric:
    """Return the metric of a name: fid50k_full, fid50k, fid1k, kid50k_full, kid50k, pr50k3_full, pr50k3, is50k.

    Other counts follow the same pattern: fid2k_full (all reals, 2000 fakes), fid500 (500 of each), pr10k3. fid1k, the
    exception, takes up to 8000 reals.

    Raises:
        ValueError: another name.
    """
    match = _NAME.fullmatch(name)
    if match is None or (match[1] == "pr") != (match[3] == "k3"):
        raise ValueError(f"metric: expected a name such as fid50k_full, fid2k, kid50k, pr50k3 or is50k, got {name!r}")
    kind, count, unit, full = match.groups()
    fakes = int(count) * (1000 if unit else 1)
    if kind == "is":
        if full:
            raise ValueError(f"metric: expected is50k, which takes no reals, got {name!r}")
        return Metric(name, kind, 0, fakes, mirrors=False)
    limit = _FULL_LIMITS[kind] if full else fakes
    if name == "fid1k":
        limit = 8000
    return Metric(name, kind, limit, fakes, mirrors=not full and name != "fid1k")


def join_captures(captures: Sequence[Capture]) -> Capture:
    """Return the capture that serves all of several."""
    return Capture(any(c.moments for c in captures), max((c.features for c in captures), default=0))


@torch.inference_mode()
def collect_statistics(
    batches: Iterable[NumberedImages],
    detector: Detector,
    capture: Capture,
    with_classes: bool = False,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> SetStatistics:
    """Run pictures through a detector and keep what is asked for.

    Args:
        batches: of the set, in any order, each number once.
        detector: on `device`.
        capture: what to keep of the features.
        with_classes: also keep class probabilities, of every picture.
        device: where the detector is.
        progress: called with the number of pictures of each batch.

    Raises:
        UserError: classes of a detector that has none.
        ValueError: features that are not finite.
    """
    features = FeatureStatistics(capture)
    classes = FeatureStatistics(Capture(moments=False, features=np.iinfo(np.int64).max)) if with_classes else None
    for batch in batches:
        images = batch.images.to(device)
        features.append(detector.network.features(images), batch.numbers)
        if classes is not None:
            classes.append(detect_classes(detector, images), batch.numbers)
        if progress is not None:
            progress(len(images))
    return SetStatistics(features, classes)


def compute_metric(
    metric: Metric,
    real: SetStatistics | None,
    fake: SetStatistics,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Compute a metric from the statistics of both sets.

    Args:
        metric: of `parse_metric`.
        real: of reals; None for the inception score.
        fake: of fakes.
        generator: CPU generator of random subsets (KID).
        device: where distances between vectors are computed.

    Returns:
        {result name: value}; names as in metrics.md section 1.

    Raises:
        ValueError: statistics that lack what the metric needs.
    """
    if metric.kind == "is":
        if fake.classes is None:
            raise ValueError("fake: expected class probabilities, got none")
        score = inception_score(torch.from_numpy(fake.classes.features()))
        return {f"{metric.name}_mean": score.mean, f"{metric.name}_std": score.std}
    if real is None:
        raise ValueError(f"real: expected statistics for {metric.name}, got None")
    if metric.kind == "fid":
        sets = [Moments(part.features.mean, part.features.covariance()) for part in (real, fake)]
        return {metric.name: frechet_distance(*sets)}
    limits = (metric.real_limit, metric.fakes)
    vectors = [
        torch.from_numpy(part.features.features()[:limit]).to(device)
        for part, limit in zip((real, fake), limits, strict=True)
    ]
    if metric.kind == "kid":
        return {metric.name: kernel_distance(*vectors, generator=generator)}
    result = precision_recall(*vectors, neighbours=_NEIGHBOURS)
    return {f"{metric.name}_precision": result.precision, f"{metric.name}_recall": result.recall}
