"""Fitting FLAME to meshes: derivatives, recovery of a known head, correspondence files, and parameter files."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from data_preprocess.bfm_model import load_bfm
from data_preprocess.bfm_to_flame.bfm_files import load_coefficients
from data_preprocess.bfm_to_flame.flame_files import FlameShape, load_flame_shape, save_flame_shape
from data_preprocess.bfm_to_flame.mesh_transfer import MeshTransfer, _Problem, fit_points, load_correspondence
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.posed_points import PosedPoints, split_vertices
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.synthetic_heads.figure import open_head_model
from tests.helpers.bfm_files import STEP, write_coefficients, write_correspondence, write_standin_bfm
from tests.unit.geometry.test_flame_pickle import chumpy, dump_chumpy

ROTATION, JAW, SCALE = (0.2, -0.4, 0.1), (0.12, 0.01, 0.0), 0.09


@pytest.fixture(scope="module")
def face() -> PosedPoints:
    """Some points of the open head's face, metres."""
    head = open_head_model()
    points = split_vertices(head, head.region("face_without_eyes")[::STEP])
    return PosedPoints(points.directions / 3, points.correctives / 3)


def known_target(face: PosedPoints) -> tuple[HeadParams, Tensor, Tensor]:
    """Return a head's parameters, its unturned points, and the points turned, moved and in another unit."""
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.zeros(1, 400, dtype=torch.float64)
    coefficients[0, :49] = 0.7 * torch.randn(49, generator=generator).double()
    jaw = torch.tensor([JAW], dtype=torch.float64)
    pose = torch.cat([torch.zeros_like(jaw), jaw], dim=1)
    params = HeadParams(coefficients[:, :300], coefficients[:, 300:], pose, jaw.new_zeros(1, 6))
    points = face.points(params)[0]
    turn = axis_angle_to_matrix(torch.tensor(ROTATION, dtype=torch.float64))
    return params, points, (points @ turn.T + torch.tensor([0.1, 0.2, 0.3])) / SCALE


def test_derivatives(face: PosedPoints) -> None:
    _, _, targets = known_target(face)
    problem = _Problem(face, targets)
    unknowns = problem.start()
    unknowns += 0.01 * torch.randn(unknowns.shape, generator=torch.Generator().manual_seed(1)).double()
    derivatives = problem.derivatives(unknowns)
    for column in (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 50, 309, 310, 330, 409):
        step = torch.zeros_like(unknowns)
        step[column] = 1e-6
        difference = (problem.residuals(unknowns + step) - problem.residuals(unknowns - step)) / 2e-6
        torch.testing.assert_close(derivatives[:, column], difference, atol=1e-8, rtol=0)


def test_start_is_the_best_pose_and_scale_of_the_mean_head(face: PosedPoints) -> None:
    zero = torch.zeros(1, 400, dtype=torch.float64)
    mean = face.points(HeadParams(zero[:, :300], zero[:, 300:], zero[:, :6], zero[:, :6]))[0]
    turn = axis_angle_to_matrix(torch.tensor(ROTATION, dtype=torch.float64))
    start = _Problem(face, (mean @ turn.T + 0.5) / SCALE).start()
    assert start[:7].tolist() == pytest.approx([SCALE, *ROTATION, 0.5, 0.5, 0.5]) and not start[7:].any()


def test_a_known_head_is_recovered(face: PosedPoints) -> None:
    params, points, targets = known_target(face)
    fit = fit_points(face, targets)
    assert fit.rotation_rad.tolist() == pytest.approx(ROTATION, abs=2e-3)
    assert fit.jaw_rad.tolist() == pytest.approx(JAW, abs=5e-3)
    arrays = (fit.shape, fit.expression, np.append(np.zeros(3, np.float32), fit.jaw_rad), np.zeros(6, np.float32))
    fitted = face.points(HeadParams(*(torch.from_numpy(array)[None].double() for array in arrays)))[0]
    assert (fitted - points).norm(dim=1).mean() < 2e-4  # 0.2 mm: the coefficients are drawn to zero


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    write_standin_bfm(folder)
    return folder


def test_a_basel_face_becomes_the_same_head(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(assets))
    bfm, head = load_bfm(), open_head_model()
    transfer = MeshTransfer(bfm, head, load_correspondence(bfm))
    content = write_coefficients(tmp_path / "a.npy", 3)
    fit = transfer.fit(load_coefficients(tmp_path / "a.npy"))
    shape, expression = torch.zeros(1, 300), torch.zeros(1, 100)
    shape[:, :80], expression[:, :64] = torch.from_numpy(content["id"]), torch.from_numpy(content["exp"])
    wanted = head(HeadParams(shape, expression, torch.zeros(1, 6), torch.zeros(1, 6)))
    jaw = torch.from_numpy(np.append(np.zeros(3, np.float32), fit.jaw_rad))[None]
    found = HeadParams(
        torch.from_numpy(fit.shape)[None], torch.from_numpy(fit.expression)[None], jaw, torch.zeros(1, 6)
    )
    region = head.region("face_without_eyes")[::STEP]
    gap = (head(found) - wanted)[0, region]
    assert (gap - gap.mean(0)).norm(dim=1).mean() < 3 * 3e-4  # world units: 0.3 mm


def test_correspondences(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bfm = load_bfm(assets / "facerecon/bfm/BFM_model_front.mat")
    path = tmp_path / "c.npz"
    with pytest.raises(InputFileError, match="c.npz: not the published table"):
        load_correspondence(bfm, path)
    write_correspondence(path, sparse.csr_matrix((4, 12)), np.zeros((1, 3)), np.arange(3))
    with pytest.raises(InputFileError, match=f"no table for a face model of {len(bfm.mean_shape)} vertices"):
        load_correspondence(bfm, path)
    np.savez(path, BFM2017_corr=_Harmful(), FLAME_mask_ids=np.arange(3))
    with pytest.raises(InputFileError, match="refused, and nothing in it was run"):
        load_correspondence(bfm, path)
    with pytest.raises(ValueError, match="correspondence: expected shape"):
        table = load_correspondence(bfm, assets / "bfm_to_flame/BFM_to_FLAME_corr.npz")
        MeshTransfer(bfm, open_head_model(), type(table)(table.matrix[:10], table.face))
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    with pytest.raises(AssetMissingError, match="BFM_to_FLAME_corr.npz"):
        load_correspondence(bfm)


class _Harmful:
    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('run')",)


def test_parameter_files(tmp_path: Path) -> None:
    sizes = (300, 100, 3, 3, 3)
    head = FlameShape(*(np.random.default_rng(k).normal(size=size).astype(np.float32) for k, size in enumerate(sizes)))
    path = tmp_path / "bfm2flame_params/a.npy"
    save_flame_shape(path, head)
    content = np.load(path, allow_pickle=True).item()
    assert sorted(content) == ["exp", "jaw", "pose", "shape", "trans"] and content["pose"].dtype == np.float32
    again = load_flame_shape(path)
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(head).items())
    for change, problem in (({"exp": np.zeros(50)}, "exp: expected 100"), ({"jaw": np.full(3, np.nan)}, "jaw: exp")):
        np.save(path, np.array(content | change, dtype=object), allow_pickle=True)
        with pytest.raises(InputFileError, match=problem):
            load_flame_shape(path)
    content.pop("pose")
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    with pytest.raises(InputFileError, match="lacks pose"):
        load_flame_shape(path)
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputFileError, match="is not a .npy file"):
        load_flame_shape(path)


def test_published_parameter_files_hold_chumpy_objects(tmp_path: Path) -> None:
    """As the reference writes them: selections of the pose and the coefficients, a leaf for the translation."""
    pose, coefficients = chumpy("Ch", x=np.arange(15.0)), chumpy("Ch", x=np.arange(400.0))
    parts = {
        "pose": (pose, 0, 3),
        "jaw": (pose, 6, 9),
        "shape": (coefficients, 0, 300),
        "exp": (coefficients, 300, 400),
    }
    content = {key: chumpy("Select", a=a, idxs=np.arange(low, high)) for key, (a, low, high) in parts.items()}
    content["trans"] = chumpy("Ch", x=np.ones(3))
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(dump_chumpy(np.array(content, dtype=object), 3))
    head = load_flame_shape(path)
    assert head.rotation_rad.tolist() == [0, 1, 2] and head.jaw_rad.tolist() == [6, 7, 8]
    assert head.shape[299] == 299 and head.expression[0] == 300 and head.translation_m.tolist() == [1, 1, 1]
