"""Files of a prepared portrait: written whole or not at all, read back exactly."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from data_preprocess import prepared_files
from data_preprocess.portrait_crop import crop_portrait
from data_preprocess.prepared_files import (
    FOLDERS,
    Origin,
    PreparedFace,
    is_prepared,
    load_origin,
    numbered_name,
    remove_unfinished,
    save_prepared,
)
from portrait4d.files.errors import InputFileError
from tests.helpers.stub_faces import PORTRAITS


@pytest.fixture(scope="module")
def face() -> PreparedFace:
    item = PORTRAITS[2]
    points98, points68 = torch.from_numpy(item.load_landmarks98()).double(), torch.from_numpy(item.load_landmarks68())
    crop = crop_portrait(item.load_image(), points98, points68)
    origin = Origin("a.jpg", 7, 1, 3, torch.tensor([1.5, 2, 30, 40]), points98, points68, crop.transform)
    return PreparedFace(crop, {"id": torch.arange(80.0)[None]}, torch.zeros(3, 224, 448), origin)


def test_origins_come_back_exactly(tmp_path: Path, face: PreparedFace) -> None:
    save_prepared(tmp_path, "a_1.jpg", face)
    assert {path.parent.name for path in tmp_path.rglob("a_1.*")} == set(FOLDERS)
    origin = load_origin(tmp_path, "a_1.jpg")
    assert (origin.source, origin.number, origin.index, origin.count) == ("a.jpg", 7, 1, 3)
    assert origin.transform == face.origin.transform
    for name in ("box", "landmarks98", "landmarks68"):
        assert torch.equal(getattr(origin, name), getattr(face.origin, name))
    with np.load(tmp_path / "crop_transforms/a_1.npz") as content:
        there = np.vstack([content["image_to_crop"], [0, 0, 1]])
        back = np.vstack([content["crop_to_image"], [0, 0, 1]])
    np.testing.assert_allclose(there @ back, np.eye(3), atol=1e-12)


def test_prepared_means_every_file(tmp_path: Path, face: PreparedFace) -> None:
    for folder in FOLDERS:
        save_prepared(tmp_path, "a.png", face)
        assert is_prepared(tmp_path, "a.png")
        next((tmp_path / folder).glob("a.*")).unlink()
        assert is_prepared(tmp_path, "a.png") == (folder == "bfm_vis")


def test_a_stop_half_way_leaves_no_picture(tmp_path: Path, face: PreparedFace, monkeypatch: pytest.MonkeyPatch) -> None:
    save_prepared(tmp_path, "a.png", face)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(prepared_files, "save_origin", fail)
    with pytest.raises(OSError, match="full"):
        save_prepared(tmp_path, "a.png", face)
    assert not (tmp_path / "align_images/a.png").exists() and not is_prepared(tmp_path, "a.png")


def test_what_a_killed_run_left_is_removed(tmp_path: Path, face: PreparedFace) -> None:
    save_prepared(tmp_path, "a.png", face)
    left = [tmp_path / "align_images/.tmp-x.png", tmp_path / "crop_transforms/.tmp-y.npz"]
    for path in (*left, tmp_path / ".tmp-mine"):
        path.touch()
    remove_unfinished(tmp_path)
    assert not any(path.exists() for path in left)
    assert (tmp_path / ".tmp-mine").exists() and is_prepared(tmp_path, "a.png")
    remove_unfinished(tmp_path / "nothing")


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04" + bytes(50)])
def test_damaged_origins(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "crop_transforms/a.npz"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match="is missing or damaged; prepare the picture again with --overwrite"):
        load_origin(tmp_path, "a.png")


def test_numbered_names() -> None:
    assert numbered_name("a.b.JPG", 2) == "a.b_2.JPG"
