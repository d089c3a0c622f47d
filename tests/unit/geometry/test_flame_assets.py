"""FLAME files: the stand-in folder end to end, chumpy and scipy pickles without either package, errors, damage."""

import os
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.geometry.flame_assets import HeadAssets, find_flame_folder, load_flame_assets
from portrait4d.geometry.flame_pickle import read_flame_pickle
from tests.golden.standin import standin_arrays
from tests.helpers.pickle_cases import Call, damaged_copies, stand_in_modules
from tests.helpers.standin_head import standin_table, write_standin_folder

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "flame"
needs_real_tables = pytest.mark.skipif(not REAL.is_dir(), reason=f"the published FLAME tables are not at {REAL}")
MODEL = "geometry/generic_model.pkl"


@pytest.fixture(scope="module")
def standin() -> dict[str, np.ndarray]:
    return standin_arrays()


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin_folder(tmp_path_factory.mktemp("flame"))


@pytest.fixture(scope="module")
def assets(shared_folder: Path) -> HeadAssets:
    return load_flame_assets(shared_folder)


@pytest.fixture(scope="module")
def light_folder(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Path:
    """The stand-in folder with a model that is quick to read."""
    folder = tmp_path_factory.mktemp("light") / "FLAME"
    shutil.copytree(shared_folder, folder, ignore=shutil.ignore_patterns("generic_model.pkl"))
    write_pickle(folder / MODEL, plain_model(5023), 4)
    return folder


@pytest.fixture
def folder(tmp_path: Path, light_folder: Path) -> Path:
    """A folder of links to the light one; a test replaces what it spoils."""
    copy = tmp_path / "FLAME"
    shutil.copytree(light_folder, copy, copy_function=lambda source, target: os.symlink(source, target))
    return copy


def plain_model(count: int) -> dict[str, np.ndarray]:
    """Return a model of `count` vertices with zero directions."""
    return {
        "f": np.array([[0, 1, 2]] * 9938),
        "v_template": np.zeros((count, 3)),
        "shapedirs": np.zeros((count, 3, 400), np.float16),
        "posedirs": np.zeros((count, 3, 36), np.float16),
        "J_regressor": np.zeros((5, count)),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "weights": np.zeros((count, 5)),
    }


def write_npy(path: Path, content: object) -> None:
    path.unlink(missing_ok=True)
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


def put_back(light_folder: Path, folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(light_folder / name)


def write_pickle(path: Path, content: object, protocol: int = 2) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))


def test_the_model_arrays(assets: HeadAssets, standin: dict[str, np.ndarray]) -> None:
    wanted = {
        "template": "v_template",
        "blend_directions": "shapedirs",
        "pose_directions": "posedirs",
        "joint_regressor": "J_regressor",
        "skinning_weights": "weights",
    }
    for field, key in wanted.items():
        got = getattr(assets, field)
        assert got.dtype == np.float32 and (got == standin[key].astype(np.float32)).all(), field
    assert assets.faces.dtype == np.int64 and (assets.faces == standin["f"]).all()
    assert assets.parents.tolist() == [-1, 0, 1, 1, 1]
    assert assets.name == "flame" and assets.shape_count == 300


def test_shapes_and_types(assets: HeadAssets) -> None:
    shapes = {
        "template": (5023, 3),
        "blend_directions": (5023, 3, 400),
        "pose_directions": (5023, 3, 36),
        "joint_regressor": (5, 5023),
        "parents": (5,),
        "skinning_weights": (5023, 5),
        "faces": (9938, 3),
        "landmark_faces": (70,),
        "landmark_barycentrics": (70, 3),
        "canonical_shape": (300,),
        "canonical_expression": (100,),
        "canonical_pose": (6,),
        "coarse_indices": (620, 3),
        "coarse_barycentrics": (620, 3),
        "coarse_faces": (1228, 3),
        "vertex_neighbours": (5023, 10),
    }
    arrays = {field.name: getattr(assets, field.name) for field in fields(assets)}
    regions = arrays.pop("regions")
    assert {name: array.shape for name, array in arrays.items() if isinstance(array, np.ndarray)} == shapes
    for array in [arrays[name] for name in shapes] + list(regions.values()):
        assert array.dtype in (np.float32, np.int64)
        assert array.flags.c_contiguous and array.flags.writeable


def test_the_small_tables(assets: HeadAssets) -> None:
    landmarks, coarse, info = standin_table("lmk_"), standin_table("simple_"), standin_table("region_")
    assert (assets.landmark_faces == landmarks["full_lmk_faces_idx"][0]).all()
    assert (assets.landmark_barycentrics == landmarks["full_lmk_bary_coords"][0].astype(np.float32)).all()
    assert (assets.coarse_indices == coarse["idxs"]).all() and (assets.coarse_faces == coarse["faces"]).all()
    assert (assets.coarse_barycentrics == coarse["baris"]).all()
    assert (assets.vertex_neighbours == info["vertices_region_idxs"]).all()
    assert not assets.canonical_shape.any() and not assets.canonical_expression.any()
    assert assets.canonical_pose.tolist() == [0, 0, 0, np.float32(0.3), 0, 0]


def test_regions(assets: HeadAssets) -> None:
    masks, info = standin_table("mask_"), standin_table("region_")
    eyes = set(masks["left_eyeball"]) | set(masks["right_eyeball"])
    expected = {
        "face": sorted(set(masks["face"]) | eyes),
        "eyes": sorted(eyes),
        "face_without_eyes": sorted(set(masks["face"])),
        "lips": list(masks["lips"]),
        "outer_mouth": list(masks["noinmouth"]),
        "small_face": list(info["smallface_idxs"]),
        "eyelids": list(info["eyelids_idxs"]),
        "eyeballs": list(info["eye_idxs"]),
        "head": list(info["face_idxs"]),
    }
    assert {name: array.tolist() for name, array in assets.regions.items()} == expected


def test_stored_orders_and_repetitions_of_the_masks_are_kept(folder: Path) -> None:
    masks = standin_table("mask_") | {"lips": np.array([9, 3, 3]), "face": np.array([7, 5, 5], np.uint32)}
    write_pickle(folder / "mask/FLAME_masks.pkl", masks | {"neck": np.array([1])}, protocol=0)
    regions = load_flame_assets(folder).regions
    assert regions["lips"].tolist() == [9, 3, 3]
    assert regions["face_without_eyes"].tolist() == [5, 7] and regions["face"].tolist()[:3] == [5, 7, 3931]


# ---- pickles as FLAME's authors wrote them


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


@pytest.mark.parametrize("function", [os.system, eval, getattr, __import__])
def test_calls_in_any_file_are_refused(folder: Path, light_folder: Path, function: Callable) -> None:
    call = Call(function, (f"touch {folder / 'ran'}",))
    for name in (MODEL, "mask/FLAME_masks.pkl"):
        write_pickle(folder / name, {"a": call})
        with pytest.raises(InputFileError, match=f"{Path(name).name}: refused.*{function.__name__}"):
            load_flame_assets(folder)
        put_back(light_folder, folder, name)
    for name in ("geometry/landmark_embedding_with_eyes.npy", "simplify_baricentric2.npy"):
        write_npy(folder / name, {"a": call})
        with pytest.raises(InputFileError, match=f"{Path(name).name}: refused.*{function.__name__}"):
            load_flame_assets(folder)
        put_back(light_folder, folder, name)
    assert not (folder / "ran").exists()


def test_torch_tensors_inside_the_landmark_file(folder: Path, assets: HeadAssets) -> None:
    table = standin_table("lmk_")
    tensors = {key: torch.from_numpy(value) for key, value in table.items()}
    write_npy(folder / "geometry/landmark_embedding_with_eyes.npy", tensors)
    result = load_flame_assets(folder)
    assert (result.landmark_faces == assets.landmark_faces).all()
    assert (result.landmark_barycentrics == assets.landmark_barycentrics).all()


# ---- errors


FILES = [
    (MODEL, "flame.is.tue.mpg.de"),
    ("mask/FLAME_masks.pkl", "flame.is.tue.mpg.de"),
    ("geometry/landmark_embedding_with_eyes.npy", "Portrait4D repository"),
    ("simplify_baricentric2.npy", "Portrait4D repository"),
    ("flame_addition_info_new_smallface.npy", "Portrait4D repository"),
    ("ca_shape.txt", "Portrait4D repository"),
    ("ca_exp.txt", "Portrait4D repository"),
    ("ca_pose.txt", "Portrait4D repository"),
]


@pytest.mark.parametrize(("name", "source"), FILES)
def test_a_missing_file_is_named_with_its_place_and_source(folder: Path, name: str, source: str) -> None:
    (folder / name).unlink()
    with pytest.raises(AssetMissingError) as caught:
        load_flame_assets(folder)
    message = str(caught.value)
    assert Path(name).name in message and str(folder / name) in message and source in message


@pytest.mark.parametrize(("name", "_source"), FILES)
def test_an_empty_or_text_file_is_an_input_file_error(folder: Path, name: str, _source: str) -> None:
    for content in (b"", b"<html>login first</html>\n", b"\xff\xfe\x00"):
        if name.endswith("txt") and not content:
            continue  # no numbers: all zeros
        (folder / name).unlink()
        (folder / name).write_bytes(content)
        with pytest.raises(InputFileError, match=Path(name).name):
            load_flame_assets(folder)


def test_the_licensed_masks_without_the_authors_group(folder: Path) -> None:
    masks = standin_table("mask_")
    del masks["noinmouth"]
    write_pickle(folder / "mask/FLAME_masks.pkl", masks)
    with pytest.raises(InputFileError, match="'noinmouth'.*own release lacks it"):
        load_flame_assets(folder)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"f": np.zeros((5, 4), int)}, r"f: expected shape \('any', 3\), got \(5, 4\)"),
        ({"f": np.zeros((0, 3), int)}, "f: expected indices from 0 to 5022, at least one"),
        ({"f": np.full((3, 3), 5023)}, "f: expected indices"),
        ({"f": np.full((3, 3), -1)}, "f: expected indices"),
        ({"f": np.zeros((3, 3))}, "f: expected an array of numbers"),
        ({"v_template": np.zeros((5023, 2))}, "v_template: expected shape"),
        ({"v_template": np.full((5023, 3), np.nan)}, "v_template: expected finite"),
        ({"v_template": "text"}, "'v_template' cannot be read"),
        ({"shapedirs": np.zeros((5023, 3, 100))}, r"shapedirs: expected shape \(5023, 3, 400\), got \(5023, 3, 100\)"),
        ({"posedirs": np.zeros((5, 3, 36))}, "posedirs: expected shape"),
        ({"J_regressor": np.zeros((5023, 5))}, "J_regressor: expected shape"),
        ({"weights": np.zeros((5023, 4))}, "weights: expected shape"),
        ({"kintree_table": np.array([[0, 0, 3, 1, 1], [0, 1, 2, 3, 4]])}, "parents before"),
        ({"kintree_table": np.array([[0, -1, 1, 1, 1], [0, 1, 2, 3, 4]])}, "parents before"),
        ({"kintree_table": np.zeros((2, 24), int)}, "kintree_table: expected shape"),
    ],
)
def test_a_model_of_wrong_shapes(folder: Path, changes: dict, match: str) -> None:
    write_pickle(folder / MODEL, plain_model(5023) | changes, 4)
    with pytest.raises(InputFileError, match=match):
        load_flame_assets(folder)


def test_a_model_that_lacks_entries(folder: Path) -> None:
    write_pickle(folder / MODEL, {"f": np.zeros((1, 3), int), "posedirs": np.zeros(3)})
    with pytest.raises(InputFileError, match="lacks v_template, shapedirs, J_regressor, kintree_table, weights"):
        load_flame_assets(folder)
    write_pickle(folder / MODEL, [1])
    with pytest.raises(InputFileError, match="not of a FLAME model"):
        load_flame_assets(folder)


@pytest.mark.parametrize(
    ("name", "prefix", "changes", "match"),
    [
        (
            "simplify_baricentric2.npy",
            "simple_",
            {"idxs": np.full((620, 3), 5023)},
            "idxs: expected indices from 0 to 5022",
        ),
        ("simplify_baricentric2.npy", "simple_", {"baris": np.zeros((3, 3))}, "baris: expected shape"),
        (
            "simplify_baricentric2.npy",
            "simple_",
            {"faces": np.full((3, 3), 620)},
            "faces: expected indices from 0 to 619",
        ),
        ("flame_addition_info_new_smallface.npy", "region_", {"eyelids_idxs": np.array([5023])}, "eyelids_idxs"),
        (
            "flame_addition_info_new_smallface.npy",
            "region_",
            {"vertices_region_idxs": np.zeros((9, 10), int)},
            "5023, 10",
        ),
        ("geometry/landmark_embedding_with_eyes.npy", "lmk_", {"full_lmk_faces_idx": np.zeros((1, 68), int)}, "1, 70"),
        ("geometry/landmark_embedding_with_eyes.npy", "lmk_", {"full_lmk_bary_coords": torch.zeros(70, 3)}, "70, 3"),
        ("geometry/landmark_embedding_with_eyes.npy", "lmk_", {"full_lmk_faces_idx": np.full((1, 70), 9938)}, "9937"),
    ],
)
def test_small_tables_of_wrong_content(folder: Path, name: str, prefix: str, changes: dict, match: str) -> None:
    write_npy(folder / name, standin_table(prefix) | changes)
    with pytest.raises(InputFileError, match=match):
        load_flame_assets(folder)
    write_npy(folder / name, {})
    with pytest.raises(InputFileError, match="has no entry"):
        load_flame_assets(folder)
    write_npy(folder / name, 5)
    with pytest.raises(InputFileError, match="has no entry"):
        load_flame_assets(folder)


@pytest.mark.parametrize(
    ("content", "match"), [("1 2 x", "text file of numbers"), ("nan", "finite"), ("1 " * 7, "at most 6")]
)
def test_canonical_parameters_of_wrong_content(folder: Path, content: str, match: str) -> None:
    (folder / "ca_pose.txt").unlink()
    (folder / "ca_pose.txt").write_text(content)
    with pytest.raises(InputFileError, match=f"ca_pose.txt.*{match}"):
        load_flame_assets(folder)


def test_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    inside = Path(sys.modules["portrait4d"].__file__).parent / "models" / "FLAME"
    if not inside.is_dir():
        with pytest.raises(AssetMissingError) as caught:
            find_flame_folder()
        assert str(tmp_path / "FLAME") in str(caught.value) and str(inside) in str(caught.value)
        assert "flame.is.tue.mpg.de" in str(caught.value)
    (tmp_path / "FLAME").mkdir()
    assert find_flame_folder() == tmp_path / "FLAME"


def test_damaged_tables_never_fail_in_another_way(folder: Path, light_folder: Path) -> None:
    tables = [("mask/FLAME_masks.pkl", 60, 150), ("simplify_baricentric2.npy", 30, 60)]
    for name, truncations, flips in tables:
        data = (folder / name).read_bytes()
        for copy in damaged_copies(data, truncations, 0):
            assert not outcome(folder, name, copy)
        head = data[:400]
        for copy in damaged_copies(head, 0, flips):
            outcome(folder, name, copy + data[400:])
        put_back(light_folder, folder, name)


def outcome(folder: Path, name: str, data: bytes) -> bool:
    """Return whether the table reads; any exception but InputFileError fails the test."""
    from portrait4d.geometry import flame_assets

    (folder / name).unlink()
    (folder / name).write_bytes(data)
    loader = flame_assets._load_masks if name.endswith("pkl") else flame_assets._load_coarse_mesh
    try:
        loader(folder / name, 5023)
    except InputFileError:
        return False
    return True


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


# ---- the published tables


@needs_real_tables
def test_published_tables_load(folder: Path, standin: dict) -> None:
    write_pickle(folder / MODEL, standin | {"f": np.zeros((9976, 3), np.uint32)}, 4)
    for path in REAL.iterdir():
        target = folder / ("geometry" if path.name.startswith("landmark") else ".") / path.name
        target.unlink()
        shutil.copy(path, target)
    result = load_flame_assets(folder)
    assert result.coarse_indices.shape == (730, 3) and result.coarse_faces.shape == (1394, 3)
    assert np.abs(result.coarse_barycentrics.sum(1) - 1).max() < 1e-6
    sizes = {"small_face": 3055, "eyelids": 721, "eyeballs": 1092, "head": 3931}
    assert {name: len(result.regions[name]) for name in sizes} == sizes
    assert result.regions["eyeballs"].tolist() == list(range(3931, 5023))
    assert result.landmark_faces[68:].tolist() == [4628, 4053]
    assert result.landmark_barycentrics[68].tolist() == [0, 1, 0]
    assert (result.vertex_neighbours[:, 0] == np.arange(5023)).all() and result.vertex_neighbours.max() == 5023
    assert result.vertex_neighbours[3929].tolist() == [3929, 837, 846, 847, 1127, 1068, 1117, 1001, 840, 838]
    assert result.canonical_pose.tolist() == [0, 0, 0, np.float32(0.3), 0, 0]
    assert not result.canonical_shape.any() and not result.canonical_expression.any()


@needs_real_tables
def test_the_stand_in_text_files_hold_the_published_numbers(shared_folder: Path) -> None:
    for name in ("ca_shape.txt", "ca_exp.txt", "ca_pose.txt"):
        assert np.array_equal(np.loadtxt(shared_folder / name), np.loadtxt(REAL / name))
