"""Running mean and covariance against numpy's, merging of parts, kept vectors, and files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.files.errors import InputFileError
from portrait4d.metrics.feature_statistics import Capture, FeatureStatistics, merge_statistics

RNG = np.random.default_rng(0)
VECTORS = (RNG.normal(size=(101, 7)) @ RNG.normal(size=(7, 7)) + RNG.normal(size=7)).astype(np.float32)


def collect(capture: Capture | None = None, rank: int = 0, ranks: int = 1, batch: int = 10) -> FeatureStatistics:
    statistics = FeatureStatistics(capture)
    numbers = np.arange(rank, len(VECTORS), ranks)
    for start in range(0, len(numbers), batch):
        chosen = numbers[start : start + batch]
        statistics.append(torch.from_numpy(VECTORS[chosen]), torch.from_numpy(chosen))
    return statistics


def test_mean_and_covariance_are_those_of_numpy() -> None:
    statistics = collect()
    assert statistics.count == 101 and statistics.dim == 7
    np.testing.assert_allclose(statistics.mean, VECTORS.astype(np.float64).mean(0), rtol=1e-12)
    expected = np.cov(VECTORS.astype(np.float64), rowvar=False, bias=True)
    np.testing.assert_allclose(statistics.covariance(), expected, rtol=1e-12, atol=1e-12)
    assert np.array_equal(statistics.covariance(), statistics.covariance().T)


def test_a_large_offset_costs_no_digits() -> None:
    """Plain sums of squares would lose twelve of the sixteen digits here."""
    values = np.arange(1000, dtype=np.float64)[:, None] % 2
    statistics = FeatureStatistics()
    for part in np.split(values + 1e6, 10):
        statistics.append(part)
    assert statistics.covariance()[0, 0] == pytest.approx(0.25, rel=1e-9)


@pytest.mark.parametrize("ranks", [2, 3, 150])
def test_parts_merge_into_the_whole(ranks: int) -> None:
    capture = Capture(moments=True, features=60)
    merged = merge_statistics([collect(capture, rank, ranks) for rank in range(ranks)])
    whole = collect(capture)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.covariance(), whole.covariance(), rtol=1e-11, atol=1e-12)
    assert np.array_equal(merged.features(), VECTORS[:60])  # in the order of the items, whoever measured them


def test_kept_vectors_stop_at_the_limit() -> None:
    assert np.array_equal(collect(Capture(features=25)).features(), VECTORS[:25])
    assert np.array_equal(collect(Capture(features=500)).features(), VECTORS)
    assert collect().features().shape == (0, 7)


def test_items_are_counted_where_they_have_no_numbers() -> None:
    statistics = FeatureStatistics(Capture(features=4))
    statistics.append(VECTORS[:3])
    statistics.append(VECTORS[3:6])
    assert np.array_equal(statistics.features(), VECTORS[:4])


@pytest.mark.parametrize("capture", [Capture(), Capture(True, 30), Capture(False, 200)])
def test_a_file_brings_everything_back(capture: Capture, tmp_path: Path) -> None:
    statistics, path = collect(capture, 1, 2), tmp_path / "s.npz"
    statistics.save(path, {"of": "toys"})
    loaded = FeatureStatistics.load(path, {"of": "toys"})
    assert (loaded.count, loaded.dim, loaded.capture) == (statistics.count, statistics.dim, capture)
    assert np.array_equal(loaded.mean, statistics.mean)
    assert np.array_equal(loaded.features(), statistics.features())
    loaded.merge(collect(capture, 0, 2))  # and goes on like the original
    statistics.merge(collect(capture, 0, 2))
    assert np.array_equal(loaded.features(), statistics.features())
    if capture.moments:
        assert np.array_equal(loaded.covariance(), statistics.covariance())
    assert [file.name for file in tmp_path.iterdir()] == ["s.npz"]


def test_an_empty_part_travels_too(tmp_path: Path) -> None:
    FeatureStatistics(Capture(features=3)).save(tmp_path / "s.npz")
    loaded = FeatureStatistics.load(tmp_path / "s.npz")
    assert loaded.count == 0 and loaded.dim is None
    loaded.append(VECTORS)
    assert np.array_equal(loaded.features(), VECTORS[:3])


def test_files_hold_no_pickle(tmp_path: Path) -> None:
    collect(Capture(features=9)).save(tmp_path / "s.npz", {"of": "toys"})
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    with pytest.raises(InputFileError, match="s.npz: not readable feature statistics"):
        FeatureStatistics.load(path)
    collect().save(path, {"of": "toys"})
    with pytest.raises(InputFileError, match="statistics of something else"):
        FeatureStatistics.load(path, {"of": "cars"})
    whole = path.read_bytes()
    for content in (b"hello", whole[: len(whole) // 2], whole[:-9]):
        path.write_bytes(content)
        with pytest.raises(InputFileError, match="not readable feature statistics"):
            FeatureStatistics.load(path)
    np.savez(path, header=np.array([object()]), mean=np.zeros(3))
    with pytest.raises(InputFileError, match="not readable feature statistics"):
        FeatureStatistics.load(path)


def test_bad_vectors_are_refused() -> None:
    statistics = collect()
    with pytest.raises(ValueError, match=r"features: expected shape \(B, 7\), got \(3, 8\)"):
        statistics.append(np.zeros((3, 8)))
    with pytest.raises(ValueError, match="features: expected finite numbers"):
        statistics.append(np.full((1, 7), np.nan))
    with pytest.raises(ValueError, match=r"numbers: expected shape \(2,\), got \(3,\)"):
        statistics.append(np.zeros((2, 7)), np.arange(3))
    with pytest.raises(ValueError, match="other: expected Capture"):
        statistics.merge(FeatureStatistics(Capture(features=1)))
    with pytest.raises(ValueError, match="expected moments of at least one vector"):
        FeatureStatistics().covariance()
    with pytest.raises(ValueError, match="parts: expected at least one"):
        merge_statistics([])
