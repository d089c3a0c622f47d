"""Ending a run in good order when it is asked to: Ctrl-C, or the SIGTERM of a job scheduler."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

from portrait4d.training.distributed import Ranks

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME_REQUEST_S = 2.0


class StopSignal:
    """Notes a first signal; a later one ends the process as usual. Processes of a run agree on it.

    Terminals and schedulers send a signal to all processes, and the parent passes it on to the first one, too: what
    comes within two seconds is the same request.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.received_at_s: float | None = None
        self.previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def is_set(self) -> bool:
        """Return whether the first process was told to stop; all processes must ask."""
        return bool(self.ranks.share_decision(self.received_at_s is not None))

    def _note(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.received_at_s is None:
            self.received_at_s = now_s
        elif now_s > self.received_at_s + _SAME_REQUEST_S:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}


@contextmanager
def pass_signals_on(process: int) -> Iterator[None]:
    """Let another process, by its id, decide within the block what Ctrl-C and SIGTERM to this one mean."""

    def send(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, send) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
