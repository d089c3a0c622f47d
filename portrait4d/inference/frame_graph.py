"""Replay of a frame's work as a CUDA graph: its several hundred kernels start by one call instead of one by one.

A graph belongs to one set of sizes and works on memory of its own. The first frame of some sizes runs plainly, so a
single picture pays for nothing; the second one is recorded, after a few more runs that let libraries choose kernels and
allocate; from then on inputs are copied in, the graph runs, and results are copied out. What belongs to the source is
copied in only when the source changes.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from threading import Lock
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from portrait4d.geometry.head_params import HeadParams
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.ops.backend import exact_convolutions
from portrait4d.rendering.ray_sampling import Jitter

_WARM_UP_RUNS = 3
_MAX_GRAPHS = 4  # each holds the memory of a frame
_logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class DrivenFrame:
    """What changes from frame to frame, for a batch of them.

    Attributes:
        motion: (B, D) motion vectors.
        params: head parameters.
        camera: (B, 25) camera vectors.
        jitter: sample positions; None for the deterministic ones.
        neck_turned: whether some neck is rotated.
        resolution: rays per side; None for the network's own.
    """

    motion: Tensor
    params: HeadParams
    camera: Tensor
    jitter: Jitter | None
    neck_turned: bool
    resolution: int | None


class Recording(Protocol):
    """Recorded work. `replay` does it again, from the same inputs to `outputs`, which it overwrites."""

    outputs: HeadRender

    def replay(self) -> None:
        """Do the work again."""


class CudaRecording:
    """A CUDA graph of some work on the current device."""

    def __init__(self, work: Callable[[], HeadRender]) -> None:
        """Run the work a few times, then record it.

        Raises:
            RuntimeError: if it waits for the device, allocates in ways that cannot be repeated, or fails.
        """
        self._graph = torch.cuda.CUDAGraph()
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with exact_convolutions(current.device, try_kernels=True):
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_RUNS):
                    work()
            current.wait_stream(side)
            # A failed recording leaves its stream the current one, which the outer context mends; thread_local, because
            # other threads load the next frames meanwhile.
            with torch.cuda.stream(current), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self.outputs = work()

    def replay(self) -> None:
        """Do the work again, on the current stream."""
        self._graph.replay()


class FrameGraphs:
    """Does the work of frames by graphs as far as it can, else plainly; a failed recording ends the attempts.

    Threads may share it: graphs have one memory, so one frame at a time is done.
    """

    def __init__(
        self,
        work: Callable[[SourceFeatures, DrivenFrame], HeadRender],
        record: Callable[[Callable[[], HeadRender]], Recording] = CudaRecording,
    ) -> None:
        """Take the work, which must be a pure function of its tensors, and how it is recorded."""
        self._work, self._record = work, record
        self._seen: set[tuple] = set()
        self._graphs: dict[tuple, _Graph] = {}
        self._enabled = True
        self._lock = Lock()
        self.seconds = 0.0  # spent on recording

    @property
    def recorded(self) -> int:
        """How many graphs there are."""
        return len(self._graphs)

    def __call__(self, source: SourceFeatures, frame: DrivenFrame) -> HeadRender:
        """Return what the work returns, in tensors of the caller's own."""
        with self._lock:
            return self._run(source, frame)

    def _run(self, source: SourceFeatures, frame: DrivenFrame) -> HeadRender:
        sizes = tuple(_describe((source, frame)))
        if sizes not in self._graphs:
            if not self._enabled or sizes not in self._seen:
                self._seen.add(sizes)
                return self._work(source, frame)
            if len(self._graphs) == _MAX_GRAPHS:  # the oldest makes room; it must come twice again
                oldest = next(iter(self._graphs))
                del self._graphs[oldest]
                self._seen.discard(oldest)
            graph = self._try_to_record(source, frame)
            if graph is None:
                return self._work(source, frame)
            self._graphs[sizes] = graph
        return self._graphs[sizes].run(source, frame)

    def _try_to_record(self, source: SourceFeatures, frame: DrivenFrame) -> "_Graph | None":
        started = time.perf_counter()
        try:
            graph = _Graph(source, frame, self._work, self._record)
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            _logger.warning("no CUDA graph of a frame (%s); kernels are started one by one", reason)
            self._enabled = False
            return None
        seconds = time.perf_counter() - started
        self.seconds += seconds
        _logger.info("recorded a CUDA graph of a frame in %.2f s", seconds)
        return graph


class _Graph:
    def __init__(
        self,
        source: SourceFeatures,
        frame: DrivenFrame,
        work: Callable[[SourceFeatures, DrivenFrame], HeadRender],
        record: Callable[[Callable[[], HeadRender]], Recording],
    ) -> None:
        self._given = source
        self._source, self._frame = _copied(source), _copied(frame)
        self._recording = record(lambda: work(self._source, self._frame))

    def run(self, source: SourceFeatures, frame: DrivenFrame) -> HeadRender:
        if source is not self._given:
            _copy_into(self._source, source)
            self._given = source  # held, so that no other object takes its identity
        _copy_into(self._frame, frame)
        self._recording.replay()
        return _copied(self._recording.outputs)


def _parts(tree: object) -> list[object] | None:
    """Return the parts of a dataclass or tuple, None of anything else."""
    if is_dataclass(tree):
        return [getattr(tree, field.name) for field in fields(tree)]
    return list(tree) if isinstance(tree, tuple) else None


def _leaves(tree: object) -> Iterator[object]:
    parts = _parts(tree)
    if parts is None:
        yield tree
    else:
        for part in parts:
            yield from _leaves(part)


def _describe(tree: object) -> Iterator[object]:
    """Yield sizes and types of tensors, and everything else as it is."""
    for leaf in _leaves(tree):
        yield (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _copied(tree: T) -> T:
    """Return the same with new memory for its tensors."""
    if isinstance(tree, Tensor):
        return tree.clone()
    parts = _parts(tree)
    if parts is None:
        return tree
    copies = [_copied(part) for part in parts]
    return tuple(copies) if type(tree) is tuple else type(tree)(*copies)


def _copy_into(target: object, values: object) -> None:
    for place, value in zip(_leaves(target), _leaves(values), strict=True):
        if isinstance(place, Tensor):
            place.copy_(value)
