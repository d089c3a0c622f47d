"""Still portraits: what was packed comes out, mirrored copies are real, damage is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.image_io import load_image, to_uint8
from portrait4d.data.lmdb_store import LmdbReader, LmdbWriter
from portrait4d.data.loading import BatchLoader, LoadingConfig
from portrait4d.data.portrait_dataset import PortraitDataset
from portrait4d.data.record_stores import detect_kind, rescale_camera
from portrait4d.data.records import STILL, decode_record, encode_record
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.cameras import project_points
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import split_label
from portrait4d.geometry.mirroring import HeadMirror, mirror_partners
from tests.unit.data.conftest import SIDE


def spoil(database: Path, folder: Path, index: int, **fields: bytes) -> Path:
    """Copy a database with other fields in one record."""
    writer = LmdbWriter(folder.with_name("part"))
    for key, value in LmdbReader(database).items():
        if key.isdigit():
            values = decode_record(STILL, value) | (fields if int(key) == index else {})
            writer.append([encode_record(STILL, values)], {})
    writer.finish(folder)
    return folder


def test_items_are_what_was_packed(raw_stills: Path, still_database: Path) -> None:
    dataset = PortraitDataset(still_database)
    assert (len(dataset), dataset.resolution, dataset.image_shape) == (16, SIDE, (3, SIDE, SIDE))
    for index, folder, name in ((0, "00000", "00000.png"), (1, "00000", "00001.jpg"), (9, "70000", "70001.jpg")):
        item = dataset[index]
        label = torch.from_numpy(np.load(raw_stills / folder / "flame_optim_params" / f"{name[:5]}.npy"))
        motion = torch.from_numpy(np.load(raw_stills / folder / "motion_feats" / f"{name[:5]}.npy"))
        assert torch.equal(item.image, to_uint8(load_image(raw_stills / folder / "align_images" / name)))
        assert item.mask.shape == (3, SIDE, SIDE) and item.mask.dtype == torch.uint8
        assert torch.equal(torch.cat(item[2:]), label) and torch.equal(dataset.label(index), label)
        assert torch.equal(dataset.motion(index), motion)
    assert detect_kind(still_database) == STILL


def test_the_folder_s_name_means_nothing(still_database: Path, tmp_path: Path) -> None:
    named = tmp_path / "anything"
    shutil.copytree(still_database, named)
    assert len(PortraitDataset(named)) == 16
    assert PortraitDataset(str(named) + "/").resolution == SIDE


def test_mirrored_copies_are_mirror_images(still_database: Path, ellipsoid: HeadModel) -> None:
    plain = PortraitDataset(still_database)
    both = PortraitDataset(still_database, mirror=HeadMirror.fit(ellipsoid))
    assert len(both) == 32 and both.is_mirrored.tolist() == [False] * 16 + [True] * 16
    for index in (0, 3, 12):
        item, mirrored = both[index], both[16 + index]
        assert torch.equal(item.image, plain[index].image)
        assert torch.equal(mirrored.image, item.image.flip(-1)) and torch.equal(mirrored.mask, item.mask.flip(-1))
        camera, params = split_label(both.label(index)[None])
        flipped_camera, flipped_params = both.head_params(16 + index)
        seen = project_points(ellipsoid(params), camera)[0, mirror_partners(ellipsoid.template)]
        flipped = project_points(ellipsoid(flipped_params), flipped_camera)[0]
        torch.testing.assert_close(flipped, torch.stack([1 - seen[:, 0], seen[:, 1]], -1), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="expected an item that is not mirrored, got 20"):
        both.motion(20)


def test_subsets_and_repetitions(still_database: Path) -> None:
    assert len(PortraitDataset(still_database, max_size=5, seed=1)) == 5
    repeated = PortraitDataset(still_database, repetitions=[2] * 8 + [0] * 8, mirror=HeadMirror.unchanged())
    assert repeated.record_indices.tolist() == [k for k in range(8) for _ in range(2)] * 2
    with pytest.raises(ValueError, match="repetitions: expected 16 numbers, got 3"):
        PortraitDataset(still_database, repetitions=[1, 2, 3])
    with pytest.raises(IndexError, match="expected 0 to 15, got 16"):
        PortraitDataset(still_database)[16]


def test_batches_from_workers(still_database: Path) -> None:
    dataset = PortraitDataset(still_database)
    loader = BatchLoader(dataset, LoadingConfig(5, workers=2))
    batch = next(loader)
    loader.close()
    alone = next(BatchLoader(dataset, LoadingConfig(5)))
    assert batch.image.shape == (5, 3, SIDE, SIDE) and batch.shape.shape == (5, 300)
    assert all(torch.equal(a, b) for a, b in zip(batch, alone, strict=True))


def test_old_cameras_are_rescaled() -> None:
    label = np.zeros(437, np.float32)
    label[[3, 7, 11]], label[16:25] = (0.1, 0.2, 1.4), (2400, 0, 256, 0, 2400, 256, 0, 0, 1)
    new = rescale_camera(label, 512)
    np.testing.assert_allclose(new[[3, 7, 11]], [0.3, 0.6, 4.2], rtol=1e-6)
    np.testing.assert_allclose(new[16:25], [4.6875, 0, 0.5, 0, 4.6875, 0.5, 0, 0, 1], rtol=1e-6)
    np.testing.assert_array_equal(rescale_camera(new, 512)[16:25], new[16:25])


def test_damaged_records_are_named(still_database: Path, tmp_path: Path) -> None:
    dataset = PortraitDataset(spoil(still_database, tmp_path / "db", 2, image=b"no picture at all"))
    assert dataset[1].image.shape == (3, SIDE, SIDE)
    with pytest.raises(InputFileError, match=r"db: record 2 is damaged: image: expected an encoded picture"):
        dataset[2]
    assert dataset.label(2).shape == (437,), "its label can still be read"


def test_other_sizes_and_short_labels_are_refused(still_database: Path, tmp_path: Path) -> None:
    from portrait4d.data.image_io import encode_image

    wide = spoil(still_database, tmp_path / "wide", 3, seg=encode_image(torch.zeros(3, SIDE, SIDE * 2)))
    with pytest.raises(InputFileError, match=r"record 3 is damaged: seg: expected shape \(3, 32, 32\) as in record 0"):
        PortraitDataset(wide)[3]
    short = spoil(still_database, tmp_path / "short", 0, labels=bytes(436 * 4))
    with pytest.raises(InputFileError, match="labels: expected 1 x 437 float32 numbers, got 1744 bytes"):
        PortraitDataset(short)[0]
    with pytest.raises(InputFileError, match="neither an LMDB database"):
        PortraitDataset(tmp_path)
