"""Read pickles without importing or running anything they name: the one pickle reader of this project.

Sources: checkpoint-format.md sections 5 and 6, flame.md section 2. Why a file cannot do harm:

- Opcodes. The interpreter's pure-Python unpickler serves with a table of its own (`pickle_machine.py`): the opcodes
  that make plain values are inherited, all that touch objects are rewritten, and EXT*, INST, OBJ, persistent ids and
  out-of-band buffers are refused. The C unpickler cannot do this: it resolves EXT codes from a process-wide cache and
  calls methods of whatever lies on its stack. Published networks of 1-2 GB hold some 10^5 opcodes, so the slower
  machine costs a second; the number of opcodes of a file is bounded. Long byte strings stay views of the mapped file.
- Names. A name in the file is looked up in a table of our own replacements, or becomes an inert `NamedObject` if it
  is listed by name or prefix, or is refused. Nothing on the machine's stack can be called: REDUCE and NEWOBJ accept
  replacements and inert names only.
- Methods. BUILD, SETITEM, APPEND and ADDITEMS accept exactly `Record`, dict, list and set; no attribute is looked up.
- Memory. Arrays and copies count against `max_bytes` before they are made. Dictionary keys and set members are plain
  scalars, so that hashing cannot explode over shared tuples.
"""

import mmap
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from portrait4d.files.errors import InputFileError
from portrait4d.files.pickle_arrays import (
    ARRAY_FUNCTIONS,
    NamedObject,
    ObjectScalar,
    PickleRefusedError,
    ReadBudget,
    Record,
)
from portrait4d.files.pickle_machine import (
    ByteSource,
    PickleMachine,
    PickleRules,
    construct,
    require_scalar,
    store_items,
)

__all__ = [
    "DEFAULT_MAX_BYTES",
    "NUMPY_RULES",
    "NamedObject",
    "PickleRules",
    "Record",
    "read_object_npy",
    "read_pickle",
    "read_pickle_bytes",
]

DEFAULT_MAX_BYTES = 8 * 2**30
"""Bytes that the arrays of one file may take together, views counted at their logical size."""

_NPY_HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    MemoryError,
)


def read_pickle(path: str | Path, rules: PickleRules, max_bytes: int = DEFAULT_MAX_BYTES) -> object:
    """Read the pickle file `path` (protocols 0 to 5) and run nothing that it names.

    Returns plain Python values, numpy arrays (read-only, possibly views of the mapped file) and, for what `rules` lets
    through unread, `Record` and `NamedObject`. Byte strings of 64 KiB and more come as memoryview.

    Raises:
        InputFileError: the file is missing, damaged, no pickle, too large, or names something that is not allowed.
    """
    return read_pickle_bytes(_map_file(Path(path)), path, rules, max_bytes)


def read_object_npy(path: str | Path, rules: PickleRules, max_bytes: int = DEFAULT_MAX_BYTES) -> object:
    """Read the one object inside a `.npy` file of a 0-d object array (what `numpy.save` makes of a dict).

    Returns and raises as `read_pickle`; a file that is no `.npy` file of one object is an InputFileError as well.
    """
    data = _map_file(Path(path))
    version = bytes(data[6:7])
    start = 10 if version == b"\x01" else 12
    if bytes(data[:6]) != b"\x93NUMPY" or version not in (b"\x01", b"\x02", b"\x03") or len(data) < start:
        raise InputFileError(path, "is not a .npy file")
    end = start + int.from_bytes(data[8:start], "little")
    if end > len(data) or bytes(data[start : min(end, start + 256)]).strip() != _NPY_HEADER:
        raise InputFileError(path, "is not a .npy file that holds one Python object (a dict)")
    value = read_pickle_bytes(data[end:], path, replace(rules, object_scalar=True), max_bytes)
    if type(value) is not ObjectScalar:
        raise InputFileError(path, "is damaged: its header promises one Python object, its data hold something else")
    return value.value


def read_pickle_bytes(
    data: bytes | memoryview, path: str | Path, rules: PickleRules, max_bytes: int = DEFAULT_MAX_BYTES
) -> object:
    """Read a pickle that is already in memory; `path` names it in errors. Returns and raises as `read_pickle`."""
    if len(data) == 0:
        raise InputFileError(path, "is empty")
    if bytes(data[:4]) == b"PK\x03\x04":
        raise InputFileError(path, "is a zip archive (a torch.save file?), not a plain pickle")
    try:
        return PickleMachine(ByteSource(data), rules, ReadBudget(max_bytes)).load()
    except PickleRefusedError as error:
        raise InputFileError(path, f"refused, and nothing in it was run: {error}") from error
    except EOFError as error:
        raise InputFileError(path, "is damaged: it ends too early", "copy or download it again") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120]
        raise InputFileError(path, f"is no pickle, or is damaged ({type(error).__name__}: {reason})") from error


def _map_file(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise InputFileError(path, "is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise InputFileError(path, f"cannot be read ({error.strerror or error})") from error


def _call_dict(budget: ReadBudget, args: tuple) -> dict:
    result: dict = {}
    pairs = args[0] if args else []
    if type(pairs) is not list or any(type(pair) not in (list, tuple) for pair in pairs):
        raise PickleRefusedError("it makes a dictionary of something other than pairs")
    budget.claim_bytes(128 * len(pairs))
    for key, value in pairs:
        store_items(result, [key, value])
    return result


def _call_set(kind: type) -> Callable[[ReadBudget, tuple], object]:
    def _call(budget: ReadBudget, args: tuple) -> object:
        values = args[0] if args else []
        if type(values) not in (list, tuple):
            raise PickleRefusedError("it makes a set of something other than a list")
        budget.claim_bytes(128 * len(values))
        return kind(require_scalar(value) for value in values)

    return _call


def _call_slice(budget: ReadBudget, args: tuple) -> slice:
    if not 1 <= len(args) <= 3 or any(type(value) not in (int, type(None)) for value in args):
        raise PickleRefusedError("it makes a slice of something other than integers")
    return slice(*args)


def _new_object(budget: ReadBudget, args: tuple) -> object:
    budget.claim_bytes(8 * len(args))
    return construct(budget, args[0], args[1:], {})


def _reconstructor(budget: ReadBudget, args: tuple) -> object:
    target, base, state = args
    if type(base) is not NamedObject or base.path.partition(".")[2] != "object" or state is not None:
        raise PickleRefusedError("it rebuilds an object on top of a built-in class")
    return construct(budget, target, (), {})


_BUILTINS = ("builtins", "__builtin__")
_COPYREG = ("copyreg", "copy_reg")
NUMPY_RULES = PickleRules(
    functions={
        **ARRAY_FUNCTIONS,
        **{f"{module}.set": _call_set(set) for module in _BUILTINS},
        **{f"{module}.frozenset": _call_set(frozenset) for module in _BUILTINS},
        **{f"{module}.slice": _call_slice for module in _BUILTINS},
        **{f"{module}._reconstructor": _reconstructor for module in _COPYREG},
        **{f"{module}.__newobj__": _new_object for module in _COPYREG},
        "collections.OrderedDict": _call_dict,
    },
    names=frozenset({"builtins.object", "__builtin__.object", "numpy.ndarray"}),
)
"""Plain values, containers and numeric numpy arrays, in the names of Python 2 and 3 and numpy 1 and 2."""
