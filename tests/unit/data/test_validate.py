"""The validator finds what is wrong and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.image_io import encode_image
from portrait4d.data.label_checks import label_problems
from portrait4d.data.validate import head_inside_mask, main, validate_records
from portrait4d.geometry.flame import HeadModel
from tests.helpers.raw_folders import painted_label
from tests.unit.data.test_portrait_dataset import spoil

OPEN_HEAD = "portrait4d.synthetic_heads.ellipsoid_head:build_ellipsoid_head"


def test_good_databases_pass(still_database: Path, clip_database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(still_database), "--head-model", OPEN_HEAD]) == 0
    table = capsys.readouterr().out
    assert "records           16" in table and "32 (16)" in table and "head inside mask" in table
    assert main(["--data", str(clip_database), "--head-model", OPEN_HEAD]) == 0
    assert "pictures          15" in capsys.readouterr().out


def test_what_is_wrong_is_listed(still_database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = painted_label(0.2)[0].numpy()
    label[100] = np.inf
    database = spoil(
        still_database, tmp_path / "a", 3, labels=label.tobytes(), seg=encode_image(-torch.ones(3, 32, 32))
    )
    database = spoil(database, tmp_path / "b", 5, image=encode_image(torch.zeros(3, 16, 16)))
    assert main(["--data", str(database)]) == 1
    table = capsys.readouterr().out
    assert "bad records       3" in table
    assert "3  label: 1 numbers are NaN or infinite" in table and "3  mask: empty" in table
    assert "5  image: 16 x 16 pixels, mask 32 x 32" in table and "0  pictures of 2 sizes" in table


def test_a_mask_beside_the_head_is_found(ellipsoid: HeadModel, still_database: Path, tmp_path: Path) -> None:
    label = painted_label(0.0)[0].numpy()
    left = np.zeros((32, 32), np.uint8)
    left[:, :16] = 255
    assert head_inside_mask(ellipsoid, label, left) == pytest.approx(0.5, abs=0.03)
    assert head_inside_mask(ellipsoid, label, np.full((64, 64), 255, np.uint8)) == 1.0
    half = torch.from_numpy(left / 127.5 - 1).float().expand(3, -1, -1)
    from portrait4d.data.record_stores import open_records
    from portrait4d.data.records import STILL

    store = open_records(spoil(still_database, tmp_path / "db", 0, seg=encode_image(half)), STILL)
    result = validate_records(store, ellipsoid)
    assert [record for record, _ in result.problems] == [0]
    assert "of the projected head lies inside" in result.problems[0][1]


@pytest.mark.parametrize(
    ("places", "value", "problem"),
    [
        (slice(0, 1), 2.0, "its rotation is none"),
        (slice(12, 13), 1.0, "last row"),
        (slice(3, 12, 4), 100.0, "units from the neck"),
        (slice(16, 17), 2400.0, "focal lengths"),
        (slice(18, 19), 256.0, "principal point"),
        (slice(428, 429), 4.0, "turned by 4 rad"),
    ],
)
def test_labels_that_cannot_be_true(places: slice, value: float, problem: str) -> None:
    label = painted_label(0.3)[0].numpy()
    assert label_problems(label) == []
    label[places] = value
    assert any(problem in text for text in label_problems(label))


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"Error: {tmp_path}: no LMDB database")


def test_unknown_head_models_are_refused(still_database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(still_database), "--head-model", "no.such.module:head"]) == 1
    assert "neither FLAME's folder nor MODULE:FUNCTION" in capsys.readouterr().err
