"""Repetition tables, published and derived."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from portrait4d.data.rebalancing import head_yaw_rad, load_repetitions, repetitions_from_yaw
from portrait4d.files.errors import InputFileError
from tests.helpers.raw_folders import painted_label

PUBLISHED = Path(__file__).parents[4] / "shared" / "real" / "ffhq_rebalance.json"
SHA256 = "f40f4b5df36d350dec3f2a37a254c256df07a46ee339ee62d6515fa0f62662e2"


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published table (../shared/real) is not on this machine")
def test_the_published_table() -> None:
    assert hashlib.sha256(PUBLISHED.read_bytes()).hexdigest() == SHA256
    table = load_repetitions(PUBLISHED)
    assert sorted(table) == list(range(70000)) and sum(table.values()) == 108207
    assert Counter(table.values()) == {1: 47599, 2: 16896, 4: 4556, 8: 824, 16: 125}


def test_yaw_is_read_off_the_label() -> None:
    labels = np.stack([painted_label(yaw)[0].numpy() for yaw in (-0.5, 0.0, 0.7)])
    np.testing.assert_allclose(head_yaw_rad(labels), [-0.5, 0.0, 0.7], atol=1e-6)


def test_rare_yaws_are_repeated_by_the_root_of_their_rarity() -> None:
    yaw_deg = np.concatenate([np.full(1600, 5.0), np.full(100, -25.0), np.full(399, 35.0), np.full(1, 85.0)])
    repetitions = repetitions_from_yaw(np.radians(yaw_deg))
    assert [repetitions[k] for k in (0, 1600, 1700, 2099)] == [1, 4, 2, 16]
    assert len(repetitions_from_yaw(np.zeros(0))) == 0


def test_other_files_are_refused(tmp_path: Path) -> None:
    for text in ("[1]", '{"a": 1}', '{"0": 1.5}', "{", '{"0": -1}'):
        (tmp_path / "table.json").write_text(text)
        with pytest.raises(InputFileError, match=r"table\.json: (not a readable table|expected whole numbers)"):
            load_repetitions(tmp_path / "table.json")
    with pytest.raises(InputFileError, match="No such file"):
        load_repetitions(tmp_path / "none.json")
