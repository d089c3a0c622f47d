"""Threads that read ahead and write behind: order, bounds, errors in their turn, and leaving early."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from portrait4d.files.read_ahead import _Shelf, map_in_order, read_ahead, write_behind

PATIENCE_S = 60
"""For a busy machine; an idle one needs milliseconds."""


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_map_keeps_the_order(workers: int) -> None:
    assert list(map_in_order(lambda value: value * value, range(20), workers)) == [value * value for value in range(20)]


def test_map_takes_no_more_than_it_may() -> None:
    taken = []
    results = map_in_order(str, (taken.append(value) or value for value in range(20)), 2, waiting=3)
    assert next(results) == "0"
    assert taken == [0, 1, 2, 3]
    assert list(results) == [str(value) for value in range(1, 20)]


@pytest.mark.parametrize("workers", [0, 2])
def test_map_raises_in_turn(workers: int) -> None:
    results = map_in_order(lambda value: 1 // (2 - value), range(9), workers)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_reading_ahead_stops_at_the_bound() -> None:
    started: list[int] = []
    reached = threading.Event()

    def items() -> Iterator[int]:
        for value in range(10):
            started.append(value)
            if value == 3:
                reached.set()
            yield value

    with closing(read_ahead(items(), lambda _: 1, 2)) as results:
        assert next(results) == 0
        assert reached.wait(PATIENCE_S)  # 1 and 2 wait, 3 is in hand
        assert started[-1] == 3
        assert list(results) == list(range(1, 10))


def test_a_heavy_item_waits_alone() -> None:
    assert list(read_ahead([5, 1, 7, 7, 1], lambda value: value, 2)) == [5, 1, 7, 7, 1]


def test_errors_come_in_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    results = read_ahead(items(), lambda _: 1, 10)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(results)


def test_leaving_early_ends_the_thread() -> None:
    def endless() -> Iterator[int]:
        value = 0
        while True:
            yield value
            value += 1

    before = set(threading.enumerate())
    with closing(read_ahead(endless(), lambda _: 1, 4)) as results:
        assert next(results) == 0
    assert set(threading.enumerate()) <= before


def test_everything_is_written_in_order_in_another_thread() -> None:
    written: list[int] = []
    threads: set[int] = set()

    def write(value: int) -> None:
        threads.add(threading.get_ident())
        written.append(value)

    with write_behind(write, 2) as put:
        for value in range(30):
            put(value)
    assert written == list(range(30))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_putting_waits_for_room() -> None:
    may_write, handed = threading.Event(), []

    def hand_over() -> None:
        with write_behind(lambda _: may_write.wait(PATIENCE_S), 2) as put:
            for value in range(6):
                put(value)
                handed.append(value)

    thread = threading.Thread(target=hand_over)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S / 2
    while len(handed) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    thread.join(0.1)
    assert handed == [0, 1, 2]  # one is being written, two wait
    may_write.set()
    thread.join(PATIENCE_S)
    assert handed == list(range(6))


def test_a_failed_write_is_raised_and_ends_writing() -> None:
    written: list[int] = []

    def write(value: int) -> None:
        if value == 3:
            raise OSError("disk full")
        written.append(value)

    with pytest.raises(OSError, match="disk full"), write_behind(write, 2) as put:
        for value in range(100):
            put(value)
    assert written == [0, 1, 2]


def test_a_failed_last_write_is_raised() -> None:
    with pytest.raises(ZeroDivisionError), write_behind(lambda value: 1 // value, 4) as put:
        put(0)


def test_an_exception_drops_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, written = threading.Event(), []
    finish = _Shelf.finish

    def write(value: int) -> None:
        may_write.wait(PATIENCE_S)
        written.append(value)

    def let_write_and_finish(shelf: _Shelf) -> None:
        may_write.set()
        finish(shelf)

    monkeypatch.setattr(_Shelf, "finish", let_write_and_finish)  # which comes when the block is left
    with pytest.raises(KeyError), write_behind(write, 5) as put:
        for value in range(4):
            put(value)
        raise KeyError
    assert len(written) <= 1
