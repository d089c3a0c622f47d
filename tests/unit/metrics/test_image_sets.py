"""Pictures of databases, prepared folders and plain folders as numbered bytes."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from portrait4d.data.image_io import from_uint8, save_image
from portrait4d.data.pack_folders import PackConfig, pack_stills
from portrait4d.data.portrait_dataset import PortraitDataset
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.mirroring import HeadMirror
from portrait4d.metrics.image_sets import load_batches, open_image_set
from tests.helpers.raw_folders import write_stills


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 8 stills of 32 pixels."""
    raw = write_stills(tmp_path_factory.mktemp("raw") / "stills", 4, 32)
    return pack_stills(PackConfig(raw, tmp_path_factory.mktemp("packed"), 32)).target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 5 pictures, one of them deeper, and other files."""
    for number, name in enumerate(["b.png", "a.png", "deep/c.png", "d.PNG", "e.png"]):
        image = torch.full((3, 16, 20), number, dtype=torch.uint8)
        image[:, :, 0] = 200
        save_image(tmp_path / "set" / name.lower(), from_uint8(image))
    (tmp_path / "set/deep/notes.txt").write_text("no picture")
    (tmp_path / "set/.hidden.png").write_text("no picture")
    (tmp_path / "set/folder.png").mkdir()
    (tmp_path / "set/broken.png").symlink_to("nowhere.png")
    return tmp_path / "set"


def test_databases_give_pictures_and_labels_as_stored(database: Path) -> None:
    images, dataset = open_image_set(database), PortraitDataset(database)
    assert len(images) == len(dataset) == 8 and images.has_labels
    for number in (0, 5):
        assert torch.equal(images.load(number), dataset[number].image)
        assert torch.equal(images.label(number), dataset.label(number))


def test_mirrored_copies_come_behind(database: Path, folder: Path) -> None:
    for path, count in ((database, 8), (folder, 5)):
        images = open_image_set(path, HeadMirror.unchanged())
        assert len(images) == 2 * count
        assert torch.equal(images.load(count + 1), images.load(1).flip(-1))
        assert not torch.equal(images.load(count + 1), images.load(1))


def test_folders_are_sorted_and_searched(folder: Path) -> None:
    images = open_image_set(folder)
    assert len(images) == 5 and not images.has_labels
    assert [int(images.load(number)[0, 0, 1]) for number in range(5)] == [1, 0, 3, 2, 4]
    assert images.load(0).shape == (3, 16, 20) and images.load(0).dtype == torch.uint8


def test_prepared_folders_have_labels(prepared_folder: Callable[..., Path]) -> None:
    images = open_image_set(prepared_folder("a", "b"), HeadMirror.unchanged())
    assert len(images) == 4 and images.has_labels
    assert images.label(0).shape == (437,)
    twice = HeadMirror.unchanged().label(images.label(3)[None])[0]
    torch.testing.assert_close(twice, images.label(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_processes_share_the_chosen_pictures(folder: Path, workers: int) -> None:
    images = open_image_set(folder)
    chosen = [4, 0, 2]
    shares = [list(load_batches(images, chosen, 1, workers, rank, 2)) for rank in (0, 1)]
    numbers = [[int(batch.numbers) for batch in share] for share in shares]
    values = [[int(batch.images[0, 0, 0, 1]) for batch in share] for share in shares]
    assert numbers == [[0, 2], [1]]
    assert values == [[4, 3], [1]]


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_pictures_are_named_whoever_reads_them(folder: Path, workers: int) -> None:
    damaged = folder / "e.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(InputFileError, match=r"^\S*e.png: ") as caught:
        list(load_batches(open_image_set(folder), range(5), 2, workers))
    assert "Traceback" not in str(caught.value) and caught.value.path == damaged


def test_sets_travel_to_other_processes(database: Path, folder: Path) -> None:
    for path in (database, folder):
        images = open_image_set(path, HeadMirror.unchanged())
        copy = pickle.loads(pickle.dumps(images))
        assert torch.equal(copy.load(3), images.load(3)) and len(copy) == len(images)


def test_fingerprints_tell_of_changes(database: Path, folder: Path) -> None:
    before = open_image_set(folder).fingerprint
    assert open_image_set(folder).fingerprint == before
    os.utime(folder / "a.png", (1, 1))
    assert open_image_set(folder).fingerprint != before
    first = open_image_set(database)
    first.load(0)  # opening a database touches its lock file
    assert open_image_set(database).fingerprint == first.fingerprint


def test_bad_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="absent: no such folder"):
        open_image_set(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputFileError, match="no picture .* in this folder"):
        open_image_set(tmp_path / "empty")
    save_image(folder / "z.png", torch.zeros(3, 8, 8))
    with pytest.raises(InputFileError, match=r"z.png: expected 20 x 16 pixels as a.png, got 8 x 8"):
        open_image_set(folder).load(5)
    (folder / "z.png").write_bytes(b"no picture")
    with pytest.raises(InputFileError, match="z.png: z.png: expected an encoded picture"):
        open_image_set(folder).load(5)
