"""Examples that fit into memory, and a training of one network on them."""

import copy
from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from portrait4d.config.landmark_training import LandmarkTraining
from portrait4d.config.motion_training import MotionDataConfig, MotionEncoderTraining
from portrait4d.files.errors import UserError
from portrait4d.training.chunk_reader import ChunkReader
from portrait4d.training.distributed import Ranks
from portrait4d.training.tasks import ChunkT, Task, build_adam, lazy_phases

ExampleT = TypeVar("ExampleT", bound=tuple[Tensor, ...])


class ExamplesInMemory(Dataset[ExampleT], Generic[ExampleT]):
    """Examples; `examples`, a named tuple, is a batch of all of them."""

    def __init__(self, examples: ExampleT) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples[0])

    def __getitem__(self, index: int) -> ExampleT:
        return self.load(index)

    def load(self, index: int, generator: torch.Generator | None = None) -> ExampleT:
        """Return example `index`. Nothing is random here; `generator` is what clip datasets take."""
        return type(self.examples)(*(values[index] for values in self.examples))

    def batches(self, size: int) -> Iterator[ExampleT]:
        """Yield all examples in order, `size` at a time."""
        for parts in zip(*(values.split(size) for values in self.examples), strict=True):
            yield type(self.examples)(*parts)


class OneNetworkTask(Task[ChunkT]):
    """A training of one network, in one phase, on examples in memory."""

    def begin(
        self, config: LandmarkTraining | MotionEncoderTraining, ranks: Ranks, network: nn.Module, examples: Dataset
    ) -> None:
        """Set up the network, its average, optimiser and reader of examples."""
        self.config, self.ranks, self.run, self.optim = config, ranks, config.run, config.optim
        network.to(ranks.device).requires_grad_(False)
        self.networks = {"G": network}
        self.average = copy.deepcopy(network).eval()
        self.phases = lazy_phases("G", None)
        self.optimisers = {"G": build_adam(list(network.parameters()), self.optim, self.optim.generator_lr, None)}
        self.reader = ChunkReader(examples, self.run, ranks)

    def skip_batches(self, count: int) -> None:
        """Open the examples behind `count` batches."""
        self.reader.restart(count)

    def close(self) -> None:
        """Stop the workers that read data."""
        self.reader.close()


def require_data(data: MotionDataConfig) -> None:
    """Check that there is something to learn from.

    Raises:
        UserError: if not.
    """
    if data.path is None and data.clips is None:
        raise UserError("data.path: no data; give a database of generate_lmdb, such as data.path=FFHQ_128_4000")
