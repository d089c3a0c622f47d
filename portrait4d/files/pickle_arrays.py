"""What the pickle reader makes of a file's objects: inert records, and numeric numpy arrays checked before they exist.

Sources: checkpoint-format.md section 5 ("NumPy values") and section 6, flame.md section 2.
"""

import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


class PickleRefusedError(pickle.UnpicklingError):
    """A file asks for something that its reader does not allow; the text completes "refused, because ..."."""


class ReadBudget:
    """What one file may still take: bytes for arrays and copies, claimed before they are made, and opcodes."""

    def __init__(self, max_bytes: int, max_steps: int = 5_000_000) -> None:
        self.max_bytes = max_bytes
        self._bytes_left = max_bytes
        self._steps_left = max_steps

    def step(self) -> None:
        """Count one opcode. Raises PickleRefusedError when the file has too many (a network has some 10^5)."""
        self._steps_left -= 1
        if self._steps_left < 0:
            raise PickleRefusedError("it takes too many steps to read")

    def claim_bytes(self, count: int) -> None:
        """Take `count` bytes off. Raises PickleRefusedError if fewer are left."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise PickleRefusedError(f"it declares arrays of more than {self.max_bytes} bytes together")

    def claim(self, shape: object, item_bytes: int) -> int:
        """Return the number of elements of an array of `shape` after taking its bytes off the budget.

        Raises:
            PickleRefusedError: `shape` is no tuple of at most 32 sizes >= 0, or the budget does not hold the array.
        """
        if type(shape) is not tuple or len(shape) > 32 or any(type(size) is not int or size < 0 for size in shape):
            raise PickleRefusedError("an array's shape is not a tuple of sizes")
        count = math.prod(shape)
        self.claim_bytes(count * item_bytes)
        return count


@dataclass(frozen=True, slots=True)
class NamedObject:
    """A class, function or constant that a file names; `path` is its dotted name and there is nothing behind it."""

    path: str


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """An object that a file describes and that is never built.

    `path` is the dotted name of its class, `args` and `kwargs` what its constructor would get, `state` its attributes
    (mostly a dict), `items` (key, value pairs) and `values` what was stored into it as into a dict and a list.
    """

    path: str
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    state: object = None
    items: list = field(default_factory=list)
    values: list = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ObjectScalar:
    """The object inside a 0-d array of dtype object."""

    value: object


_NUMERIC = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")
_OBJECT = re.compile(r"\|?O[48]?")


class PendingDtype:
    """A numpy dtype in the making: a numeric type code, and a byte order that arrives later (BUILD)."""

    def __init__(self, code: object) -> None:
        is_text = type(code) is str
        self.is_object = is_text and _OBJECT.fullmatch(code) is not None
        if not self.is_object and not (is_text and _NUMERIC.fullmatch(code)):
            raise PickleRefusedError("it holds a numpy array of a type that is not numeric")
        self._code = "V1" if self.is_object else code

    def build(self, state: object) -> None:
        """Take the byte order from the dtype's state (version, order, subtype, names, fields, sizes and flags)."""
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "=", "|"):
            raise PickleRefusedError("a numpy dtype is malformed")
        if any(part is not None for part in state[2:5]):
            raise PickleRefusedError("it holds a structured numpy array")
        if not self.is_object:
            self._code = np.dtype(self._code).newbyteorder(state[1]).str

    def numeric(self) -> np.dtype:
        """Return the dtype. Raises PickleRefusedError for dtype object."""
        if self.is_object:
            raise PickleRefusedError("it holds a numpy array of Python objects")
        return np.dtype(self._code)


class PendingArray:
    """A numpy array in the making: `_reconstruct` makes it empty, BUILD fills it; `result` is the finished array."""

    def __init__(self) -> None:
        self.result: np.ndarray | ObjectScalar | None = None

    def build(self, budget: ReadBudget, state: object, object_scalar: bool) -> np.ndarray | ObjectScalar:
        """Return the array of a state ([version,] shape, dtype, fortran order, bytes or list of objects)."""
        if type(state) is not tuple or len(state) not in (4, 5):
            raise PickleRefusedError("a numpy array is malformed")
        shape, dtype, fortran, payload = state[-4:]
        if type(dtype) is not PendingDtype:
            raise PickleRefusedError("a numpy array has no dtype")
        if dtype.is_object and object_scalar and shape == () and type(payload) is list and len(payload) == 1:
            self.result = ObjectScalar(payload[0])
        else:
            self.result = _array(budget, shape, dtype, "F" if fortran is True or fortran == 1 else "C", payload)
        return self.result


def _array(budget: ReadBudget, shape: object, dtype: PendingDtype, order: str, payload: object) -> np.ndarray:
    """Return the read-only array over `payload` (bytes, a view, or Python 2's text), whose size must be exact."""
    kind = dtype.numeric()
    if type(payload) not in (bytes, memoryview, str):
        raise PickleRefusedError("a numpy array has no bytes")
    if budget.claim(shape, kind.itemsize) * kind.itemsize != len(payload):
        raise PickleRefusedError("a numpy array's bytes do not match its shape")
    data = payload.encode("latin-1") if type(payload) is str else payload
    return np.frombuffer(data, kind).reshape(shape, order=order)


def _reconstruct(budget: ReadBudget, args: tuple) -> PendingArray:
    if len(args) != 3 or args[0] != NamedObject("numpy.ndarray"):
        raise PickleRefusedError("it rebuilds a numpy array of a special class")
    return PendingArray()


def _from_buffer(budget: ReadBudget, args: tuple) -> np.ndarray:
    data, dtype, shape, order = args[:4]
    axes = args[4] if len(args) > 4 else None
    if type(dtype) is not PendingDtype or order not in ("C", "F", "K"):
        raise PickleRefusedError("a numpy array is malformed")
    array = _array(budget, shape, dtype, "F" if order == "F" else "C", data)
    return array if axes is None or order != "K" else array.transpose(axes)


def _scalar(budget: ReadBudget, args: tuple) -> complex | float | int | bool:
    dtype, payload = args
    if type(dtype) is not PendingDtype:
        raise PickleRefusedError("a numpy scalar has no dtype")
    return _array(budget, (), dtype, "C", payload).item()


def _encode(budget: ReadBudget, args: tuple) -> bytes:
    text, encoding = args
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise PickleRefusedError("it encodes text to something other than latin-1")
    budget.claim_bytes(len(text))
    return text.encode("latin-1")


def _call_bytes(budget: ReadBudget, args: tuple) -> bytes | memoryview:
    if len(args) == 2:
        return _encode(budget, args)
    if args and (len(args) != 1 or type(args[0]) not in (bytes, memoryview)):
        raise PickleRefusedError("it makes bytes of something other than bytes")
    return args[0] if args else b""


_CORES = ("numpy.core", "numpy._core")
_BUILTINS = ("builtins", "__builtin__")
ARRAY_FUNCTIONS: dict[str, Callable[[ReadBudget, tuple], object]] = {
    **{f"{core}.multiarray._reconstruct": _reconstruct for core in _CORES},
    **{f"{core}.multiarray.scalar": _scalar for core in _CORES},
    **{f"{core}.numeric._frombuffer": _from_buffer for core in _CORES},
    **{f"{module}.{name}": _call_bytes for module in _BUILTINS for name in ("bytes", "bytearray")},
    "numpy.dtype": lambda budget, args: PendingDtype(args[0]),
    "_codecs.encode": _encode,
}
"""Own versions of what numpy's pickles call, by dotted name; each gets the budget and the file's arguments."""
