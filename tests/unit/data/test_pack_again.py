"""Packing and converting in the presence of earlier results: nothing is published under another's run."""

import json
import shutil
from pathlib import Path

import pytest

from portrait4d.data import lmdb_store, shards
from portrait4d.data.convert_records import convert_records
from portrait4d.data.pack_folders import PackConfig, pack_clips, pack_stills
from portrait4d.data.record_stores import open_records
from portrait4d.data.records import STILL
from portrait4d.files.errors import UserError
from tests.helpers.raw_folders import write_portrait
from tests.unit.data.conftest import SIDE

CONTAINERS = pytest.mark.parametrize("container", ["lmdb", "shards"])
TAKEN = "is there already; move it away and run again with --resume"
OTHER = "was made from other sources or options; use those again, or remove the folder"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders a, b and c of four stills that differ in nothing but the pictures. Do not change them."""
    root = tmp_path_factory.mktemp("sources")
    for shift, name in enumerate("abc"):
        for number in range(4):
            write_portrait(root / name, f"{number:05d}", 4 * shift + number, SIDE, 0.0)
    return root


def first_picture(database: Path) -> bytes:
    with open_records(database, STILL).fields(0) as fields:
        return bytes(fields["image"])


def pack(source: Path, out: Path, **options: object) -> Path:
    return pack_stills(PackConfig(source, out, SIDE, **options)).target


def holds(database: Path, source: Path) -> bool:
    return first_picture(database) == (source / "align_images/00000.png").read_bytes()


@CONTAINERS
def test_a_complete_folder_is_published_for_its_own_sources_only(sources: Path, tmp_path: Path, container: str) -> None:
    first = pack(sources / "a", tmp_path, container=container)
    with pytest.raises(UserError, match=TAKEN):
        pack(sources / "b", tmp_path, container=container)
    first.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=OTHER):
        pack(sources / "c", tmp_path, container=container, resume=True)
    made = pack(sources / "b", tmp_path, container=container, resume=True)
    assert made == first and holds(made, sources / "b")


@CONTAINERS
def test_a_finished_run_is_that_of_the_same_folder(sources: Path, tmp_path: Path, container: str) -> None:
    first = pack(sources / "a", tmp_path, container=container)
    assert pack(sources / "a", tmp_path, container=container, resume=True) == first
    with pytest.raises(UserError, match=TAKEN):
        pack(sources / "b", tmp_path, container=container, resume=True)


def test_the_remedy_of_a_taken_name_works(sources: Path, tmp_path: Path) -> None:
    first = pack(sources / "a", tmp_path)
    with pytest.raises(UserError, match=TAKEN):
        pack(sources / "a", tmp_path)
    with pytest.raises(UserError, match=TAKEN):
        pack(sources / "a", tmp_path, resume=True)
    first.rename(tmp_path / "FFHQ_32_4-old")
    assert pack(sources / "a", tmp_path, resume=True) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FFHQ_32_4", "FFHQ_32_4-old"]


def test_what_was_made_anew_in_place_is_another_source(
    sources: Path, raw_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stills, clips, out = tmp_path / "stills", tmp_path / "clips", tmp_path / "out"
    shutil.copytree(sources / "a", stills)
    shutil.copytree(raw_clips, clips)
    monkeypatch.setattr(lmdb_store, "finish_folder", lambda folder, target: None)  # as a kill just before it
    for resume in (False, True):
        pack(stills, out, resume=resume)
        pack_clips(PackConfig(clips, out, SIDE, frames=5, resume=resume))
    write_portrait(stills, "00002", 9, SIDE, 0.3)
    write_portrait(clips / "clip-001", "00002", 9, SIDE, 0.3)
    with pytest.raises(UserError, match=OTHER):
        pack(stills, out, resume=True)
    with pytest.raises(UserError, match=OTHER):
        pack_clips(PackConfig(clips, out, SIDE, frames=5, resume=True))


@pytest.mark.parametrize("content", ["", "[]", '{"entries": 1}'])
def test_foreign_reports_are_passed_over(sources: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "FFHQ_32_1").mkdir()
    (tmp_path / "FFHQ_32_1/packing.json").write_text(content)
    first = pack(sources / "a", tmp_path, resume=True)
    assert pack(sources / "a", tmp_path, resume=True) == first


def test_a_conversion_in_the_way_is_refused(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_records(pack(sources / "a", tmp_path / "packed"), STILL)
    monkeypatch.setattr(lmdb_store, "finish_folder", lambda folder, target: None)
    convert_records(store, tmp_path / "FFHQ_32", "lmdb")
    with pytest.raises(UserError, match=OTHER):
        pack(sources / "a", tmp_path, resume=True)


@CONTAINERS
def test_a_complete_copy_is_published_for_its_own_source_only(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str
) -> None:
    stores = [open_records(pack(sources / name, tmp_path / name), STILL) for name in "ab"]
    with monkeypatch.context() as patched:
        for module in (lmdb_store, shards):
            patched.setattr(module, "finish_folder", lambda folder, target: None)
        convert_records(stores[0], tmp_path / "copy", container)
    assert not (tmp_path / "copy").exists()
    with pytest.raises(UserError, match="is an unfinished copy of something else; remove it"):
        convert_records(stores[1], tmp_path / "copy", container)
    assert convert_records(stores[0], tmp_path / "copy", container) == 4
    assert holds(tmp_path / "copy", sources / "a")
    assert json.loads((tmp_path / "copy/conversion.json").read_text())["origin"] == str(stores[0].path)
