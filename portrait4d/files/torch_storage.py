"""Read the tensors inside a pickle without torch: the old torch.save format of one storage, and views of it.

Source: checkpoint-format.md section 5. A storage is five small pickles, a count, and raw little-endian data; a tensor
is (storage, offset, sizes, strides) in elements. Strides may be zero: one stored element then stands for any number.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from portrait4d.files.pickle_arrays import NamedObject, PickleRefusedError, ReadBudget, Record
from portrait4d.files.pickle_machine import ByteSource, PickleMachine, PickleRules

_MAGIC = 0x1950A86A20F9469CFC6C
_FORMAT_VERSION = 1001
_STORAGES = {
    "torch.FloatStorage": ("float32", "<f4"),
    "torch.DoubleStorage": ("float64", "<f8"),
    "torch.HalfStorage": ("float16", "<f2"),
    "torch.BFloat16Storage": ("bfloat16", "<u2"),
    "torch.LongStorage": ("int64", "<i8"),
    "torch.IntStorage": ("int32", "<i4"),
    "torch.ShortStorage": ("int16", "<i2"),
    "torch.CharStorage": ("int8", "|i1"),
    "torch.ByteStorage": ("uint8", "|u1"),
    "torch.BoolStorage": ("bool", "|b1"),
    "torch.ComplexFloatStorage": ("complex64", "<c8"),
    "torch.ComplexDoubleStorage": ("complex128", "<c16"),
}
_HEADER_RULES = PickleRules(functions={}, names=frozenset(_STORAGES), persistent_ids=True)
TORCH_NAMES = ("torch.device", *(f"torch.{name}" for name, _ in _STORAGES.values()))
"""Constants and classes of torch that appear as values."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StoredStorage:
    """The data of one storage: torch's name of the type, and the flat read-only elements (bfloat16 as uint16)."""

    dtype: str
    elements: np.ndarray


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StoredTensor:
    """One tensor: torch's name of the type, and a read-only strided view of the file's data (bfloat16 as uint16)."""

    dtype: str
    array: np.ndarray


def read_legacy_storage(data: bytes | memoryview, budget: ReadBudget) -> StoredStorage:
    """Read one storage in the old torch.save format; its opcodes count against `budget`.

    Raises:
        PickleRefusedError: the data are something else, or hold a view (very old files).
        EOFError, ValueError and the other errors of a pickle machine: the data are damaged.
    """
    source = ByteSource(data)
    magic, version, system, described, keys = (PickleMachine(source, _HEADER_RULES, budget).load() for _ in range(5))
    if magic != _MAGIC or version != _FORMAT_VERSION or type(system) is not dict:
        raise PickleRefusedError("a tensor's storage is not in the old torch.save format")
    if system.get("little_endian") is not True:
        raise PickleRefusedError("a tensor's storage is big-endian")
    identifier = described.args[0] if type(described) is Record and described.path == "persistent id" else None
    if type(identifier) is not tuple or len(identifier) != 6 or identifier[0] != "storage" or identifier[5] is not None:
        raise PickleRefusedError("a tensor's storage is described in an unknown way")
    _, storage_type, key, _location, count, _ = identifier
    if type(storage_type) is not NamedObject or type(key) is not str or type(count) is not int or keys != [key]:
        raise PickleRefusedError("a tensor's storage is described in an unknown way")
    name, code = _STORAGES[storage_type.path]
    written = int.from_bytes(source.read(8), "little", signed=True)
    payload = source.rest()
    if not 0 <= count == written or count * np.dtype(code).itemsize != len(payload):
        raise PickleRefusedError("a tensor's storage does not have the size it declares")
    return StoredStorage(name, np.frombuffer(payload, code))


def _load_from_bytes(budget: ReadBudget, args: tuple) -> StoredStorage:
    if len(args) != 1 or type(args[0]) not in (bytes, memoryview):
        raise PickleRefusedError("a tensor's storage is no byte string")
    try:
        return read_legacy_storage(args[0], budget)
    except EOFError as error:
        raise PickleRefusedError("a tensor's storage ends too early") from error


def _rebuild_tensor(budget: ReadBudget, args: tuple) -> StoredTensor:
    storage, offset, sizes, strides = args[:4]
    if type(storage) is not StoredStorage or type(offset) is not int or offset < 0:
        raise PickleRefusedError("a tensor has no storage or a negative offset")
    item_bytes = storage.elements.itemsize
    count = budget.claim(sizes, item_bytes)
    if type(strides) is not tuple or len(strides) != len(sizes):
        raise PickleRefusedError("a tensor's strides do not match its sizes")
    if any(type(stride) is not int or stride < 0 for stride in strides):
        raise PickleRefusedError("a tensor has a negative stride")
    if count == 0:
        return StoredTensor(storage.dtype, np.zeros(sizes, storage.elements.dtype))
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if last >= len(storage.elements):
        raise PickleRefusedError("a tensor reaches past the end of its storage")
    byte_strides = tuple(stride * item_bytes if size > 1 else 0 for size, stride in zip(sizes, strides, strict=True))
    view = np.ndarray(sizes, storage.elements.dtype, storage.elements.data, offset * item_bytes, byte_strides)
    return StoredTensor(storage.dtype, view)


def _rebuild_parameter(budget: ReadBudget, args: tuple) -> StoredTensor:
    if len(args) != 3 or type(args[0]) is not StoredTensor:
        raise PickleRefusedError("a parameter holds no tensor")
    return args[0]


def _size(budget: ReadBudget, args: tuple) -> tuple:
    if args and type(args[0]) not in (tuple, list):
        raise PickleRefusedError("a torch.Size of something other than a list")
    budget.claim_bytes(8 * len(args[0]) if args else 0)
    return tuple(args[0]) if args else ()


TORCH_FUNCTIONS: dict[str, Callable[[ReadBudget, tuple], object]] = {
    "torch.storage._load_from_bytes": _load_from_bytes,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": _size,
}
"""Own versions of what torch's pickles call, by dotted name; tensors become `StoredTensor`."""
