"""Packing: order, names, repetitions, what is left out, what is bad, resuming."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data import pack_folders
from portrait4d.data.clip_dataset import ClipDataset
from portrait4d.data.image_io import encode_image
from portrait4d.data.lmdb_store import LmdbReader
from portrait4d.data.pack_folders import PackConfig, pack_clips, pack_stills
from portrait4d.data.pack_sources import Packed
from portrait4d.data.portrait_dataset import PortraitDataset
from portrait4d.data.records import STILL, decode_record
from portrait4d.files.errors import UserError
from tests.unit.data.conftest import SIDE


@pytest.fixture
def raw(raw_stills: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(raw_stills, tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def clips(raw_clips: Path, tmp_path: Path) -> Path:
    shutil.copytree(raw_clips, tmp_path / "clips")
    return tmp_path / "clips"


def images(database: Path) -> list[bytes]:
    return [bytes(decode_record(STILL, v)["image"]) for key, v in LmdbReader(database).items() if key.isdigit()]


def test_stills_are_repeated_as_the_table_says(raw: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    table.write_text(json.dumps({str(k): 1 + k % 3 for k in range(8)}))
    report = pack_stills(PackConfig(raw, tmp_path / "out", SIDE, rebalance=str(table)))
    assert report.target.name == "FFHQ_32_30" and report.entries == 30 and not report.bad
    paths = [p for folder in ("00000", "70000") for p in sorted((raw / folder / "align_images").iterdir())]
    expected = [p.read_bytes() for p in paths for _ in range(1 + int(p.stem) % 70000 % 3)]
    assert images(report.target) == expected
    cut = pack_stills(PackConfig(raw, tmp_path / "cut", SIDE, max_len=4, rebalance=str(table)))
    assert cut.target.name == "FFHQ_32_4" and images(cut.target) == expected[:4]
    record = decode_record(STILL, LmdbReader(report.target).get(b"00000000"))
    assert (record["channels"], record["height"], record["width"]) == (3, 512, 512)
    assert len(record["labels"]) == 437 * 4 and len(record["mots"]) == 548 * 4


def test_no_workers_and_many_give_the_same(raw: Path, tmp_path: Path) -> None:
    made = [pack_stills(PackConfig(raw, tmp_path / f"w{n}", SIDE, workers=n)).target for n in (0, 5)]
    assert list(LmdbReader(made[0]).items()) == list(LmdbReader(made[1]).items())


def test_bad_stills_are_reported_and_left_out(raw: Path, tmp_path: Path) -> None:
    (raw / "00000/motion_feats/00000.npy").unlink()
    (raw / "00000/segs/00002.png").unlink()
    label = np.load(raw / "00000/flame_optim_params/00003.npy")
    label[30] = np.nan
    np.save(raw / "00000/flame_optim_params/00003.npy", label)
    (raw / "00000/align_images/00004.png").write_bytes(encode_image(torch.zeros(3, SIDE, SIDE + 2)))
    (raw / "00000/align_images/00005.png").write_bytes(b"nothing")
    report = pack_stills(PackConfig(raw, tmp_path / "out", SIDE))
    assert report.target.name == "FFHQ_32_11"
    assert report.left_out == [("00000/align_images/00000.png", "no motion vector (motion_feats)")]
    reasons = {Path(name).stem: reason for name, reason in report.bad}
    assert list(reasons) == ["00002", "00003", "00004", "00005"]
    assert "missing segmentation" in reasons["00002"] and "1 NaN or infinite" in reasons["00003"]
    assert "expected 32 x 32 pixels, got 34 x 32" in reasons["00004"] and "expected an encoded" in reasons["00005"]
    assert "4 BAD:" in report.summary() and len(PortraitDataset(report.target)) == 11
    assert json.loads((report.target / "packing.json").read_text())["entries"] == 11


def test_validation_finds_what_headers_do_not_show(raw: Path, tmp_path: Path) -> None:
    picture = raw / "00000/align_images/00000.png"
    picture.write_bytes(picture.read_bytes()[:-40])
    label = np.load(raw / "00000/flame_optim_params/00002.npy")
    label[[3, 7, 11]] = 0
    np.save(raw / "00000/flame_optim_params/00002.npy", label)
    assert not pack_stills(PackConfig(raw, tmp_path / "trusting", SIDE)).bad
    report = pack_stills(PackConfig(raw, tmp_path / "careful", SIDE, validate=True))
    assert [Path(name).stem for name, _ in report.bad] == ["00000", "00002"]
    assert "0 units from the neck" in report.bad[1][1]


def test_automatic_rebalancing_repeats_turned_heads(raw: Path, tmp_path: Path) -> None:
    report = pack_stills(PackConfig(raw, tmp_path / "out", SIDE, rebalance="auto"))
    assert report.entries >= 16
    with pytest.raises(UserError, match="no number of repetitions for picture"):
        (tmp_path / "table.json").write_text('{"0": 1}')
        pack_stills(PackConfig(raw, tmp_path / "other", SIDE, rebalance=str(tmp_path / "table.json")))


def test_one_prepared_folder_is_enough(raw: Path, tmp_path: Path) -> None:
    assert pack_stills(PackConfig(raw / "00000", tmp_path / "out", SIDE)).entries == 8
    (raw / "00000").rename(raw / "mine")
    shutil.rmtree(raw / "70000")
    assert pack_stills(PackConfig(raw, tmp_path / "named", SIDE)).entries == 8


def test_clips_choose_their_frames(clips: Path, tmp_path: Path) -> None:
    (clips / "clip-001/select_index_3.txt").write_text("4 0 2\n")
    (clips / "clip-002/flame_optim_params/00001.npy").rename(clips / "clip-002/flame_optim_params/other.npy")
    report = pack_clips(PackConfig(clips, tmp_path / "out", SIDE, frames=3))
    assert report.target.name == "VFHQ_sub3_32_3" and not report.bad
    assert report.left_out == [("clip-002/00001.png", "no label or no motion vector")]
    dataset = ClipDataset(report.target)
    assert [dataset.frame_count(k) for k in range(3)] == [3, 3, 2]
    third = np.load(clips / "clip-001/motion_feats/00004.npy")
    assert np.array_equal(dataset.load_frames(1, 2, 0).source_motion.numpy(), third)


def test_short_clips_are_left_out_or_allowed(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="(?s)nothing could be packed.*3 left out.*5 frames, 6 are needed"):
        pack_clips(PackConfig(clips, tmp_path / "out", SIDE, frames=6))
    assert not list((tmp_path / "out").iterdir()), "nothing is left behind"
    report = pack_clips(PackConfig(clips, tmp_path / "out", SIDE, frames=6, allow_short=True, max_len=2))
    assert report.target.name == "VFHQ_sub6_32_2"
    assert ClipDataset(report.target).frame_count(0) == 5


def test_bad_clips_are_reported(clips: Path, tmp_path: Path) -> None:
    (clips / "clip-000/segs/00001.png").unlink()
    (clips / "clip-001/segs/00001.png").write_bytes(b"nothing")
    report = pack_clips(PackConfig(clips, tmp_path / "out", SIDE, frames=5))
    assert report.entries == 1 and [name for name, _ in report.bad] == ["clip-000", "clip-001"]
    assert "different numbers of files" in report.bad[0][1] and "expected an encoded picture" in report.bad[1][1]


def test_hidden_files_are_not_counted(clips: Path, tmp_path: Path) -> None:
    (clips / "clip-000/segs/.DS_Store").touch()
    (clips / "clip-001/motion_feats/.tmp-abc.npy").touch()
    report = pack_clips(PackConfig(clips, tmp_path / "out", SIDE, frames=5))
    assert report.entries == 3 and not report.bad


@pytest.mark.parametrize("container", ["lmdb", "shards"])
def test_an_interrupted_run_goes_on(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str) -> None:
    config = PackConfig(raw, tmp_path / "out", SIDE, workers=0, container=container, commit_every=3, shard_mb=0)
    reading = pack_folders.read_still

    def stop_at_ten(source: object, rules: object) -> Packed:
        if source.portrait.stem == "70002":
            raise KeyboardInterrupt
        return reading(source, rules)

    monkeypatch.setattr(pack_folders, "read_still", stop_at_ten)
    with pytest.raises(KeyboardInterrupt):
        pack_stills(config)
    monkeypatch.setattr(pack_folders, "read_still", reading)
    with pytest.raises(UserError, match="an unfinished run is in the way; go on with --resume"):
        pack_stills(config)
    with pytest.raises(UserError, match="was made from other sources or options"):
        pack_stills(PackConfig(raw, tmp_path / "out", SIDE, max_len=12, resume=True, container=container))
    going_on = PackConfig(raw, tmp_path / "out", SIDE, container=container, resume=True)
    report = pack_stills(going_on)
    twin = pack_stills(PackConfig(raw, tmp_path / "twin", SIDE, container=container))
    assert report.entries == 16 and report.target.name == twin.target.name
    assert pack_stills(going_on).target == report.target, "a finished run is recognised"
    ours, theirs = PortraitDataset(report.target), PortraitDataset(twin.target)
    for index in range(16):
        assert all(torch.equal(a, b) for a, b in zip(ours[index], theirs[index], strict=True))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [report.target.name]


def test_too_little_room_is_said_before_anything_is_written(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(UserError, match="GiB are free, about .* GiB are needed"):
        pack_stills(PackConfig(raw, tmp_path / "out", SIDE))
    assert not list((tmp_path / "out").iterdir())


def test_missing_folders_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; give --data_dir"):
        pack_stills(PackConfig(tmp_path / "none", tmp_path / "out"))
    with pytest.raises(UserError, match="no prepared folder"):
        pack_stills(PackConfig(tmp_path, tmp_path / "out"))
    with pytest.raises(UserError, match="no clip"):
        pack_clips(PackConfig(tmp_path, tmp_path / "out"))
