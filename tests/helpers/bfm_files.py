"""A stand-in for the Basel Face Model that is the open head's face, and files of its coefficients."""

from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.io import savemat

from portrait4d.synthetic_heads.head_template import open_head_assets

CENTRE = np.array([-0.00322627, 0.04506068, 0.75983167])
DECIMETRES = 10.0
STEP = 6
"""Of the open head's face vertices the stand-in has each sixth."""
IDENTITIES, EXPRESSIONS = 49, 24
"""Slots of the open head that do something; those of the stand-in are the same."""


def write_coefficients(path: Path, seed: int, **changes: np.ndarray) -> dict[str, np.ndarray]:
    """Write a published kind of file of random coefficients, with arrays changed; return them."""
    random = np.random.default_rng(seed)
    content = {"id": np.zeros((1, 80)), "exp": np.zeros((1, 64)), "angle": random.normal(0, 0.2, (1, 3))}
    content["id"][0, :IDENTITIES] = random.normal(0, 0.5, IDENTITIES)
    content["exp"][0, :EXPRESSIONS] = random.uniform(0, 0.5, EXPRESSIONS)
    content = {key: value.astype(np.float32) for key, value in (content | changes).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return content


def write_standin_bfm(assets: Path) -> None:
    """Write the stand-in model and its correspondence with the open head below an assets folder."""
    head = open_head_assets()
    face = head.regions["face_without_eyes"][::STEP]
    count = len(face)
    directions = head.blend_directions[face].reshape(3 * count, -1) * DECIMETRES
    bases = {"idBase": np.zeros((3 * count, 80), np.float32), "exBase": np.zeros((3 * count, 64), np.float32)}
    bases["idBase"][:, :IDENTITIES] = directions[:, :IDENTITIES]
    bases["exBase"][:, :EXPRESSIONS] = directions[:, 300 : 300 + EXPRESSIONS]
    model = bases | {
        "meanshape": (head.template[face] * DECIMETRES + CENTRE).reshape(1, -1),
        "meantex": np.zeros((1, 3 * count)),
        "texBase": np.zeros((3 * count, 80), np.float32),
        "tri": np.array([[1, 2, 3]]),
        "point_buf": np.ones((count, 8)),
        "keypoints": np.ones((1, 68)),
    }
    place = assets / "facerecon/bfm/BFM_model_front.mat"
    place.parent.mkdir(parents=True)
    savemat(place, model)
    matrix = sparse.csc_matrix((np.ones(count), (face, np.arange(count))), shape=(len(head.template), 2 * count))
    write_correspondence(assets / "bfm_to_flame/BFM_to_FLAME_corr.npz", matrix, model["tri"], face)


def write_correspondence(path: Path, matrix: sparse.spmatrix, faces: np.ndarray, mask: np.ndarray) -> None:
    """Write a correspondence file whose last table is (matrix, faces); the others are for another model."""
    other = {"mtx": sparse.csc_matrix((4, 10)), "f_in": np.zeros((7, 3)), "f_out": np.zeros((1, 3))}
    right = {"mtx": matrix, "f_in": faces, "f_out": np.zeros((1, 3))}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, BFM2017_corr=other, BFM2009_corr=other, BFM2009_cropped_corr=right, FLAME_mask_ids=mask)
