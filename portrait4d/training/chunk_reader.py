"""A data set as the chunks that this process has a turn with."""

from torch import Tensor

from portrait4d.config.training import RunConfig
from portrait4d.data.loading import BatchLoader, LoadableDataset, LoadingConfig
from portrait4d.training.distributed import Ranks
from portrait4d.training.tasks import split_chunks


class ChunkReader:
    """Reads this process's share of each batch ahead, and hands it out in chunks.

    Args:
        dataset: what to read.
        run: sizes of batch and chunks, seed, workers.
        ranks: this process.
    """

    def __init__(self, dataset: LoadableDataset, run: RunConfig, ranks: Ranks) -> None:
        self.dataset, self.chunks = dataset, run.batch // ranks.count // run.chunk_size
        self.loading = LoadingConfig(run.batch // ranks.count, run.seed, ranks.rank, ranks.count, run.workers)
        self.loader: BatchLoader | None = None

    def restart(self, batches_done: int) -> None:
        """Go on behind so many batches."""
        self.close()
        self.loader = BatchLoader(self.dataset, self.loading, batches_done)

    def __next__(self) -> list[list[Tensor]]:
        """Return the fields of the next items, chunk by chunk, see `split_chunks`."""
        return split_chunks(next(self.loader), self.chunks)

    def close(self) -> None:
        """Stop the workers."""
        if self.loader is not None:
            self.loader.close()
