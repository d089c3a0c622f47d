"""Run a command that a signal reaches at an exact place, however fast the machine: before the n-th call of a function.

Usage: python run_broken_off.py SIGNAL N FUNCTION COMMAND ARGUMENT...

SIGNAL is a number, FUNCTION is MODULE:NAME or MODULE:CLASS.NAME where its caller looks it up, and COMMAND is a module
with `main`. The processes that the command has started get the signal, too.
"""

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name


def broken_off(function: Callable, call: int, number: int) -> Callable:
    """Return a function that sends its process group a signal before its `call`-th call, counted from 1."""
    calls = 0

    @functools.wraps(function)
    def counted(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            os.killpg(0, number)
        return function(*arguments, **options)

    return counted


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    os.setsid()  # the signal must not reach the tests
    number, call, place, command, *arguments = sys.argv[1:]
    owner, name = re.fullmatch(r"(.+)[:.](\w+)", place).groups()
    owner = resolve_name(owner)
    setattr(owner, name, broken_off(getattr(owner, name), int(call), int(number)))
    sys.argv = [command, *arguments]
    resolve_name(f"{command}:main")()
