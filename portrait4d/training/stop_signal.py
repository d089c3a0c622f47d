"""Ending a run in good order when it is asked to: Ctrl-C, or the SIGTERM of a job scheduler."""

import signal
import threading
from types import FrameType, TracebackType

from portrait4d.training.distributed import Ranks

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Notes a first signal; a second one ends the process as usual. Processes of a run agree on it."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.received = False
        self.previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def is_set(self) -> bool:
        """Return whether the first process was told to stop; all processes must ask."""
        return bool(self.ranks.share_decision(self.received))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}
