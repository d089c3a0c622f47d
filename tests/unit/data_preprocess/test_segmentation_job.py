"""Masks of prepared folders: what the network sees, past bad pictures, resumable, and as the datasets read them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_preprocess.segmentation_job import SegmentationConfig, segment_faces
from portrait4d.data.image_io import decode_pixels, load_image, save_image, to_uint8
from portrait4d.data.pack_folders import PackConfig, pack_clips, pack_stills
from portrait4d.data.portrait_dataset import PortraitDataset
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.files.errors import InputFileError, UserError
from tests.helpers.raw_folders import write_clips
from tests.helpers.stub_parser import stub_parser

SIDE = 32


def draw_head(x: int) -> torch.Tensor:
    """Return a dark picture with red skin from x on, green hair above it and blue cloth below."""
    image = torch.full((3, SIDE, SIDE), -1.0)
    for channel, rows in ((1, slice(4, 8)), (0, slice(8, 20)), (2, slice(20, 32))):
        image[channel, rows, x : x + 16] = 1.0
    return image


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder with two prepared folders of three pictures, PNG and JPEG."""
    for folder, suffix in (("a", "png"), ("deep/b", "jpg")):
        for number in range(3):
            save_image(tmp_path / f"prepared/{folder}/align_images/{number:03d}.{suffix}", draw_head(4 * number), 100)
    return tmp_path / "prepared"


@pytest.fixture
def config(prepared: Path) -> SegmentationConfig:
    return SegmentationConfig(prepared, device="cpu", batch=4, checkpoint="stub")


def test_masks_are_white_where_the_head_is(config: SegmentationConfig) -> None:
    report = segment_faces(config, stub_parser())
    assert (report.written, report.skipped, report.failures) == (6, 0, [])
    for number, item in enumerate(PortraitFolder(config.input_dir / "a").items()):
        rows = decode_pixels(item.segmentation_path.read_bytes(), "mask")
        expected = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)
        expected[4:, 4 * number : 4 * number + 16] = 255
        assert torch.equal(torch.from_numpy(rows), expected)
    for item in PortraitFolder(config.input_dir / "deep/b").items():
        mask = to_uint8(load_image(item.segmentation_path))
        assert ((mask < 8) | (mask > 247)).all(), "JPEG keeps black and white apart"

    segment_faces(replace(config, background_labels=("background", "cloth"), overwrite=True), stub_parser())
    rows = decode_pixels((config.input_dir / "a/segs/000.png").read_bytes(), "mask")
    assert (rows[4:20, :16] == 255).all() and not rows[20:].any()


def test_bad_pictures_are_named_and_the_rest_is_done(config: SegmentationConfig, tmp_path: Path) -> None:
    items = PortraitFolder(config.input_dir / "a").items()
    items[0].image_path.write_bytes(b"no picture")
    save_image(items[1].image_path, torch.full((3, SIDE, SIDE), -1.0))
    webp = items[1].image_path.with_name("009.webp")
    shutil.copy(items[2].image_path, webp)
    report = segment_faces(replace(config, save_dir=tmp_path / "out"), stub_parser())
    assert report.written == 4 and len(report.failures) == 3
    for path, reason in (
        (items[0].image_path, "not a picture"),
        (items[1].image_path, "no head"),
        (webp, ".png, .jpg"),
    ):
        assert any(failure.startswith(f"{path}: ") and reason in failure for failure in report.failures)
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["a/segs/002.png", *(f"deep/b/segs/{number:03d}.jpg" for number in range(3))]


def test_what_is_there_is_kept(config: SegmentationConfig) -> None:
    segment_faces(config, stub_parser())
    first, second = config.input_dir / "a/segs/000.png", config.input_dir / "a/segs/001.png"
    before = first.read_bytes()
    first.write_bytes(b"mine")
    second.unlink()
    report = segment_faces(config, stub_parser())
    assert (report.written, report.skipped) == (1, 5) and first.read_bytes() == b"mine"
    assert segment_faces(replace(config, overwrite=True), stub_parser()).written == 6
    assert first.read_bytes() == before


def test_the_database_generators_take_the_masks(tmp_path: Path) -> None:
    raw = write_clips(tmp_path / "raw", clips=2, frames=3)
    for clip in raw.iterdir():
        shutil.rmtree(clip / "segs")
    assert segment_faces(SegmentationConfig(raw, device="cpu", checkpoint="stub"), stub_parser()).written == 6
    stills = pack_stills(PackConfig(raw, tmp_path / "stills", SIDE, rebalance="none", validate=True))
    assert not stills.bad
    dataset = PortraitDataset(stills.target)
    assert len(dataset) == 6
    for number, item in enumerate(PortraitFolder(raw / "clip-000").items()):
        mask = dataset[number].mask
        assert torch.equal(mask, to_uint8(load_image(item.segmentation_path)))
        assert 0.02 < (mask == 255).float().mean() < 1 and ((mask == 255) | (mask == 0)).all()
    assert not pack_clips(PackConfig(raw, tmp_path / "clips", SIDE, frames=3, validate=True)).bad


def test_nothing_to_do(config: SegmentationConfig, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such folder"):
        segment_faces(replace(config, input_dir=tmp_path / "nothing"), stub_parser())
    with pytest.raises(UserError, match="--head-labels: the checkpoint has no label 'nose'"):
        segment_faces(replace(config, head_labels=("nose",)), stub_parser())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file.*: cannot be written"):
        segment_faces(replace(config, save_dir=tmp_path / "file"), stub_parser())
