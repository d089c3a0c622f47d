"""FLAME model pickles as their authors wrote them: chumpy and scipy values without either package, and damage."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from portrait4d.files.errors import InputFileError
from portrait4d.geometry.flame_assets import HeadAssets, load_flame_assets
from portrait4d.geometry.flame_pickle import read_flame_pickle
from tests.helpers.flame_files import MODEL
from tests.helpers.pickle_cases import damaged_copies, stand_in_modules


def chumpy(name: str, **state: object) -> object:
    """Return an object of the chumpy class `name`."""
    value = CHUMPY[name].__new__(CHUMPY[name])
    value.__dict__.update(state, _dirty_vars=set(), _itr=None, _status="new")
    return value


NAMES = {
    "chumpy__ch": ["Ch"],
    "chumpy__reordering": ["Select", "Reshape", "transpose", "Concatenate"],
    "chumpy__ch_ops": ["add", "subtract", "multiply", "sin"],
}
CHUMPY = {name: type(name, (), {}) for names in NAMES.values() for name in names}


def dump_chumpy(content: object, protocol: int = 2) -> bytes:
    with stand_in_modules(**{module: {name: CHUMPY[name] for name in names} for module, names in NAMES.items()}):
        return pickle.dumps(content, protocol)


def evaluate(tmp_path: Path, value: object, protocol: int = 2) -> np.ndarray:
    (tmp_path / "model.pkl").write_bytes(dump_chumpy({"a": value}, protocol))
    assert not {name for name in sys.modules if name.partition(".")[0] == "chumpy"}
    return read_flame_pickle(tmp_path / "model.pkl", ("a",))["a"]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_model_of_chumpy_and_scipy_objects(folder: Path, standin: dict, assets: HeadAssets, protocol: int) -> None:
    shapes = standin["shapedirs"]
    half = shapes.reshape(-1)
    model = standin | {
        "v_template": chumpy("Ch", x=standin["v_template"]),
        "shapedirs": chumpy(
            "Select", a=chumpy("Ch", x=half), idxs=np.arange(half.size), preferred_shape=(len(shapes), 3, 400)
        ),
        "posedirs": chumpy("Reshape", a=chumpy("Ch", x=standin["posedirs"].reshape(-1, 36)), newshape=(5023, 3, 36)),
        "weights": chumpy("Ch", x=np.asfortranarray(standin["weights"])),
        "J_regressor": scipy.sparse.csc_matrix(standin["J_regressor"]),
        "kintree_table": standin["kintree_table"].astype(np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "J": chumpy("sin", a=1),
    }
    (folder / MODEL).unlink()
    (folder / MODEL).write_bytes(dump_chumpy(model, protocol))
    result = load_flame_assets(folder)
    assert not {name for name in sys.modules if name.partition(".")[0] == "chumpy"}
    assert (result.blend_directions == shapes.astype(np.float32)).all()
    for name in ("template", "pose_directions", "joint_regressor", "skinning_weights", "faces", "parents"):
        assert (getattr(result, name) == getattr(assets, name)).all(), name


A, B = np.arange(12.0).reshape(3, 4), np.arange(4.0) + 1
LEAF = chumpy("Ch", x=A)
EXPRESSIONS: dict[str, tuple[Callable[[], object], np.ndarray]] = {
    "leaf": (lambda: LEAF, A),
    "leaf of a leaf": (lambda: chumpy("Ch", x=LEAF), A),
    "scalar": (lambda: chumpy("Ch", x=2.5), np.array(2.5)),
    "select": (lambda: chumpy("Select", a=LEAF, idxs=np.array([11, 0, 0])), np.array([11.0, 0, 0])),
    "select list": (lambda: chumpy("Select", a=LEAF, idxs=[3, 1], preferred_shape=[2, 1]), np.array([[3.0], [1]])),
    "select shape": (
        lambda: chumpy("Select", a=A, idxs=np.arange(12)[::-1], preferred_shape=(4, 3)),
        A.ravel()[::-1].reshape(4, 3),
    ),
    "reshape": (lambda: chumpy("Reshape", a=LEAF, newshape=(2, 6)), A.reshape(2, 6)),
    "reshape flat": (lambda: chumpy("Reshape", a=LEAF, newshape=12), A.ravel()),
    "transpose": (lambda: chumpy("transpose", a=LEAF), A.T),
    "transpose none": (lambda: chumpy("transpose", a=LEAF, axes=None), A.T),
    "transpose axes": (lambda: chumpy("transpose", a=A[None], axes=(1, 0, 2)), A[:, None]),
    "add": (lambda: chumpy("add", a=LEAF, b=B), A + B),
    "subtract": (lambda: chumpy("subtract", a=LEAF, b=LEAF), A - A),
    "multiply": (lambda: chumpy("multiply", a=chumpy("add", a=LEAF, b=1), b=B), (A + 1) * B),
    "concatenate": (
        lambda: chumpy("Concatenate", axis=1, dterms=["t0", "t1"], t0=LEAF, t1=A),
        np.concatenate([A, A], 1),
    ),
    "own terms": (lambda: chumpy("Concatenate", axis=0, _our_terms=("x", "x"), x=LEAF), np.concatenate([A, A])),
    "csc": (lambda: scipy.sparse.csc_matrix(A), A),
    "csr": (lambda: scipy.sparse.csr_matrix(A), A),
    "coo": (lambda: scipy.sparse.coo_matrix(A), A),
    "csr array": (lambda: scipy.sparse.csr_array(A), A),
    "repeated": (
        lambda: scipy.sparse.coo_matrix((np.ones(3), ([0, 0, 1], [1, 1, 0])), (2, 2)),
        np.array([[0.0, 2], [1, 0]]),
    ),
    "empty": (lambda: scipy.sparse.csc_matrix((3, 2)), np.zeros((3, 2))),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_chumpy_and_scipy_values(tmp_path: Path, name: str) -> None:
    make, wanted = EXPRESSIONS[name]
    for protocol in (0, 1, 2, 4):
        got = evaluate(tmp_path, make(), protocol)
        assert got.shape == wanted.shape and (got == wanted).all()


def test_a_sparse_matrix_in_the_names_of_old_scipy(tmp_path: Path) -> None:
    class csc_matrix:  # noqa: N801
        pass

    matrix = csc_matrix()
    matrix.__dict__ = {"data": np.ones(2), "indices": np.array([1, 0], "i4"), "indptr": np.array([0, 1, 2], "i4")}
    matrix.__dict__["_shape"] = (2, 2)
    with stand_in_modules(scipy__sparse__csc={"csc_matrix": csc_matrix}):
        data = pickle.dumps({"a": matrix}, 2)
    del scipy.sparse.csc.csc_matrix
    (tmp_path / "model.pkl").write_bytes(data)
    assert read_flame_pickle(tmp_path / "model.pkl", ("a",))["a"].tolist() == [[0, 1], [1, 0]]


def looped() -> object:
    value = chumpy("add", b=1)
    value.a = value
    return value


def doubled(levels: int) -> object:
    value = chumpy("Ch", x=np.ones(1000))
    for _ in range(levels):
        value = chumpy("Concatenate", axis=0, dterms=["a", "b"], a=value, b=value)
    return value


def sparse(**changes: object) -> object:
    matrix = scipy.sparse.csc_matrix(A)
    matrix.__dict__.update(changes)
    return matrix


BAD_VALUES: dict[str, tuple[Callable[[], object], str]] = {
    "unknown operation": (lambda: chumpy("sin", a=LEAF), "operation sin is not known"),
    "missing state": (lambda: chumpy("Select", a=LEAF), "idxs"),
    "loop": (looped, "nested without end"),
    "outside": (lambda: chumpy("Select", a=LEAF, idxs=np.array([12])), "out of bounds"),
    "fractions": (lambda: chumpy("Select", a=LEAF, idxs=np.array([1.5])), "integers"),
    "bad reshape": (lambda: chumpy("Reshape", a=LEAF, newshape=(5, 5)), "reshape"),
    "bad shape": (lambda: chumpy("Reshape", a=LEAF, newshape="ab"), "list of integers"),
    "bad axes": (lambda: chumpy("transpose", a=LEAF, axes=(0, 5)), "axis|axes"),
    "bad broadcast": (lambda: chumpy("add", a=LEAF, b=np.ones(3)), "shape"),
    "huge broadcast": (lambda: chumpy("add", a=np.ones((20_000, 1)), b=np.ones(20_000)), "more than 1073741824 bytes"),
    "huge concatenation": (lambda: doubled(25), "more than 1073741824 bytes"),
    "no terms": (lambda: chumpy("Concatenate", axis=0), "malformed concatenation"),
    "text": (lambda: "text", "a str where an array"),
    "none": (lambda: chumpy("Ch", x=None), "NoneType"),
    "sparse outside": (lambda: sparse(indices=np.full(11, 3, "i4")), "outside its shape"),
    "sparse negative": (lambda: sparse(indices=np.full(11, -1, "i4")), "outside its shape"),
    "sparse pointers": (lambda: sparse(indptr=np.array([0, 9, 2, 8, 11], "i4")), "index pointers"),
    "sparse count": (lambda: sparse(indptr=np.array([0, 2, 5, 8, 12], "i4")), "index pointers"),
    "sparse lengths": (lambda: sparse(indices=np.zeros(3, "i4")), "differ in length"),
    "sparse huge": (lambda: sparse(_shape=(1 << 40, 1 << 40)), "more than 1073741824 bytes"),
    "sparse negative shape": (lambda: sparse(_shape=(-3, 4)), "sizes"),
    "sparse three": (lambda: sparse(_shape=(3, 4, 1)), "two dimensions"),
    "sparse kind": (lambda: scipy.sparse.dia_matrix(np.eye(2)), "layout dia"),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_chumpy_and_scipy_values_are_refused(tmp_path: Path, name: str) -> None:
    make, match = BAD_VALUES[name]
    with pytest.raises(InputFileError, match=match) as caught:
        evaluate(tmp_path, make())
    assert "model.pkl: the entry 'a' cannot be read" in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_models_never_fail_in_another_way(tmp_path: Path) -> None:
    expression = chumpy("Concatenate", axis=0, dterms=["t"], t=chumpy("Select", a=LEAF, idxs=np.arange(4)))
    data = dump_chumpy({"a": expression, "b": scipy.sparse.csc_matrix(A), "c": chumpy("multiply", a=A, b=LEAF)})
    path = tmp_path / "model.pkl"
    failures = 0
    for copy in damaged_copies(data, truncations=100, flips=300):
        path.write_bytes(copy)
        try:
            read_flame_pickle(path, ("a", "b", "c"))
        except InputFileError:
            failures += 1
    assert failures >= 100
