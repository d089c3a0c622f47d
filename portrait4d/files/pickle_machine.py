"""The pickle machine: runs the opcodes of a pickle, and nothing else. Its rules and its safety: `safe_pickle.py`."""

import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from portrait4d.files.pickle_arrays import (
    NamedObject,
    PendingArray,
    PendingDtype,
    PickleRefusedError,
    ReadBudget,
    Record,
)

_VIEW_BYTES = 2**16
_SCALARS = (str, bytes, int, float, bool, complex, type(None))

Function = Callable[[ReadBudget, tuple], object]
"""A replacement for something a file calls: it gets the budget of arrays and the arguments that the file passes."""


@dataclass(frozen=True)
class PickleRules:
    """What a kind of file may name.

    `functions` maps dotted names to replacements; `names` and `prefixes` list what becomes an inert `NamedObject`, and
    a `Record` when the file calls it. `object_scalar` lets a 0-d object array through, as an `ObjectScalar`.
    `persistent_ids` lets persistent ids through, as a `Record` with path "persistent id".
    """

    functions: Mapping[str, Function]
    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    object_scalar: bool = False
    persistent_ids: bool = False

    def extended(
        self, functions: Mapping[str, Function], names: tuple[str, ...] = (), prefixes: tuple[str, ...] = ()
    ) -> "PickleRules":
        """Return rules that allow more."""
        merged = {**self.functions, **functions}
        return replace(self, functions=merged, names=self.names | set(names), prefixes=self.prefixes + prefixes)


class ByteSource:
    """A buffer read from the front: never past its end, and large pieces as views instead of copies."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._position = 0

    def read(self, count: int) -> bytes | memoryview:
        """Return the next `count` bytes (a memoryview from 64 KiB on). Raises EOFError if there are fewer."""
        end = self._position + count
        if end > len(self._data):
            raise EOFError
        piece = self._data[self._position : end]
        self._position = end
        return piece if count >= _VIEW_BYTES else bytes(piece)

    def readline(self) -> bytes:
        """Return the bytes up to and with the next line feed. Raises EOFError if there is none."""
        end = self._position
        while chunk := bytes(self._data[end : end + 4096]):
            found = chunk.find(b"\n")
            if found >= 0:
                return bytes(self.read(end + found + 1 - self._position))
            end += len(chunk)
        raise EOFError

    def rest(self) -> memoryview:
        """Return everything not yet read."""
        return self._data[self._position :]


@dataclass(frozen=True, slots=True)
class _Replacement:
    function: Function


class PickleMachine(pickle._Unpickler):
    """Reads one pickle from `source` with `load()`; raises many things, which `safe_pickle` turns into one."""

    def __init__(self, source: ByteSource, rules: PickleRules, budget: ReadBudget) -> None:
        super().__init__(source, encoding="latin-1")
        self.rules = rules
        self.budget = budget
        self.dispatch = _Opcodes(budget)

    def find_class(self, module: str, name: str) -> _Replacement | NamedObject:
        """Return what stands for a name. Imports nothing. Raises PickleRefusedError for a name that is not allowed."""
        path = f"{module}.{name}"
        if path in self.rules.functions:
            return _Replacement(self.rules.functions[path])
        inert = path in self.rules.names or path.startswith(self.rules.prefixes)
        if inert and all(part.isidentifier() for part in path.split(".")):
            return NamedObject(path)
        raise PickleRefusedError(f"it names {path[:100]!r}, which files of this kind have no need of")

    def persistent_load(self, pid: object) -> Record:
        """Return a record of a persistent id if the rules allow them."""
        if not self.rules.persistent_ids:
            raise PickleRefusedError("it holds a persistent id")
        return Record("persistent id", (pid,))

    def _decode_string(self, value: bytes | memoryview) -> str:
        return str(value, "latin-1")


class _Opcodes:
    """The handlers of the allowed opcodes, counted as they are looked up."""

    def __init__(self, budget: ReadBudget) -> None:
        self._budget = budget

    def __getitem__(self, code: int) -> Callable[[PickleMachine], None]:
        self._budget.step()
        handler = _HANDLERS.get(code)
        if handler is not None:
            return handler
        if code in _REFUSED:
            raise PickleRefusedError(f"it uses the opcode {_REFUSED[code]}")
        raise ValueError(f"unknown opcode {code}")


def require_scalar(value: object) -> object:
    """Return `value` if it may be a dictionary key or set member, else raise PickleRefusedError."""
    if type(value) not in _SCALARS:
        raise PickleRefusedError(f"a dictionary key or set member is a {type(value).__name__}, expected a plain scalar")
    return value


def construct(budget: ReadBudget, target: object, args: object, kwargs: object) -> object:
    """Return what calling `target` stands for: the result of its replacement, or a Record of the call."""
    if type(args) is not tuple or type(kwargs) is not dict:
        raise PickleRefusedError("it calls something with malformed arguments")
    if type(target) is NamedObject:
        return Record(target.path, args, kwargs)
    if type(target) is _Replacement and not kwargs:
        return target.function(budget, args)
    raise PickleRefusedError(f"it calls a {type(target).__name__}")


def store_items(target: object, pairs: list) -> None:
    """Store keys and values, alternating in `pairs`, into a dict or a Record."""
    if len(pairs) % 2:
        raise ValueError("a key without a value")
    both = zip(pairs[::2], pairs[1::2], strict=True)
    if type(target) is dict:
        target.update((require_scalar(key), value) for key, value in both)
    elif type(target) is Record:
        target.items.extend(both)
    else:
        raise PickleRefusedError(f"it stores items into a {type(target).__name__}")


def _reduce(machine: PickleMachine) -> None:
    args = machine.stack.pop()
    machine.stack[-1] = construct(machine.budget, machine.stack[-1], args, {})


def _newobj_ex(machine: PickleMachine) -> None:
    kwargs, args = machine.stack.pop(), machine.stack.pop()
    machine.stack[-1] = construct(machine.budget, machine.stack[-1], args, kwargs)


def _build(machine: PickleMachine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if type(target) is Record:
        target.state = state
    elif type(target) is PendingArray:
        machine.stack[-1] = target.build(machine.budget, state, machine.rules.object_scalar)
    elif type(target) is PendingDtype:
        target.build(state)
    elif type(target) is not dict:  # attributes of a dictionary say nothing about its content
        raise PickleRefusedError(f"it sets attributes of a {type(target).__name__}")


def _setitem(machine: PickleMachine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    store_items(machine.stack[-1], [key, value])


def _setitems(machine: PickleMachine) -> None:
    pairs = machine.pop_mark()
    store_items(machine.stack[-1], pairs)


def _dict(machine: PickleMachine) -> None:
    pairs, result = machine.pop_mark(), {}
    store_items(result, pairs)
    machine.append(result)


def _extend(target: object, values: list) -> None:
    if type(target) is Record:
        target = target.values
    if type(target) is not list:
        raise PickleRefusedError(f"it appends to a {type(target).__name__}")
    target.extend(values)


def _append(machine: PickleMachine) -> None:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])


def _appends(machine: PickleMachine) -> None:
    values = machine.pop_mark()
    _extend(machine.stack[-1], values)


def _additems(machine: PickleMachine) -> None:
    values = machine.pop_mark()
    if type(machine.stack[-1]) is not set:
        raise PickleRefusedError(f"it adds members to a {type(machine.stack[-1]).__name__}")
    machine.stack[-1].update(require_scalar(value) for value in values)


def _frozenset(machine: PickleMachine) -> None:
    values = machine.pop_mark()  # gives the stack, and so `append`, another list
    machine.append(frozenset(require_scalar(value) for value in values))


def _text_integer(machine: PickleMachine) -> None:
    text = machine.readline().strip()
    if len(text) > 40:
        raise ValueError("an integer of too many digits")
    machine.append(text == b"01" if text in (b"00", b"01") else int(text.rstrip(b"L")))


def _bytearray(machine: PickleMachine) -> None:
    (count,) = struct.unpack("<Q", machine.read(8))
    machine.append(machine.read(count))


def _then_settle(code: bytes) -> Callable[[PickleMachine], None]:
    """Return the handler of a memo look-up that gives the finished array instead of its first, empty stage."""
    look_up = pickle._Unpickler.dispatch[code[0]]

    def _handler(machine: PickleMachine) -> None:
        look_up(machine)
        value = machine.stack[-1]
        if type(value) is PendingArray and value.result is not None:
            machine.stack[-1] = value.result

    return _handler


_INHERITED = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 FLOAT BINFLOAT STRING "
    "BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST EMPTY_DICT EMPTY_SET GLOBAL STACK_GLOBAL PUT BINPUT "
    "LONG_BINPUT MEMOIZE BINPERSID"
)
_REWRITTEN = {
    pickle.REDUCE: _reduce,
    pickle.NEWOBJ: _reduce,
    pickle.NEWOBJ_EX: _newobj_ex,
    pickle.BUILD: _build,
    pickle.SETITEM: _setitem,
    pickle.SETITEMS: _setitems,
    pickle.DICT: _dict,
    pickle.APPEND: _append,
    pickle.APPENDS: _appends,
    pickle.ADDITEMS: _additems,
    pickle.FROZENSET: _frozenset,
    pickle.INT: _text_integer,
    pickle.LONG: _text_integer,
    pickle.BYTEARRAY8: _bytearray,
    pickle.GET: _then_settle(pickle.GET),
    pickle.BINGET: _then_settle(pickle.BINGET),
    pickle.LONG_BINGET: _then_settle(pickle.LONG_BINGET),
}
_HANDLERS: dict[int, Callable[[PickleMachine], None]] = {
    getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _INHERITED.split()
} | {code[0]: handler for code, handler in _REWRITTEN.items()}
_REFUSED = {
    getattr(pickle, name)[0]: name
    for name in ["INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "LONG4", "NEXT_BUFFER", "READONLY_BUFFER"]
}
