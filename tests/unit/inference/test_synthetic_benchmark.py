"""The benchmark on the open head world: its definition, its true pictures, its cache."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.head_params import split_label
from portrait4d.inference.recon_metrics_job import find_runs
from portrait4d.inference.synthetic_benchmark import (
    PROTOCOLS,
    FrameKey,
    SyntheticBenchmark,
    keys_of,
    load_protocol,
    person_of,
)
from portrait4d.synthetic_heads.portrait_sets import SEED_STEP
from tests.helpers.benchmarks import small_protocol

TRAINING_SEEDS = (101, 202, 303, 304, 13, 16, 990000)
V1 = load_protocol("synthetic-v1")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> SyntheticBenchmark:
    """The first of three persons at 32 pixels; the next one drives."""
    found = SyntheticBenchmark(small_protocol(3), 32, tmp_path_factory.mktemp("cache"), 1)
    assert found.prepare() == 2
    return found


def test_the_definition_is_what_was_agreed() -> None:
    assert (V1.name, V1.identities, V1.seed) == ("synthetic-v1", 50, 880055)
    assert V1.frames == (37, 38, 39, 75, 76, 77)
    assert sorted(V1.yaws_deg) == [-30, -15, 0, 15, 30]


def test_no_person_or_motion_is_one_of_a_training() -> None:
    assert V1.seed not in TRAINING_SEEDS
    held_out = {person_of(V1, number).seed for number in range(V1.identities)}
    assert len(held_out) == V1.identities
    assert all(
        not seed * SEED_STEP <= person < (seed + 1) * SEED_STEP for seed in TRAINING_SEEDS for person in held_out
    )


def test_pictures_of_a_person() -> None:
    keys = keys_of(V1, 49)
    assert keys[0] == FrameKey(49, 0) and FrameKey(0, 76) in keys and FrameKey(50, 38) in keys
    assert len(keys) == len(set(keys)) == 1 + 6 + 6 + 4 + 1
    assert str(FrameKey(3, 38, -15.0)) == "clip003-0038-15deg"


def test_cases_of_a_subject(benchmark: SyntheticBenchmark) -> None:
    (subject,) = benchmark.subjects()
    assert benchmark.name == "small (1 of 3 identities)" and len(benchmark) == 1
    tasks = [case.task for case in subject.cases]
    assert {task: tasks.count(task) for task in tasks} == {
        "self": 3, "cross": 3, "novel-0deg": 1, "novel-30deg": 1, "common": 1,
    }  # fmt: skip
    assert find_runs(subject.cases) == [[0, 1, 2], [3, 4, 5]]
    for case in subject.cases:
        assert case.truth.image.shape == (3, 32, 32) and case.truth.mask.shape == (1, 32, 32)
        assert torch.equal(case.truth.motion, case.driver.motion)
        ours, theirs = (split_label(frame.label[None])[1] for frame in (case.truth, case.driver))
        assert torch.equal(ours.pose, theirs.pose) and torch.equal(ours.expression, theirs.expression)
        assert torch.equal(ours.shape, split_label(subject.source.label[None])[1].shape)
        assert torch.equal(ours.shape, theirs.shape) == (case.task not in ("cross", "common"))
    front, side = (case for case in subject.cases if case.task.startswith("novel"))
    assert (front.yaw_deg, side.yaw_deg) == (0, 30) and front.driver is side.driver is front.truth
    assert (side.truth.image - front.truth.image).abs().mean() > 0.05


def test_pictures_are_rendered_once(benchmark: SyntheticBenchmark) -> None:
    assert benchmark.prepare() == 0
    assert SyntheticBenchmark(benchmark.protocol, 64, benchmark.folder.parent, 1).folder != benchmark.folder


def test_a_damaged_file_is_named(benchmark: SyntheticBenchmark, tmp_path: Path) -> None:
    copy = SyntheticBenchmark(V1, 32, tmp_path, 1)
    copy.folder.mkdir(parents=True)
    (copy.folder / "person000.npz").write_bytes(b"no archive")
    with pytest.raises(InputFileError, match=r"person000\.npz: not readable"):
        next(copy.subjects())
    np.savez(copy.folder / "person000.npz", **dict.fromkeys(("images", "masks", "labels", "motions", "landmarks"), [0]))
    with pytest.raises(InputFileError, match=r"person000\.npz: expected 18 pictures"):
        next(copy.subjects())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "draws other persons or motions than were written down"),
        ({"head_version": 999}, "draws other persons or motions"),
        ({"view_frame": 5}, r"view_frame: expected one of \(38, 76\)"),
        ({"common_clip": 3}, "common_clip: expected nobody's own clip"),
        ({"identities": 1}, "identities: expected at least 2"),
        ({"shape_sums": []}, "shape_sums: expected one a person"),
        ({"colour": 1}, "colour"),
    ],
)
def test_definitions_that_do_not_hold(tmp_path: Path, changes: dict, message: str) -> None:
    values = json.loads((PROTOCOLS / "synthetic-v1.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(values | changes))
    with pytest.raises(UserError, match=message):
        load_protocol(tmp_path / "other.json")


def test_an_unknown_protocol() -> None:
    with pytest.raises(InputFileError, match="no such protocol; expected synthetic-v1, folder, gaga-vfhq or a file"):
        load_protocol("synthetic-v0")


def test_the_last_person_is_driven_by_the_first(tmp_path: Path) -> None:
    whole = SyntheticBenchmark(V1, 32, tmp_path)
    assert len(whole) == 50 and whole.name == "synthetic-v1"
    assert FrameKey(0, 38) in keys_of(V1, 49)
