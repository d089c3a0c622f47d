"""Read FLAME's model pickle into plain numpy arrays, without chumpy and scipy and without running code.

Source: flame.md section 2. Values of the file are arrays, chumpy objects (a small language of lazy array operations,
evaluated here from their stored state) or scipy sparse matrices (made dense here).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from portrait4d.files.errors import InputFileError
from portrait4d.files.pickle_arrays import PickleRefusedError, ReadBudget
from portrait4d.files.safe_pickle import NUMPY_RULES, Record, read_object_npy, read_pickle

_RULES = NUMPY_RULES.extended({}, prefixes=("chumpy.", "scipy.sparse."))
_MAX_BYTES = 2**30
_MAX_DEPTH = 32
_ITEM_BYTES = 16  # the widest element


def read_flame_pickle(path: str | Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read the arrays `keys` of a FLAME model file. Types and shapes are as stored; sparse matrices become dense.

    Raises:
        InputFileError: the file is missing, damaged or no dict, names something that is not allowed, lacks a key, or a
            value uses a chumpy operation outside the table of flame.md section 2.
    """
    content = read_pickle(path, _RULES)
    if type(content) is not dict:
        raise InputFileError(path, "is a pickle, but not of a FLAME model (expected a dict)")
    return _evaluate_entries(path, content, keys, "expected the FLAME 2020 'generic_model.pkl'")


def read_flame_npy(path: str | Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read the arrays `keys` of a dict in a `.npy` file, whose values may be chumpy objects, as `read_flame_pickle`."""
    content = read_object_npy(path, _RULES)
    if type(content) is not dict:
        raise InputFileError(path, "holds one object, but no dict of arrays")
    return _evaluate_entries(path, content, keys, "make it again")


def _evaluate_entries(path: str | Path, content: dict, keys: tuple[str, ...], remedy: str) -> dict[str, np.ndarray]:
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputFileError(path, f"lacks {', '.join(missing)}", remedy)
    evaluator = _Evaluator(ReadBudget(_MAX_BYTES))
    arrays = {}
    for key in keys:
        try:
            arrays[key] = evaluator.array(content[key])
        except (PickleRefusedError, ValueError, LookupError, TypeError, OverflowError) as error:
            raise InputFileError(path, f"the entry '{key}' cannot be read ({error})") from error
    return arrays


@dataclass
class _Evaluator:
    """Turns stored values into arrays; shared parts are evaluated once, results count against a budget."""

    budget: ReadBudget
    done: dict[int, np.ndarray] = field(default_factory=dict)
    depth: int = 0

    def array(self, value: object) -> np.ndarray:
        """Return the array that a stored value stands for."""
        if type(value) is np.ndarray:
            return value
        if type(value) in (int, float):
            return np.asarray(value)
        if type(value) is not Record or type(value.state) is not dict:
            raise ValueError(f"a {type(value).__name__} where an array was expected")
        if id(value) not in self.done:
            self.depth += 1
            if self.depth > _MAX_DEPTH:
                raise ValueError("chumpy operations nested without end")
            self.done[id(value)] = self._evaluate(value.path, value.state)
            self.depth -= 1
        return self.done[id(value)]

    def _evaluate(self, path: str, state: dict) -> np.ndarray:
        package, _, name = path.rpartition(".")
        if package.startswith("scipy."):
            return self._dense(name.partition("_")[0], state)
        if name == "Ch":
            return self.array(state["x"])
        if name == "Concatenate":
            return self._concatenate(state)
        if name in _ARITHMETIC:
            left, right = self.array(state["a"]), self.array(state["b"])
            self.budget.claim(np.broadcast_shapes(left.shape, right.shape), _ITEM_BYTES)
            return _ARITHMETIC[name](left, right)
        if name == "Select":
            return self._select(state)
        if name == "Reshape":
            return self.array(state["a"]).reshape(_sizes(state["newshape"]))
        if name == "transpose":
            axes = None if state.get("axes") is None else _sizes(state["axes"])
            source = self.array(state["a"])
            self.budget.claim(source.shape, _ITEM_BYTES)
            return np.ascontiguousarray(source.transpose(axes))
        raise ValueError(f"the chumpy operation {name} is not known")

    def _select(self, state: dict) -> np.ndarray:
        index = state["idxs"] if type(state["idxs"]) is np.ndarray else np.array(_sizes(state["idxs"]), np.int64)
        if index.dtype.kind not in "iu":
            raise ValueError("a selection by something other than integers")
        self.budget.claim(index.shape, _ITEM_BYTES)
        chosen = self.array(state["a"]).ravel()[index.astype(np.int64)]
        shape = state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(_sizes(shape))

    def _concatenate(self, state: dict) -> np.ndarray:
        names, axis = state.get("dterms") or state.get("_our_terms"), state.get("axis", 0)
        if type(names) not in (list, tuple) or not all(type(name) is str for name in names) or type(axis) is not int:
            raise ValueError("a malformed concatenation")
        terms = {name: self.array(state[name]) for name in dict.fromkeys(names)}
        self.budget.claim((sum(terms[name].size for name in names),), _ITEM_BYTES)
        return np.concatenate([terms[name] for name in names], axis=axis)

    def _dense(self, layout: str, state: dict) -> np.ndarray:
        """Return the (rows, columns) array of a scipy matrix of layout "csc", "csr" or "coo"; duplicates add up."""
        shape = _sizes(state.get("_shape", state.get("shape")))
        if len(shape) != 2:
            raise ValueError("a sparse matrix that has not two dimensions")
        self.budget.claim(shape, _ITEM_BYTES)
        data = self.array(state["data"])
        if layout == "coo":
            rows, columns = state["coords"] if "coords" in state else (state["row"], state["col"])
        elif layout in ("csc", "csr"):
            starts = self.array(state["indptr"]).astype(np.int64)
            major = shape[layout == "csc"]
            if starts.shape != (major + 1,) or starts[0] != 0 or starts[-1] != data.size or (np.diff(starts) < 0).any():
                raise ValueError("a sparse matrix whose index pointers are damaged")
            slow, fast = np.repeat(np.arange(major), np.diff(starts)), state["indices"]
            rows, columns = (slow, fast) if layout == "csr" else (fast, slow)
        else:
            raise ValueError(f"the sparse layout {layout} is not known")
        rows, columns = self.array(rows).astype(np.int64), self.array(columns).astype(np.int64)
        if not data.shape == rows.shape == columns.shape == (data.size,):
            raise ValueError("a sparse matrix whose parts differ in length")
        if data.size and (min(rows.min(), columns.min()) < 0 or rows.max() >= shape[0] or columns.max() >= shape[1]):
            raise ValueError("a sparse matrix with an index outside its shape")
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (rows, columns), data)
        return dense


def _sizes(value: object) -> tuple[int, ...]:
    sizes = value.tolist() if type(value) is np.ndarray else value
    if type(sizes) is int:
        sizes = (sizes,)
    if type(sizes) not in (tuple, list) or any(type(size) is not int for size in sizes):
        raise ValueError("a shape or index that is not a list of integers")
    return tuple(sizes)


_ARITHMETIC = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply}
