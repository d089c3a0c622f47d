"""Errors of data loading on their way from worker processes: torch would hand them on as tracebacks in their place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset, default_collate

from portrait4d.files.errors import UserError

T = TypeVar("T")


def build_loader(
    dataset: Dataset, collate: Callable[[list], object] = default_collate, **options: object
) -> DataLoader:
    """Build a DataLoader whose batches are for `unwrap_batch`.

    Args:
        dataset: what to load.
        collate: items to a batch.
        options: of `DataLoader`.
    """
    return DataLoader(_Guarded(dataset), collate_fn=_GuardedCollate(collate), **options)


def unwrap_batch(batch: T | UserError) -> T:
    """Return a batch of `build_loader`.

    Raises:
        UserError: as one of its items did, in whatever process.
    """
    if isinstance(batch, UserError):
        raise batch
    return batch


class _Guarded(Dataset):
    """A data set that gives a UserError as the item where the other one raises it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: object) -> object:
        try:
            return self.dataset[key]
        except UserError as error:
            return error


@dataclass(frozen=True)
class _GuardedCollate:
    collate: Callable[[list], object]

    def __call__(self, items: list) -> object:
        problem = next((item for item in items if isinstance(item, UserError)), None)
        return self.collate(items) if problem is None else problem
