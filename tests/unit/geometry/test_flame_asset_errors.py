"""FLAME folders that cannot be used: missing, foreign, damaged and hostile files, arrays of wrong shapes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.geometry.flame_assets import load_flame_assets
from tests.helpers.flame_files import MODEL, plain_model, put_back, write_npy, write_pickle
from tests.helpers.pickle_cases import Call, damaged_copies
from tests.helpers.standin_head import standin_table


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


FILES = [
    (MODEL, "flame.is.tue.mpg.de"),
    ("mask/FLAME_masks.pkl", "flame.is.tue.mpg.de"),
    ("geometry/landmark_embedding_with_eyes.npy", "Portrait4D repository"),
]
REPLACEABLE = [
    "simplify_baricentric2.npy",
    "flame_addition_info_new_smallface.npy",
    "ca_shape.txt",
    "ca_exp.txt",
    "ca_pose.txt",
]


@pytest.mark.parametrize(("name", "source"), FILES)
def test_a_missing_file_is_named_with_its_place_and_source(folder: Path, name: str, source: str) -> None:
    (folder / name).unlink()
    with pytest.raises(AssetMissingError) as caught:
        load_flame_assets(folder)
    message = str(caught.value)
    assert Path(name).name in message and str(folder / name) in message and source in message


@pytest.mark.parametrize("name", [name for name, _ in FILES] + REPLACEABLE)
def test_an_empty_or_text_file_is_an_input_file_error(folder: Path, name: str) -> None:
    for content in (b"", b"<html>login first</html>\n", b"\xff\xfe\x00"):
        if name.endswith("txt") and not content:
            continue  # no numbers: all zeros
        (folder / name).unlink()
        (folder / name).write_bytes(content)
        with pytest.raises(InputFileError, match=Path(name).name):
            load_flame_assets(folder)


@pytest.mark.parametrize("name", REPLACEABLE)
def test_a_replaceable_file_that_cannot_be_opened_is_not_replaced(folder: Path, name: str) -> None:
    for spoil in (lambda path: path.symlink_to(folder / "nowhere"), lambda path: path.mkdir()):
        (folder / name).unlink()
        spoil(folder / name)
        with pytest.raises(InputFileError, match=name):
            load_flame_assets(folder)


@pytest.mark.parametrize("group", [np.zeros(3), np.array([5023]), np.zeros(0, int), "text"])
def test_a_damaged_group_of_the_authors_is_not_replaced(folder: Path, group: object) -> None:
    write_pickle(folder / "mask/FLAME_masks.pkl", standin_table("mask_") | {"noinmouth": group})
    with pytest.raises(InputFileError, match="noinmouth"):
        load_flame_assets(folder)


def test_eyeballs_that_make_no_pair(folder: Path) -> None:
    (folder / "flame_addition_info_new_smallface.npy").unlink()
    write_pickle(folder / "mask/FLAME_masks.pkl", standin_table("mask_") | {"left_eyeball": np.array([3931])})
    with pytest.raises(InputFileError, match="FLAME_masks.pkl: eyeballs: expected equally many vertices, got 1 left"):
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
