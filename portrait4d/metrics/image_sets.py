"""Sets of pictures to measure: databases, prepared folders, and plain folders of pictures, all as numbered bytes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from portrait4d.data.image_io import decode_image
from portrait4d.data.lmdb_store import DATA_FILE
from portrait4d.data.portrait_dataset import PortraitDataset
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, IMAGE_SUFFIXES, PortraitFolder, PreparedPortrait
from portrait4d.data.record_arrays import still_picture
from portrait4d.data.record_stores import record_errors
from portrait4d.data.shards import INDEX_FILE
from portrait4d.data.worker_errors import build_loader, unwrap_batch
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.mirroring import HeadMirror, mirror_image
from portrait4d.metrics.evaluate import NumberedImages


class ImageSet(Protocol):
    """Pictures in a fixed order, readable in any process.

    Attributes:
        path: where they come from.
        fingerprint: changes whenever a file of the set does.
        has_labels: whether `label` works.
    """

    path: Path
    fingerprint: str
    has_labels: bool

    def __len__(self) -> int: ...

    def load(self, number: int) -> Tensor:
        """Load a picture (3, H, W) uint8 RGB, all of one size."""
        ...

    def label(self, number: int) -> Tensor:
        """Load a picture's frame label (437,)."""
        ...


def open_image_set(path: str | Path, mirror: HeadMirror | None = None) -> ImageSet:
    """Open a database (LMDB or shards), a prepared folder, or a folder of pictures, searched to any depth.

    Args:
        path: the folder.
        mirror: given, every picture comes a second time, mirrored, behind all others; maps the labels.

    Raises:
        InputFileError: no such folder, no picture in it, or a damaged database.
    """
    path = Path(path)
    if (path / DATA_FILE).is_file() or (path / INDEX_FILE).is_file():
        return _DatabaseImages(path, mirror)
    if not path.is_dir():
        raise InputFileError(path, "no such folder", "give a database, or a folder of pictures")
    if (path / ALIGNED_IMAGES).is_dir():
        return _FolderImages(path, [p.image_path for p in PortraitFolder(path).items()], mirror, has_labels=True)
    pictures = (p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    files = [p for p in pictures if not _is_hidden(p, path)]
    if not files:
        raise InputFileError(path, f"no picture ({', '.join(IMAGE_SUFFIXES)}) in this folder", "give another folder")
    return _FolderImages(path, sorted(files), mirror, has_labels=False)


def load_batches(
    images: ImageSet, chosen: Sequence[int], batch: int = 64, workers: int = 0, rank: int = 0, ranks: int = 1
) -> Iterator[NumberedImages]:
    """Return the batches of one of several processes; `numbers` are places in `chosen`.

    Args:
        images: the set.
        chosen: which of its pictures all processes together read, in this order.
        batch: pictures per batch.
        workers: processes that read for this one; 0 reads here.
        rank, ranks: this process, which takes places rank, rank + ranks, ..., and the number of processes.

    Raises:
        UserError: while iterating, a picture that cannot be read.
    """
    dataset = _Chosen(images, chosen, range(rank, len(chosen), ranks))
    return map(unwrap_batch, build_loader(dataset, _collate, batch_size=batch, num_workers=workers))


class _Chosen(Dataset):
    def __init__(self, images: ImageSet, chosen: Sequence[int], places: Sequence[int]) -> None:
        self.images, self.chosen, self.places = images, chosen, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        place = self.places[index]
        return self.images.load(int(self.chosen[place])), place


def _collate(items: list[tuple[Tensor, int]]) -> NumberedImages:
    return NumberedImages(torch.stack([image for image, _ in items]), torch.tensor([number for _, number in items]))


class _DatabaseImages:
    def __init__(self, path: Path, mirror: HeadMirror | None) -> None:
        self.path = path
        self.has_labels = True
        self.dataset = PortraitDataset(path, mirror=mirror)
        files = [file for file in path.iterdir() if file.is_file() and file.name != "lock.mdb"]
        self.fingerprint = _fingerprint(path, files)

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, number: int) -> Tensor:
        dataset = self.dataset
        record = int(dataset.record_indices[number])
        with dataset.store.fields(record) as fields, record_errors(dataset.store, record):
            picture = torch.from_numpy(still_picture(fields, "image"))  # the mask is not decoded
            if picture.shape != dataset.image_shape:
                raise ValueError(f"image: expected shape {dataset.image_shape}, got {tuple(picture.shape)}")
        return mirror_image(picture) if dataset.is_mirrored[number] else picture

    def label(self, number: int) -> Tensor:
        return self.dataset.label(number)


class _FolderImages:
    def __init__(self, path: Path, files: list[Path], mirror: HeadMirror | None, has_labels: bool) -> None:
        self.path, self.files, self.mirror, self.has_labels = path, files, mirror, has_labels
        self.shape = _read_picture(files[0]).shape
        self.fingerprint = _fingerprint(path, files)

    def __len__(self) -> int:
        return len(self.files) * (1 if self.mirror is None else 2)

    def load(self, number: int) -> Tensor:
        file = self.files[number % len(self.files)]
        picture = _read_picture(file)
        if picture.shape != self.shape:
            expected, found = (f"{shape[2]} x {shape[1]}" for shape in (self.shape, picture.shape))
            raise InputFileError(file, f"expected {expected} pixels as {self.files[0].name}, got {found}", "resize it")
        return picture if number < len(self.files) else mirror_image(picture)

    def label(self, number: int) -> Tensor:
        file = self.files[number % len(self.files)]
        stored = PreparedPortrait(file.stem, file, self.path).load_frame_label(simplified=False)
        label = torch.from_numpy(stored)
        return label if number < len(self.files) else self.mirror.label(label[None])[0]


def _read_picture(path: Path) -> Tensor:
    try:
        return decode_image(path.read_bytes(), path.name)
    except (OSError, ValueError) as error:
        raise InputFileError(path, str(error), "remove it, or make it again") from error


def _fingerprint(root: Path, files: list[Path]) -> str:
    entries = sorted(
        (file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files
    )
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
