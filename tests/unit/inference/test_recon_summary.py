"""Means, baselines and tables of an evaluation."""

import numpy as np
import pytest

from portrait4d.inference.recon_benchmarks import spaced_numbers
from portrait4d.inference.recon_summary import Row, format_summary, summarise_speed, summarise_tasks


def rows() -> list[Row]:
    """Two subjects, three frames each: what the result reads follows the truth, the copy's reading does not move."""
    found = []
    for subject, level in (("a", 20.0), ("b", 24.0)):
        for place, mouth in enumerate((0.1, 0.5, 0.9)):
            values = {
                "result": {"psnr": level + place, "mouth": 2 * mouth + 1},
                "copy": {"psnr": 10.0, "mouth": 0.3},
                "mean": {"psnr": 12.0},
            }
            seconds = {"render": 0.5, "motion": 0.1, "source": 0.4}
            found.append(Row("self", subject, "d", place, 0.0, values, {"mouth": mouth}, seconds))
    found[1].values["result"]["jitter_pixels"] = 3.0
    return found


def test_means_intervals_and_baselines() -> None:
    distances = {("self", "fid_pixels16", "result"): 7.5, ("cross", "fid_pixels16", "result"): 1.0}
    tasks = summarise_tasks(rows(), distances, seed=0)
    assert list(tasks) == ["self"] and (tasks["self"]["frames"], tasks["self"]["subjects"]) == (6, 2)
    found = tasks["self"]["metrics"]
    psnr = found["psnr"]["result"]
    assert psnr == {"value": 23.0, "low": 21.0, "high": 25.0, "frames": 6}  # two persons: all of one, or of the other
    assert (found["psnr"]["copy"]["value"], found["psnr"]["mean"]["value"]) == (10, 12)
    assert found["jitter_pixels"]["result"]["frames"] == 1
    assert found["fid_pixels16"] == {"result": {"value": 7.5}}
    assert found["mouth_correlation"]["result"]["value"] == pytest.approx(1)
    assert found["mouth_correlation"]["copy"]["value"] is None  # it does not move
    assert "blink_correlation" not in found and "lpips" not in found


def test_one_subject_has_no_interval() -> None:
    found = summarise_tasks(rows()[:3], {}, seed=0)["self"]["metrics"]["psnr"]["result"]
    assert found == {"value": 21.0, "low": None, "high": None, "frames": 3}


def test_no_correlation_under_one_motion() -> None:
    same = rows()
    for row in same:
        row.truth.clear()
    assert "mouth_correlation" not in summarise_tasks(same, {}, seed=0)["self"]["metrics"]


def test_speed_leaves_the_first_frame_out() -> None:
    some = rows()
    some[0].seconds["render"] = 1000.0
    assert summarise_speed(some) == {"fps": pytest.approx(2), "fps_with_preprocessing": pytest.approx(1)}


def test_the_table() -> None:
    summary = {
        "protocol": "synthetic-v1 (2 of 50 identities)",
        "network": "n.safetensors",
        "tasks": summarise_tasks(rows(), {}, seed=0),
        "speed": summarise_speed(rows()),
        "missing": {"lpips": "needs VGG16"},
        "failure_count": 1,
        "failures": {"x.png": "damaged"},
    }
    text = format_summary(summary)
    line = next(line for line in text.splitlines() if "psnr (dB)" in line)
    assert line.split()[2:] == ["23", "[21,", "25]", "10", "12"]
    assert "self (6 frames, 2 subjects)" in text and "2 frames per second, 1 with preprocessing" in text
    assert "not measured:\n  lpips: needs VGG16" in text and "1 failures:\n  x.png: damaged" in text


def test_drivers_come_after_the_source_and_are_evenly_spaced() -> None:
    assert spaced_numbers(4, None) == spaced_numbers(4, 3) == [1, 2, 3]
    assert spaced_numbers(1, None) == []
    numbers = spaced_numbers(201, 50)
    assert len(numbers) == len(set(numbers)) == 50 and (numbers[0], numbers[-1]) == (1, 200)
    assert set(np.diff(numbers)) <= {4, 5}
