"""Threads that make the next items while the current one is used, or put the last ones away; order and memory kept."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")


def map_in_order(
    function: Callable[[S], T], items: Iterable[S], workers: int, waiting: int | None = None
) -> Iterator[T]:
    """Map with threads and yield the results in order.

    Args:
        function: called in the threads; what it raises is raised when its turn comes.
        items: taken in the caller's thread, as late as possible.
        workers: threads; below 1 everything happens in the caller's.
        waiting: most results that wait to be taken, those being made included; None for two per worker.
    """
    if workers < 1:
        yield from map(function, items)
        return
    most = 2 * workers if waiting is None else waiting
    futures: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                futures.append(pool.submit(function, item))
                del item
                if len(futures) > most:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()


def read_ahead(items: Iterable[T], weigh: Callable[[T], float], most: float) -> Iterator[T]:
    """Run an iterable in a thread of its own and yield its items in order.

    Close the iterator (`contextlib.closing`) where it may be left before its end: the thread waits for that.

    Args:
        items: what it raises is raised when its turn comes.
        weigh: weight of an item.
        most: what the waiting items may weigh together; an item that is heavier waits alone. One more is in the making.
    """
    shelf: _Shelf[T] = _Shelf(most)

    def fill() -> None:
        try:
            for item in items:
                if not shelf.put(item, weigh(item)):
                    break
                del item
        finally:
            shelf.finish()

    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(fill)
        try:
            while shelf.wait():
                yield shelf.take()
            filling.result()
        finally:
            shelf.close()


@contextmanager
def write_behind(write: Callable[[T], object], waiting: int) -> Iterator[Callable[[T], None]]:
    """Give a function that hands items to a thread of its own, which writes them one after the other.

    The function waits while `waiting` items wait, and raises what an earlier write raised, after which nothing is
    written any more. Leaving the context waits until everything is written, and raises likewise; leaving it by an
    exception drops what waits.

    Args:
        write: called in the thread, in the order of the items.
        waiting: most items that wait, at least 1; one more is being written.
    """
    shelf: _Shelf[T] = _Shelf(waiting)
    abandoned = threading.Event()

    def drain() -> None:
        try:
            while shelf.wait():
                item = shelf.take()
                if not abandoned.is_set():
                    write(item)
                del item
        finally:
            shelf.close()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(drain)

        def put(item: T) -> None:
            if not shelf.put(item, 1):
                writing.result()

        try:
            yield put
        except BaseException:
            abandoned.set()
            raise
        finally:
            shelf.finish()
        writing.result()


class _Shelf(Generic[T]):
    """Weighed items on their way from one thread to another."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._items: deque[tuple[T, float]] = deque()
        self._weight = 0.0
        self._finished = self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T, weight: float) -> bool:
        """Wait for room and add an item; False if nobody will take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._items or self._weight + weight <= self._most)
            if not self._closed:
                self._items.append((item, weight))
                self._weight += weight
                self._changed.notify_all()
            return not self._closed

    def finish(self) -> None:
        """Say that nothing more will be put."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait for an item; False if none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._finished)
            return bool(self._items)

    def take(self) -> T:
        """Take the first item."""
        with self._changed:
            item, weight = self._items.popleft()
            self._weight -= weight
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Say that nothing more will be taken."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
