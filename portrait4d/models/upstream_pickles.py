"""Read the published network pickles (`network-snapshot-*.pkl`) without running the code they carry.

Source: checkpoint-format.md sections 1 to 6. Every object of the file becomes an inert record
(`files/safe_pickle.py`); this module walks the records of the networks asked for and copies their tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from portrait4d.files.errors import InputFileError
from portrait4d.files.pickle_arrays import PickleRefusedError, ReadBudget
from portrait4d.files.safe_pickle import DEFAULT_MAX_BYTES, NUMPY_RULES, NamedObject, Record, read_pickle
from portrait4d.files.torch_storage import TORCH_FUNCTIONS, TORCH_NAMES, StoredTensor

_INERT_PREFIXES = (
    "torch.nn.",
    "models.",
    "training.",
    "pytorch3d.",
    "torchvision.",
    "timm.",
    "segmentation_models_pytorch.",
    "dnnlib.",
    "torch_utils.",
)
_MAX_DEPTH = 64
_MAX_ENTRIES = 200_000


@dataclass(frozen=True)
class NetworkRecord:
    """What a network pickle says about one network.

    `class_name` names its class, `init_args` and `init_kwargs` the arguments it was built with (plain values; classes
    and dtypes as dotted names). `tensors` maps the dotted name of every parameter and buffer to a plain CPU tensor, in
    the order of the modules: depth first, parameters, then buffers, then children. A module that stands in two places
    gives two names for the same tensor object. `rendering_kwargs` and `neural_rendering_resolution` are the
    generator's attributes of these names. `attributes` maps the dotted names of modules' plain numpy attributes.
    """

    class_name: str
    init_kwargs: dict
    tensors: dict[str, torch.Tensor]
    rendering_kwargs: dict | None
    neural_rendering_resolution: int | None
    attributes: dict[str, np.ndarray]
    init_args: tuple = ()


def read_network_pickle(
    path: str | Path, names: Sequence[str] | None = None, max_bytes: int = DEFAULT_MAX_BYTES
) -> dict[str, NetworkRecord | None]:
    """Read the networks `names` ("G", "D", "G_ema", "D_patch", ...; None: all there are) of a published pickle.

    Entries that the file stores as None stay None. Tensors keep their type (bfloat16 too) and their dense memory order
    and are copies; networks that were not asked for cost no memory. `max_bytes` bounds the logical size of all arrays
    and tensors of the file together.

    Raises:
        InputFileError: the file is missing, damaged, too large, names something that is not allowed, is a legacy
            TensorFlow pickle, or lacks one of `names` (the error lists what there is).
    """
    content = read_pickle(path, _RULES, max_bytes)
    if type(content) is tuple:
        raise InputFileError(path, "is a legacy TensorFlow network pickle", "use a network pickle written by PyTorch")
    if type(content) is not dict or not all(type(key) is str and key.isidentifier() for key in content):
        raise InputFileError(path, "is a pickle, but not of networks (expected a dict with G, D, G_ema)")
    networks = {key: value for key, value in content.items() if value is None or _module_state(value) is not None}
    networks.pop("training_set_kwargs", None)
    missing = [name for name in names or () if name not in networks]
    if missing:
        there = ", ".join(networks) or "no network"
        raise InputFileError(path, f"has no network {', '.join(missing)}; it holds {there}")
    try:
        return {name: _network(networks[name]) for name in (networks if names is None else names)}
    except PickleRefusedError as error:
        raise InputFileError(path, f"refused, and nothing in it was run: {error}") from error


def _persistent_object(budget: ReadBudget, args: tuple) -> Record:
    """Return the record of an object that carries its source text, which is dropped (section 3)."""
    meta = args[0] if len(args) == 1 else None
    if type(meta) is not dict or meta.get("type") != "class" or type(meta.get("state")) is not dict:
        raise PickleRefusedError("a network object is malformed")
    class_name = meta.get("class_name")
    if type(class_name) is not str or not class_name.isidentifier():
        raise PickleRefusedError("a network object has no class name")
    return Record(class_name, state=meta["state"])


def _easy_dict(budget: ReadBudget, args: tuple) -> dict:
    if args:
        raise PickleRefusedError("a group of options is malformed")
    return {}


_RULES = NUMPY_RULES.extended(
    {
        **TORCH_FUNCTIONS,
        "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
        "dnnlib.util.EasyDict": _easy_dict,
    },
    TORCH_NAMES,
    _INERT_PREFIXES,
)


def _network(record: Record | None) -> NetworkRecord | None:
    if record is None:
        return None
    state = _module_state(record) or {}
    walk = _Walk()
    walk.visit(record, "", 0)
    init_kwargs = _PlainValues(walk).convert(state.get("_init_kwargs", {}))
    init_args = _PlainValues(walk).convert(state.get("_init_args", ()))
    rendering_kwargs = _PlainValues(walk).convert(state.get("rendering_kwargs"))
    resolution = state.get("neural_rendering_resolution")
    return NetworkRecord(
        class_name=record.path.rpartition(".")[2],
        init_kwargs=init_kwargs if type(init_kwargs) is dict else {},
        tensors=walk.tensors,
        rendering_kwargs=rendering_kwargs if type(rendering_kwargs) is dict else None,
        neural_rendering_resolution=resolution if type(resolution) is int else None,
        attributes=walk.attributes,
        init_args=init_args if type(init_args) is tuple else (),
    )


def _module_state(value: object) -> dict | None:
    """Return the attributes of a torch module's record, or None if `value` is something else."""
    state = value.state if type(value) is Record else None
    tables = ("_parameters", "_buffers", "_modules")
    is_module = type(state) is dict and all(type(state.get(key)) is dict for key in tables)
    return state if is_module else None


@dataclass
class _Walk:
    """The tensors and numpy attributes of a tree of modules, under their dotted names (section 4)."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    _copies: dict[int, torch.Tensor] = field(default_factory=dict)
    _array_copies: dict[int, np.ndarray] = field(default_factory=dict)
    _visits: int = 0

    def visit(self, module: object, prefix: str, depth: int) -> None:
        """Add everything below `module`, whose names start with `prefix`."""
        state = _module_state(module)
        self._visits += 1
        if state is None:
            raise PickleRefusedError("a module holds something that is no module")
        if depth > _MAX_DEPTH or self._visits > _MAX_ENTRIES:
            raise PickleRefusedError("its modules are nested without end")
        for group in ("_parameters", "_buffers"):
            for name, value in state[group].items():
                if value is not None:
                    self._add(self.tensors, prefix + _checked(name), self.copy(value))
        for name, value in state.items():
            if type(value) is np.ndarray:
                self._add(self.attributes, prefix + _checked(name), self.copy_array(value))
        for name, child in state["_modules"].items():
            if child is not None:
                self.visit(child, f"{prefix}{_checked(name)}.", depth + 1)

    def copy(self, value: object) -> torch.Tensor:
        """Return the torch copy of a stored tensor, the same object each time."""
        if type(value) is not StoredTensor:
            raise PickleRefusedError("a parameter or buffer is no tensor")
        if id(value) not in self._copies:
            array = np.array(value.array, order="K")
            narrow = value.dtype == "bfloat16"
            tensor = torch.from_numpy(array.view(np.int16) if narrow else array)
            self._copies[id(value)] = tensor.view(torch.bfloat16) if narrow else tensor
        return self._copies[id(value)]

    def copy_array(self, array: np.ndarray) -> np.ndarray:
        """Return a writable copy of an array in native byte order, the same object each time."""
        if id(array) not in self._array_copies:
            self._array_copies[id(array)] = array.astype(array.dtype.newbyteorder("="), order="K", copy=True)
        return self._array_copies[id(array)]

    @staticmethod
    def _add(table: dict, name: str, value: object) -> None:
        if name in table or len(table) >= _MAX_ENTRIES:
            raise PickleRefusedError("it has two tensors of one name, or too many")
        table[name] = value


def _checked(name: object) -> str:
    if type(name) is not str or not name or "." in name or len(name) > 200:
        raise PickleRefusedError("a module or tensor has an unusable name")
    return name


@dataclass
class _PlainValues:
    """Turns option values into plain Python: inert names and objects become dotted names, tensors become torch's."""

    walk: _Walk
    _done: dict[int, object] = field(default_factory=dict)
    _depth: int = 0

    def convert(self, value: object) -> object:
        """Return the plain form of a value; shared parts are converted once."""
        if value is None or type(value) in (bool, int, float, complex, str, bytes, slice, set, frozenset):
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise PickleRefusedError("its options are nested without end")
        self._done[id(value)] = result = self._convert(value)
        self._depth -= 1
        return result

    def _convert(self, value: object) -> object:
        if type(value) is dict:
            return {key: self.convert(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.convert(item) for item in value)
        if type(value) is np.ndarray:
            return self.walk.copy_array(value)
        if type(value) is StoredTensor:
            return self.walk.copy(value)
        if type(value) is memoryview:
            return bytes(value)
        if type(value) in (NamedObject, Record):
            return value.path
        raise PickleRefusedError(f"its options hold a {type(value).__name__}")
