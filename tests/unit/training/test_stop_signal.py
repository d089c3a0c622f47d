"""Being asked to stop: one request is noted however often it arrives, a later one ends the process."""

import math
import os
import signal
import subprocess
import sys

import pytest

from portrait4d.training import stop_signal
from portrait4d.training.distributed import Ranks
from portrait4d.training.stop_signal import StopSignal, pass_signals_on


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_even_if_it_comes_from_two_sides(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_signal, "_SAME_REQUEST_S", math.inf)  # however slow this machine is
    before = signal.getsignal(number)
    with StopSignal(Ranks()) as stop:
        assert not stop.is_set()
        send(number)
        send(number)
        assert stop.is_set()
    assert signal.getsignal(number) is before


def test_a_later_signal_ends_the_process_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_signal, "_SAME_REQUEST_S", -1.0)  # whatever comes second is later
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell start without it
    try:
        with pytest.raises(KeyboardInterrupt), StopSignal(Ranks()):
            send(signal.SIGINT)
            send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_signals_are_passed_on_to_the_process_that_decides() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"]) as other:
        with pass_signals_on(other.pid):
            send(signal.SIGTERM)
            assert other.wait(60) == -signal.SIGTERM
            send(signal.SIGTERM)  # it has ended: nothing happens
        assert signal.getsignal(signal.SIGTERM) is before
