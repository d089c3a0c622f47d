"""FLAME files: the stand-in folder end to end, and the published tables."""

import shutil
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.config.networks import HeadPoseConfig
from portrait4d.files.errors import AssetMissingError
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.flame_assets import HeadAssets, find_flame_folder, load_flame_assets
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.part_deformation import build_part_field
from tests.helpers.flame_files import MODEL, write_npy, write_pickle
from tests.helpers.standin_head import standin_table

REAL = Path(__file__).resolve().parents[4] / "shared" / "real" / "flame"
needs_real_tables = pytest.mark.skipif(not REAL.is_dir(), reason=f"the published FLAME tables are not at {REAL}")


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


def test_torch_tensors_inside_the_landmark_file(folder: Path, assets: HeadAssets) -> None:
    table = standin_table("lmk_")
    tensors = {key: torch.from_numpy(value) for key, value in table.items()}
    write_npy(folder / "geometry/landmark_embedding_with_eyes.npy", tensors)
    result = load_flame_assets(folder)
    assert (result.landmark_faces == assets.landmark_faces).all()
    assert (result.landmark_barycentrics == assets.landmark_barycentrics).all()


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


def remove_replaceable(folder: Path) -> None:
    """Leave what the licences and the landmark file give: FLAME's own masks, no tables of Portrait4D's authors."""
    for name in ("simplify_baricentric2.npy", "flame_addition_info_new_smallface.npy"):
        (folder / name).unlink()
    for name in ("ca_shape.txt", "ca_exp.txt", "ca_pose.txt"):
        (folder / name).unlink()
    masks = standin_table("mask_")
    del masks["noinmouth"]
    write_pickle(folder / "mask/FLAME_masks.pkl", masks)


def test_what_the_licensed_files_lack_is_computed(standin: dict, assets: HeadAssets, folder: Path) -> None:
    remove_replaceable(folder)
    write_pickle(folder / MODEL, standin, 4)
    result = load_flame_assets(folder)
    for name in ("canonical_shape", "canonical_expression", "canonical_pose", "landmark_faces", "template"):
        assert np.array_equal(getattr(result, name), getattr(assets, name)), name
    for name in ("face", "eyes", "face_without_eyes", "lips", "eyeballs", "head"):
        assert np.array_equal(result.regions[name], assets.regions[name]), name
    assert set(result.regions) == set(assets.regions)
    assert np.array_equal(np.sort(result.vertex_neighbours), np.sort(assets.vertex_neighbours))
    # Made by other rules: most of the vertices agree.
    for name, share in (("eyelids", 0.6), ("small_face", 0.6), ("outer_mouth", 0.99)):
        ours, stored = set(result.regions[name].tolist()), set(assets.regions[name].tolist())
        assert len(ours & stored) > share * len(ours | stored), name
    assert 1300 < len(result.coarse_faces) <= 0.14 * len(result.faces)
    placed = (result.coarse_barycentrics[..., None] * result.template[result.coarse_indices]).sum(axis=1)
    assert np.abs(placed.max(axis=0) - result.template.max(axis=0)).max() < 2e-3
    arrays = [result.coarse_indices, result.coarse_faces, result.vertex_neighbours, *result.regions.values()]
    assert all(array.dtype == np.int64 and array.flags.c_contiguous and array.flags.writeable for array in arrays)
    assert result.coarse_barycentrics.dtype == np.float32


def test_a_head_with_computed_tables_deforms(standin: dict, folder: Path) -> None:
    remove_replaceable(folder)
    write_pickle(folder / MODEL, standin, 4)
    head = HeadModel.from_assets(load_flame_assets(folder))
    params = HeadParams(torch.zeros(1, 300), torch.zeros(1, 100), torch.zeros(1, 6), torch.zeros(1, 6))
    params.pose[0, 1] = 0.4
    points = head(params)[:, head.region("eyeballs")[::7]]
    undone = build_part_field(head, params, 1.3, HeadPoseConfig(fine_resolution=16))(points)
    assert (undone.eye_distance < 5e-3).all() and undone.inside_eye_box.all()


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
