"""Preview pictures of a fit (flame-fitting.md §5, --visualize)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_preprocess.flame_fitting.fitting_head import FittedParts
from data_preprocess.flame_fitting.observations import Observation
from portrait4d.data.image_io import load_image, save_image, side_by_side
from portrait4d.geometry.cameras import project_points
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_fit import PICTURE
from portrait4d.geometry.head_params import split_label
from portrait4d.rendering.mesh_maps import (
    MeshMap,
    pose_vertices,
    render_correspondence,
    render_normals,
    render_part_masks,
)

MAPS, PANELS = "flame_optim_uvs", "flame_optim_visuals"
_RED, _GREEN, _BLUE = (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)


@torch.no_grad()
def write_visuals(output: Path, observation: Observation, label: Tensor, head: HeadModel, parts: FittedParts) -> None:
    """Write the correspondence map, the normals, and three panels that lay them over the picture.

    Panels: the map (half), the normals (0.7), the visible eyes in green (half); landmarks fitted red, detected blue.

    Args:
        output: root of the results.
        observation: the picture.
        label: (437,) its frame label, on the head's device.
        head, parts: the head model, whole and reduced.

    Raises:
        InputFileError: the picture cannot be read.
    """
    camera, params = split_label(label[None])
    params = params.without_neck_rotation()
    posed = pose_vertices(head, params)
    map_, normals = (
        render_correspondence(head, posed, camera, PICTURE, 0.0),
        render_normals(head, posed, camera, PICTURE),
    )
    eyes = render_part_masks(head, posed, camera, PICTURE).eye
    stem = observation.portrait.stem
    save_image(output / MAPS / f"{stem}.jpg", map_.image[0].cpu())
    save_image(output / MAPS / f"{stem}_h.jpg", normals.image[0].cpu())
    picture = load_image(observation.portrait.image_path, PICTURE).to(camera.device)
    green = MeshMap(_colour(_GREEN, eyes).expand(1, 3, PICTURE, PICTURE), eyes, eyes)
    panels = [_blend(picture, layer, share) for layer, share in ((map_, 0.5), (normals, 0.7), (green, 0.5))]
    fitted = project_points(parts.landmarks.points(params), camera)[0] * PICTURE
    for panel in panels:
        _draw(panel, fitted.cpu().numpy(), _RED)
        _draw(panel, observation.targets, _BLUE)
    save_image(output / PANELS / f"{stem}.jpg", side_by_side(panels))


def _blend(picture: Tensor, layer: MeshMap, share: float) -> Tensor:
    weight = share * layer.mask[0]
    return (picture * (1 - weight) + layer.image[0] * weight).cpu()


def _draw(picture: Tensor, points: np.ndarray, colour: tuple[float, float, float]) -> None:
    """Draw points (K, 2), pixels y up, as squares of three pixels; those outside are left out."""
    columns, rows = points[:, 0].round().astype(int), (PICTURE - points[:, 1]).round().astype(int)
    for row, column in zip(rows, columns, strict=True):
        if 1 <= row < PICTURE - 1 and 1 <= column < PICTURE - 1:
            picture[:, row - 1 : row + 2, column - 1 : column + 2] = _colour(colour, picture)[0]


def _colour(rgb: tuple[float, float, float], like: Tensor) -> Tensor:
    return like.new_tensor(rgb).view(1, 3, 1, 1)
