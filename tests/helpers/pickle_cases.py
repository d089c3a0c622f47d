"""Makes and reads pickles for tests of the safe reader: calls of anything, stand-ins for packages, damaged copies."""

import random
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from portrait4d.files.errors import InputFileError
from portrait4d.files.safe_pickle import NUMPY_RULES, read_pickle_bytes

INERT = NUMPY_RULES.extended({}, prefixes=("fake_package.",))


def read(data: bytes, **options: object) -> object:
    """Read a stream with the safe reader, by the rules for numpy arrays unless told otherwise."""
    return read_pickle_bytes(data, "some.pkl", options.pop("rules", NUMPY_RULES), **options)


def refused(data: bytes, match: str, **options: object) -> None:
    """Check that a stream is refused in one line that names the file."""
    with pytest.raises(InputFileError, match=match) as caught:
        read(data, **options)
    assert str(caught.value).startswith("some.pkl: ")
    assert "\n" not in str(caught.value)


class Plain:
    """An object with one attribute; `stand_in_modules` gives it a foreign name."""

    def __init__(self) -> None:
        self.value = 1


class Call:
    """Pickles as "call `function` with `args`" (REDUCE), then optionally "set its state" (BUILD)."""

    def __init__(self, function: Callable, args: tuple = (), state: object = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple:
        return self.reduced


@contextmanager
def stand_in_modules(**members: dict[str, Callable]) -> Iterator[None]:
    """Register modules ("package__module" for package.module) with the given members while a pickle is written."""
    names = []
    for key, objects in members.items():
        name = key.replace("__", ".")
        for parent in [name.rsplit(".", depth)[0] for depth in range(name.count("."), -1, -1)]:
            if parent not in sys.modules:
                sys.modules[parent] = types.ModuleType(parent)
                names.append(parent)
        for attribute, value in objects.items():
            value.__module__, value.__qualname__, value.__name__ = name, attribute, attribute
            setattr(sys.modules[name], attribute, value)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def damaged_copies(data: bytes, truncations: int, flips: int) -> Iterator[bytes]:
    """Yield `data` cut at evenly spread points, then with one to three bytes changed at random."""
    for step in range(truncations):
        yield data[: len(data) * step // truncations]
    chance = random.Random(4)
    for _ in range(flips):
        copy = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            copy[chance.randrange(len(copy))] = chance.randrange(256)
        yield bytes(copy)
