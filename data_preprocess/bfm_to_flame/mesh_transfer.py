"""Fit FLAME to a face of the Basel Face Model, vertex by vertex.

The published correspondence says which combination of Basel vertices each FLAME vertex is. What is minimised is the
sum of squares of scale * converted - FLAME over the face, in metres, and of small multiples of the parameters.
Source: flame-fitting.md §4.
"""

import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.func import jacrev, vmap

from data_preprocess.bfm_model import BfmModel, rotation_from_angles
from data_preprocess.bfm_to_flame.bfm_files import BfmShape
from data_preprocess.bfm_to_flame.flame_files import FlameShape
from portrait4d.files.errors import InputFileError
from portrait4d.files.safe_pickle import NUMPY_RULES, Record, read_object_npy
from portrait4d.geometry.flame import WORLD_PER_METRE, HeadModel
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams
from portrait4d.geometry.pose_solver import solve_positive
from portrait4d.geometry.posed_points import JAW, PosedPoints, split_vertices
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.models.pretrained.registry import find_weights

_TABLES = ("BFM2017_corr", "BFM2009_corr", "BFM2009_cropped_corr")
_JAW_WEIGHT, _COEFFICIENT_WEIGHTS = 1e-4, ((SHAPE_DIM, 1e-3), (EXPRESSION_DIM, 1e-4))
_RULES = NUMPY_RULES.extended({}, prefixes=("scipy.sparse.",))
_UNKNOWNS = 10 + SHAPE_DIM + EXPRESSION_DIM
_STEPS, _LEAST_GAIN = 200, 1e-12


@dataclass(frozen=True)
class Correspondence:
    """FLAME vertices as combinations of Basel vertices: `matrix` (V, N) sparse, and the face's FLAME vertices (M,)."""

    matrix: sparse.csr_matrix
    face: np.ndarray


def load_correspondence(bfm: BfmModel, path: str | Path | None = None) -> Correspondence:
    """Load the table of `BFM_to_FLAME_corr.npz` that fits a Basel model by its numbers of vertices and faces.

    Args:
        bfm: the Basel model.
        path: the file; None looks in the places of `registry.find_weights`. Nothing in it is run.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing, damaged, or has no table for this model.
    """
    path = find_weights("bfm2flame_correspondence") if path is None else Path(path)
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            face = np.load(archive.extract("FLAME_mask_ids.npy", folder), allow_pickle=False)
            for name in _TABLES:
                table = read_object_npy(archive.extract(f"{name}.npy", folder), _RULES)
                matrix = _sparse(table["mtx"])
                if matrix.shape[1] == 2 * len(bfm.mean_shape) and len(table["f_in"]) == len(bfm.faces):
                    return Correspondence(matrix[:, : len(bfm.mean_shape)], face.astype(np.int64).ravel())
    except (OSError, zipfile.BadZipFile, LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputFileError(path, "not the published table of correspondences (damaged?)", "get it again") from error
    raise InputFileError(path, f"no table for a face model of {len(bfm.mean_shape)} vertices")


def _sparse(stored: Record) -> sparse.csr_matrix:
    state = stored.state
    layout = sparse.csc_matrix if "csc" in stored.path else sparse.csr_matrix
    shape = tuple(state.get("_shape", state.get("shape")))
    matrix = layout((state["data"], state["indices"], state["indptr"]), shape=shape)
    matrix.check_format()
    return matrix.tocsr()


class MeshTransfer:
    """Fits a head model to faces of the Basel Face Model.

    Args:
        bfm: the Basel model.
        head: FLAME, or a head with its interface.
        correspondence: between the two.

    Raises:
        ValueError: the correspondence is for another number of vertices.
    """

    def __init__(self, bfm: BfmModel, head: HeadModel, correspondence: Correspondence) -> None:
        expected = (len(head.template), len(bfm.mean_shape))
        if correspondence.matrix.shape != expected:
            raise ValueError(f"correspondence: expected shape {expected}, got {correspondence.matrix.shape}")
        self._bfm = bfm
        self._matrix = correspondence.matrix[correspondence.face]
        face = split_vertices(head, torch.from_numpy(correspondence.face))
        self._points = PosedPoints(face.directions / WORLD_PER_METRE, face.correctives / WORLD_PER_METRE)

    def fit(self, face: BfmShape) -> FlameShape:
        """Fit the head to one face; its translation is that of the recentred head, in metres."""
        identity, expression = torch.from_numpy(face.identity)[None], torch.from_numpy(face.expression)[None]
        vertices = self._bfm.shape(identity, expression)[0]
        turned = vertices @ rotation_from_angles(torch.from_numpy(face.angle_rad)[None])[0]
        return fit_points(self._points, torch.from_numpy(self._matrix @ turned.double().numpy()))


def fit_points(points: PosedPoints, targets: Tensor) -> FlameShape:
    """Fit a head's points to targets that are given up to scale and position.

    Args:
        points: M points in metres, float64.
        targets: (M, 3), in any unit, float64.

    First scale and pose of the mean head, in closed form; then Gauss-Newton with damping on everything.
    """
    problem = _Problem(points, targets)
    unknowns = problem.start()
    value, damping = problem.residuals(unknowns).square().sum(), 1e-6
    for _ in range(_STEPS):
        residuals, derivatives = problem.residuals(unknowns), problem.derivatives(unknowns)
        form = derivatives.T @ derivatives
        form = form + damping * torch.diag(form.diagonal())
        candidate = unknowns - solve_positive(form, (derivatives.T @ residuals)[:, None])[:, 0]
        trial = problem.residuals(candidate).square().sum()
        gain = (value - trial) / value
        if not gain > 0:
            if damping > 1e3:
                break
            damping *= 10
            continue
        unknowns, value, damping = candidate, trial, damping / 10
        if gain < _LEAST_GAIN:
            break
    _, rotation, translation, jaw, coefficients = _split(unknowns.float())
    arrays = (*coefficients.split([SHAPE_DIM, EXPRESSION_DIM]), rotation, jaw, translation)
    return FlameShape(*(array.numpy() for array in arrays))


def _split(unknowns: Tensor) -> tuple[Tensor, ...]:
    """Split unknowns into scale (1,), rotation, translation, jaw (3,) each, and coefficients (400,)."""
    return unknowns.split([1, 3, 3, 3, SHAPE_DIM + EXPRESSION_DIM])


@dataclass(frozen=True)
class _Problem:
    points: PosedPoints
    targets: Tensor

    def start(self) -> Tensor:
        """Return the unknowns (410,) of the mean head in the best pose and scale (flame-fitting.md §4, stage a)."""
        mean = self.points.points(self.params(torch.zeros(_UNKNOWNS, dtype=torch.float64)))[0]
        head, wanted = mean - mean.mean(0), self.targets - self.targets.mean(0)
        left, _, right = torch.linalg.svd(wanted.T @ head)
        mirror = torch.ones(3, dtype=torch.float64)
        mirror[2] = torch.linalg.det(left @ right)
        rotation = left @ torch.diag(mirror) @ right
        scale = (wanted * (head @ rotation.T)).sum() / wanted.square().sum()
        translation = scale * self.targets.mean(0) - rotation @ mean.mean(0)
        vector = torch.from_numpy(Rotation.from_matrix(rotation.numpy()).as_rotvec())
        return torch.cat([scale[None], vector, translation, torch.zeros(_UNKNOWNS - 7, dtype=torch.float64)])

    def params(self, unknowns: Tensor) -> HeadParams:
        _, _, _, jaw, coefficients = (part[None] for part in _split(unknowns))
        shape, expression = coefficients.split([SHAPE_DIM, EXPRESSION_DIM], dim=1)
        return HeadParams(shape, expression, torch.cat([torch.zeros_like(jaw), jaw], dim=1), jaw.new_zeros(1, 6))

    def residuals(self, unknowns: Tensor) -> Tensor:
        scale, rotation, translation, jaw, coefficients = _split(unknowns)
        points = self.points.points(self.params(unknowns))[0] @ axis_angle_to_matrix(rotation).T + translation
        return torch.cat([(points - scale * self.targets).flatten(), _JAW_WEIGHT * jaw, _weights() * coefficients])

    def derivatives(self, unknowns: Tensor) -> Tensor:
        """Return the residuals' derivatives (3 M + 403, 410), those of the pose correctives included."""
        _, rotation, _, jaw, _ = _split(unknowns)
        turn, params = axis_angle_to_matrix(rotation), self.params(unknowns)
        turn_rates, jaw_rates = vmap(jacrev(axis_angle_to_matrix))(torch.stack([rotation, jaw]))
        parts, points = self.points.parts(params), self.points.points(params)[0]
        features = self.points.correctives[..., 9:18] @ jaw_rates.flatten(0, 1)
        features[JAW] = axis_angle_to_matrix(jaw) @ features[JAW]
        of_jaw = torch.einsum("xyr,ky->kxr", jaw_rates, parts[0, JAW]) + features.sum(0)
        inner = turn @ torch.cat([of_jaw, self.points.derivatives(params)[0]], dim=2)
        of_turn = torch.einsum("xyr,ky->kxr", turn_rates, points)
        still = torch.eye(3, dtype=turn.dtype).expand(len(points), 3, 3)
        of_points = torch.cat([-self.targets[..., None], of_turn, still, inner], dim=2).flatten(0, 1)
        weights = torch.diag(torch.cat([torch.full((3,), _JAW_WEIGHT, dtype=turn.dtype), _weights()]))
        return torch.cat([of_points, torch.nn.functional.pad(weights, (7, 0))])


def _weights() -> Tensor:
    return torch.cat([torch.full((count,), weight, dtype=torch.float64) for count, weight in _COEFFICIENT_WEIGHTS])
