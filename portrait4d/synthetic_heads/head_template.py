"""The open head: a procedural head model with FLAME's interface, all of it made from formulas (metres when built).

5023 vertices: 3931 of the head, 546 of the left and 546 of the right eyeball. 300 + 100 blend-shape slots, the leading
ones named in `OpenHeadExtras`, the rest zero. Computed in float64 and rounded to a micrometre, so that every machine
builds the same bits; kept in memory and in a cache folder afterwards.
"""

import contextlib
import hashlib
import zipfile
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import UserError
from portrait4d.files.home import cache_folder
from portrait4d.geometry import head_regions, mesh_simplification
from portrait4d.geometry.face_alignment import LANDMARKS_98_TO_70
from portrait4d.geometry.flame_assets import HeadAssets
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM
from portrait4d.geometry.head_regions import FaceGroups, compute_regions, compute_vertex_neighbours
from portrait4d.geometry.mesh_simplification import simplify_mesh
from portrait4d.synthetic_heads import ellipsoid_head
from portrait4d.synthetic_heads.head_expressions import expression_directions
from portrait4d.synthetic_heads.head_identity import identity_directions
from portrait4d.synthetic_heads.head_landmarks import (
    eyelid_vertices,
    head_masks,
    landmark_embedding,
)
from portrait4d.synthetic_heads.head_mechanics import jaw_weights, joint_regressor, pose_directions, skinning_weights
from portrait4d.synthetic_heads.head_surface import EYEBALL_VERTICES, Surface, build_surface

NAME = "open-head"
VERSION = 1
MM = 1e-3


@dataclass(frozen=True)
class OpenHeadExtras:
    """What the open head knows beyond FLAME's files. V = 5023.

    Attributes:
        landmark98_faces: (98,) triangles of the 98 points in WFLW's order.
        landmark98_barycentrics: (98, 3) float32.
        right_eyelid, left_eyelid: (8,) lid-margin vertices, in the order of the points 60..67 and 68..75.
        shape_names, expression_names: names of the leading slots.
        lip_row, lid_row, ear_row, ring_sin: (V,) ring coordinates, see `head_surface.Surface`.
        mirror: (V,) the vertex on the other side of each head vertex; eyeballs map to themselves.
    """

    landmark98_faces: np.ndarray
    landmark98_barycentrics: np.ndarray
    right_eyelid: np.ndarray
    left_eyelid: np.ndarray
    shape_names: tuple[str, ...]
    expression_names: tuple[str, ...]
    lip_row: np.ndarray
    lid_row: np.ndarray
    ear_row: np.ndarray
    ring_sin: np.ndarray
    mirror: np.ndarray

    def shape_slot(self, name: str) -> int:
        """Return the number of an identity slot.

        Raises:
            ValueError: if there is no such slot.
        """
        return _slot(name, self.shape_names)

    def expression_slot(self, name: str) -> int:
        """Return the number of an expression slot.

        Raises:
            ValueError: if there is no such slot.
        """
        return _slot(name, self.expression_names)


def build_open_head(name: str, version: int) -> HeadAssets:
    """Build an open head by name and version, as checkpoints name it: "open-head" or "ellipsoid".

    Raises:
        ValueError: if there is no such head.
    """
    if (name, version) == (NAME, VERSION):
        return open_head_assets()
    if name == ellipsoid_head.NAME:
        return ellipsoid_head.build_open_head(name, version)
    raise ValueError(f"open head: expected {NAME} version {VERSION} or {ellipsoid_head.NAME}, got {name} {version}")


def open_head_assets() -> HeadAssets:
    """Return the open head's arrays, built once."""
    return _built()[0]


def open_head_extras() -> OpenHeadExtras:
    """Return landmarks, names and ring coordinates of the open head, built once."""
    return _built()[1]


@cache
def _built() -> tuple[HeadAssets, OpenHeadExtras]:
    try:
        return _read(_cache_file())
    except (OSError, UserError, KeyError, ValueError, zipfile.BadZipFile):
        pass  # absent, or of an interrupted older version: built again below
    assets, extras = compute_open_head()
    with contextlib.suppress(OSError, UserError):  # no home folder, or a read-only one, costs only time
        _write(_cache_file(), assets, extras)
    return assets, extras


def compute_open_head() -> tuple[HeadAssets, OpenHeadExtras]:
    """Compute the open head from its formulas, without any cache."""
    surface = build_surface()
    jaw = jaw_weights(surface)
    shape_names, shapes = identity_directions(surface)
    expression_names, expressions = expression_directions(surface, jaw)
    directions = np.zeros((len(surface.vertices), 3, SHAPE_DIM + EXPRESSION_DIM))
    directions[:, :, : shapes.shape[2]] = shapes
    directions[:, :, SHAPE_DIM : SHAPE_DIM + expressions.shape[2]] = expressions
    faces98, barycentrics98 = landmark_embedding(surface)
    template = _rounded(surface.vertices * MM)
    coarse = simplify_mesh(template, surface.faces)
    assets = HeadAssets(
        name=NAME,
        template=template,
        blend_directions=_rounded(directions * MM),
        shape_count=SHAPE_DIM,
        pose_directions=_rounded(pose_directions(surface) * MM),
        joint_regressor=_rounded(joint_regressor(surface), 8),
        parents=np.array([-1, 0, 1, 1, 1]),
        skinning_weights=_rounded_weights(skinning_weights(surface)),
        faces=surface.faces,
        landmark_faces=faces98[LANDMARKS_98_TO_70],
        landmark_barycentrics=_rounded(barycentrics98[LANDMARKS_98_TO_70]),
        canonical_shape=np.zeros(SHAPE_DIM, np.float32),
        canonical_expression=np.zeros(EXPRESSION_DIM, np.float32),
        canonical_pose=np.array([0, 0, 0, 0.3, 0, 0], np.float32),
        coarse_indices=coarse.indices,
        coarse_barycentrics=_rounded(coarse.barycentrics),
        coarse_faces=coarse.faces,
        regions=_regions(surface),
        vertex_neighbours=compute_vertex_neighbours(surface.faces, len(template)),
    )
    return assets, _extras(surface, faces98, barycentrics98, shape_names, expression_names)


def _extras(
    surface: Surface, faces98: np.ndarray, weights98: np.ndarray, shapes: list[str], expressions: list[str]
) -> OpenHeadExtras:
    lids = eyelid_vertices(surface)
    eyeballs = np.arange(len(surface.template.mirror), len(surface.vertices))
    return OpenHeadExtras(
        landmark98_faces=faces98,
        landmark98_barycentrics=_rounded(weights98),
        right_eyelid=lids["right"],
        left_eyelid=lids["left"],
        shape_names=tuple(shapes),
        expression_names=tuple(expressions),
        lip_row=surface.lip_row,
        lid_row=surface.lid_row,
        ear_row=surface.ear_row,
        ring_sin=_rounded(surface.ring_sin),
        mirror=np.concatenate([surface.template.mirror, eyeballs]),
    )


def _slot(name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise ValueError(f"slot: expected one of {', '.join(names)}, got {name}")
    return names.index(name)


def _rounded(values: np.ndarray, digits: int = 6) -> np.ndarray:
    return (np.round(values, digits) + 0.0).astype(np.float32)


def _rounded_weights(weights: np.ndarray) -> np.ndarray:
    """Round to multiples of 2^-20, whose sums are exact in float32, with rows that add up to exactly 1."""
    steps = np.round(weights * 2**20)
    steps[np.arange(len(steps)), steps.argmax(1)] += 2**20 - steps.sum(1)
    return (steps / 2**20).astype(np.float32)


def _regions(surface: Surface) -> dict[str, np.ndarray]:
    """Return the regions of `HeadAssets`; the mouth has no hole here, so its inside is known by its rings."""
    groups = {name: np.nonzero(mask)[0] for name, mask in head_masks(surface).items()}
    head = len(surface.template.vertices)
    left = head + np.arange(EYEBALL_VERTICES)
    named = FaceGroups(groups["face_without_eyes"], groups["lips"], left, left + EYEBALL_VERTICES)
    return groups | compute_regions(_rounded(surface.vertices * MM).astype(np.float64), named)


def _cache_file() -> Path:
    """Return the cache file; its name holds a digest of the sources, so that an edit never meets an old file."""
    digest = hashlib.sha256()
    used = [mesh_simplification.__file__, head_regions.__file__]
    for source in [*sorted(Path(__file__).parent.glob("head_*.py")), *map(Path, used)]:
        digest.update(source.read_bytes())
    return cache_folder() / f"{NAME}-{VERSION}-{digest.hexdigest()[:16]}.npz"


def _write(path: Path, assets: HeadAssets, extras: OpenHeadExtras) -> None:
    arrays = {}
    for prefix, source in (("assets", assets), ("extras", extras)):
        for field in fields(source):
            value = getattr(source, field.name)
            if isinstance(value, dict):
                arrays |= {f"regions/{key}": array for key, array in value.items()}
            else:
                arrays[f"{prefix}/{field.name}"] = np.asarray(value)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _read(path: Path) -> tuple[HeadAssets, OpenHeadExtras]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    values = {
        prefix: {f.name: arrays[f"{prefix}/{f.name}"] for f in fields(kind) if f.name != "regions"}
        for prefix, kind in (("assets", HeadAssets), ("extras", OpenHeadExtras))
    }
    values["assets"] |= {
        "name": str(values["assets"]["name"]),
        "shape_count": int(values["assets"]["shape_count"]),
        "regions": {n.removeprefix("regions/"): a for n, a in arrays.items() if n.startswith("regions/")},
    }
    for key in ("shape_names", "expression_names"):
        values["extras"][key] = tuple(str(word) for word in values["extras"][key])
    return HeadAssets(**values["assets"]), OpenHeadExtras(**values["extras"])
