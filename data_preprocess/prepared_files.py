"""The files of a prepared portrait, and where it was in its original picture.

In the prepared folder, for a portrait NAME (the picture is written last, so that where it is the rest is as well):

2dldmks_align/NAME.npy     (98, 2) float64, pixels of the portrait, y down
3dldmks_align/NAME.npy     (68, 2) float64 likewise
bfm_params/NAME.npy        a dict of float32 arrays: id (1, 80), exp (1, 64), tex (1, 80), angle (1, 3), gamma (1, 27),
                           trans (1, 3), of the face as the 224-pixel crop of the Deep3DFace network shows it
crop_transforms/NAME.npz   see `save_origin`
bfm_vis/NAME.png|jpg       448 x 224 pixels, that crop without and with the face model drawn over it
align_images/NAME.png|jpg  512 x 512 pixels

Sources: preprocess-pipeline.md §3; crop_transforms is ours.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_preprocess.bfm_to_flame.bfm_files import BFM_PARAMS
from data_preprocess.portrait_crop import CropTransform, Placement, PortraitCrop
from portrait4d.data.image_io import save_image
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, CROP_TRANSFORMS, LANDMARKS_68, LANDMARKS_98
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError

BFM_PICTURES = "bfm_vis"
_ARRAYS = {LANDMARKS_98: ".npy", LANDMARKS_68: ".npy", BFM_PARAMS: ".npy", CROP_TRANSFORMS: ".npz"}
FOLDERS = (*_ARRAYS, BFM_PICTURES, ALIGNED_IMAGES)
"""Of a prepared folder, as this module writes it."""

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Origin:
    """Where a portrait was in its original picture.

    Attributes:
        source: name of the picture or film.
        number: of the picture in its folder or of the frame in its film, from 0.
        index, count: which of how many faces of the picture.
        box: (4,) x1, y1, x2, y2 in pixels of the picture.
        landmarks98: (98, 2) float64 likewise, y down.
        landmarks68: (68, 2) likewise.
        transform: between picture and portrait.
    """

    source: str
    number: int
    index: int
    count: int
    box: Tensor
    landmarks98: Tensor
    landmarks68: Tensor
    transform: CropTransform


@dataclass(frozen=True)
class PreparedFace:
    """What is known of a face.

    Attributes:
        crop: the portrait and its landmarks.
        coefficients: arrays of the face model by their keys in `bfm_params` files.
        visual: (3, 224, 448) in [-1, 1], or None.
        origin: where it was.
    """

    crop: PortraitCrop
    coefficients: dict[str, Tensor]
    visual: Tensor | None
    origin: Origin


def save_prepared(root: Path, file_name: str, face: PreparedFace) -> None:
    """Write all files of a portrait atomically, the picture last; an older picture is removed first.

    Args:
        root: the prepared folder.
        file_name: of the picture, with suffix .png, .jpg or .jpeg.
        face: what to write.

    Raises:
        OSError: a file cannot be written.
    """
    picture = root / ALIGNED_IMAGES / file_name
    picture.unlink(missing_ok=True)
    coefficients = {key: value.cpu().numpy() for key, value in face.coefficients.items()}
    _save_array(_path(root, LANDMARKS_98, file_name), face.crop.landmarks98.numpy())
    _save_array(_path(root, LANDMARKS_68, file_name), face.crop.landmarks68.numpy())
    _save_array(_path(root, BFM_PARAMS, file_name), np.array(coefficients, dtype=object))
    save_origin(_path(root, CROP_TRANSFORMS, file_name), face.origin)
    if face.visual is not None:
        save_image(root / BFM_PICTURES / file_name, face.visual)
    save_image(picture, face.crop.image)


def is_prepared(root: Path, file_name: str) -> bool:
    """Tell whether all files of a portrait are there, but for `bfm_vis`, which is optional."""
    paths = [root / ALIGNED_IMAGES / file_name, *(_path(root, folder, file_name) for folder in _ARRAYS)]
    return all(path.is_file() for path in paths)


def remove_unfinished(root: Path) -> None:
    """Remove what a killed run left half-written in a prepared folder; nothing may be writing there."""
    for folder in FOLDERS:
        for path in (root / folder).glob(".tmp-*"):
            path.unlink(missing_ok=True)


def numbered_name(file_name: str, index: int) -> str:
    """Return the file name of face `index` of a picture of which all faces are kept: a.png, 2 -> a_2.png."""
    path = Path(file_name)
    return f"{path.stem}_{index}{path.suffix}"


def save_origin(path: Path, origin: Origin) -> None:
    """Write an origin as an archive of arrays without Python objects, atomically.

    source (text), number, face = (index, count), box (4,), landmarks98 (98, 2), landmarks68 (68, 2),
    image_size = (width, height), scale, shift (2,) (of the placement: y up), and, for those who paste portraits back,
    the (2, 3) affine transforms of pixel indices image_to_crop and crop_to_image.
    """
    transform = origin.transform
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            source=np.array(origin.source),
            number=np.array(origin.number),
            face=np.array([origin.index, origin.count]),
            box=origin.box.numpy(),
            landmarks98=origin.landmarks98.numpy(),
            landmarks68=origin.landmarks68.numpy(),
            image_size=np.array(transform.image_size),
            scale=np.array(transform.placement.scale),
            shift=np.array(transform.placement.shift),
            image_to_crop=transform.image_to_crop.numpy(),
            crop_to_image=transform.crop_to_image.numpy(),
        )


def load_origin(root: Path, file_name: str) -> Origin:
    """Load the origin of the portrait `file_name` of a prepared folder.

    Raises:
        InputFileError: the file is missing, damaged, or holds something else.
    """
    path = _path(root, CROP_TRANSFORMS, file_name)
    try:
        with np.load(path, allow_pickle=False) as content:
            index, count = (int(value) for value in content["face"])
            width, height = (int(value) for value in content["image_size"])
            shift_x, shift_y = (float(value) for value in content["shift"])
            placement = Placement(float(content["scale"]), (shift_x, shift_y))
            box, landmarks98, landmarks68 = (
                torch.from_numpy(content[key]) for key in ("box", "landmarks98", "landmarks68")
            )
            transform = CropTransform((width, height), placement)
            source, number = str(content["source"]), int(content["number"])
    except _UNREADABLE as error:
        raise InputFileError(path, "is missing or damaged", "prepare the picture again with --overwrite") from error
    return Origin(source, number, index, count, box, landmarks98, landmarks68, transform)


def _path(root: Path, folder: str, file_name: str) -> Path:
    return root / folder / f"{Path(file_name).stem}{_ARRAYS[folder]}"


def _save_array(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, array, allow_pickle=True)
