"""Metrics by name, the count rules, and features of streams of pictures."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.metrics.evaluate import (
    NumberedImages,
    SetStatistics,
    collect_statistics,
    compute_metric,
    join_captures,
    parse_metric,
)
from portrait4d.metrics.feature_statistics import Capture, FeatureStatistics
from portrait4d.models.pretrained.detectors import Detector, DetectorIdentity


class Rules(NamedTuple):
    """What metrics.md section 1 says of a metric."""

    kind: str
    real_limit: int | None
    fakes: int
    mirrors: bool


REGISTERED = {
    "fid50k_full": Rules("fid", None, 50000, False),
    "fid50k": Rules("fid", 50000, 50000, True),
    "fid1k": Rules("fid", 8000, 1000, False),
    "kid50k_full": Rules("kid", 1000000, 50000, False),
    "kid50k": Rules("kid", 50000, 50000, True),
    "pr50k3_full": Rules("pr", 200000, 50000, False),
    "pr50k3": Rules("pr", 50000, 50000, True),
    "is50k": Rules("is", 0, 50000, False),
    "fid2k_full": Rules("fid", None, 2000, False),
    "fid500": Rules("fid", 500, 500, True),
    "pr2k3": Rules("pr", 2000, 2000, True),
}


@dataclass
class Means:
    """A detector: a picture's mean byte, and two classes."""

    def features(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(2, 3))

    def class_probabilities(self, images: Tensor) -> Tensor:
        share = images.float().mean(dim=(1, 2, 3)) / 255
        return torch.stack([share, 1 - share], dim=1)


DETECTOR = Detector(DetectorIdentity("means", None, True, False), Means())


def batches(images: Tensor, size: int, order: list[int] | None = None) -> list[NumberedImages]:
    numbers = torch.tensor(order or range(len(images)))
    return [NumberedImages(images[part], part) for part in numbers.split(size)]


def pictures(count: int, seed: int, largest: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(largest, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", REGISTERED)
def test_count_rules(name: str) -> None:
    metric = parse_metric(name)
    assert Rules(metric.kind, metric.real_limit, metric.fakes, metric.mirrors) == REGISTERED[name]
    assert metric.name == name


@pytest.mark.parametrize(
    "name", ["ppl2_wend", "fid", "fid0k", "fid50k3", "pr50k", "pr50k_full", "is50k_full", "FID50k"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"got '{name}'"):
        parse_metric(name)


def test_statistics_do_not_depend_on_batches_or_order() -> None:
    images = pictures(20, 0)
    seen: list[int] = []
    whole = collect_statistics(batches(images, 20), DETECTOR, Capture(features=15), True)
    order = np.random.default_rng(0).permutation(20).tolist()
    other = collect_statistics(batches(images, 3, order), DETECTOR, Capture(features=15), True, progress=seen.append)
    assert seen == [3] * 6 + [2]
    assert np.array_equal(whole.features.features(), other.features.features())
    assert np.array_equal(whole.classes.features(), other.classes.features())
    np.testing.assert_allclose(whole.features.covariance(), other.features.covariance(), rtol=1e-10)
    expected = images.double().mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(whole.features.mean, expected.mean(0), rtol=1e-6)
    assert len(whole.classes.features()) == 20 and whole.features.features().shape == (15, 3)


def test_fid_of_shifted_pictures_is_the_square_of_the_shift() -> None:
    """All pixels 20 bytes brighter: covariances agree, means differ by 20 in three numbers."""
    images = pictures(50, 0, 200)
    sets = [collect_statistics(batches(part, 8), DETECTOR, Capture()) for part in (images, images + 20)]
    result = compute_metric(parse_metric("fid50"), *sets)
    assert set(result) == {"fid50"}
    assert result["fid50"] == pytest.approx(3 * 20**2, rel=1e-5)


def test_result_names_and_seeds() -> None:
    real, fake = (collect_statistics(batches(pictures(40, s), 9), DETECTOR, Capture(features=40), True) for s in (0, 1))

    def compute(name: str, seed: int = 0) -> dict[str, float]:
        return compute_metric(parse_metric(name), real, fake, torch.Generator().manual_seed(seed))

    assert set(compute("kid40")) == {"kid40"}
    assert compute("kid20", 1) == compute("kid20", 1)
    assert set(compute("is40")) == {"is40_mean", "is40_std"}
    assert 1 <= compute("is40")["is40_mean"] <= 2


def test_precision_and_recall_names_and_the_limit_of_reals() -> None:
    real, fake = FeatureStatistics(Capture(False, 2000)), FeatureStatistics(Capture(False, 1000))
    vectors = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    vectors[1000:] += 100
    real.append(vectors)
    fake.append(vectors[:1000])
    full = compute_metric(parse_metric("pr1k3_full"), SetStatistics(real), SetStatistics(fake))
    assert full == {"pr1k3_full_precision": 1.0, "pr1k3_full_recall": 0.5}
    limited = compute_metric(parse_metric("pr1k3"), SetStatistics(real), SetStatistics(fake))
    assert limited == {"pr1k3_precision": 1.0, "pr1k3_recall": 1.0}


def test_what_a_metric_lacks_is_named() -> None:
    empty = SetStatistics(FeatureStatistics())
    with pytest.raises(ValueError, match="real: expected statistics for fid1k, got None"):
        compute_metric(parse_metric("fid1k"), None, empty)
    with pytest.raises(ValueError, match="fake: expected class probabilities"):
        compute_metric(parse_metric("is50k"), None, empty)
    with pytest.raises(ValueError, match="expected moments of at least one vector, got 0"):
        compute_metric(parse_metric("fid1k"), empty, empty)


def test_captures_join() -> None:
    captures = [parse_metric(name).capture for name in ("fid1k", "kid2k", "pr3k3")]
    assert join_captures(captures) == Capture(True, 3000)
    assert join_captures(captures[1:]) == Capture(False, 3000)
