"""The networks that the pipeline calls, as plain functions, so that others can take their places."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from data_preprocess.bfm_model import BfmModel, draw_over, load_bfm
from data_preprocess.bfm_regressor import Reconstruction, load_bfm_regressor, reconstruct_faces
from data_preprocess.face_boxes import FaceBoxes, detect_faces
from data_preprocess.fan import Fan
from data_preprocess.fan_weights import load_fan
from data_preprocess.landmarks_2d import detect_landmarks98, load_landmark_network
from data_preprocess.landmarks_3d import detect_landmarks68
from data_preprocess.retinaface_network import load_retinaface
from portrait4d.files.errors import AssetMissingError
from portrait4d.models.pretrained.registry import EXTERNAL_WEIGHTS, asset_places, fetch_command


@dataclass(frozen=True)
class FaceNetworks:
    """What finds and describes faces. Pictures are (3, H, W) in [-1, 1]; boxes and points in their pixels, y down.

    Attributes:
        detect: pictures of one size (B, 3, H, W) to the faces of each.
        landmarks98: B pictures, boxes (B, 4) and how much to enlarge them to (B, 98, 2) float64.
        landmarks68: B pictures and boxes (B, 4) to (B, 68, 2).
        reconstruct: B pictures and landmarks (B, 98, 2) to face-model coefficients.
        draw: coefficients to pictures (B, 3, 224, 448) to look at; None without the face model's data.
    """

    detect: Callable[[Tensor], list[FaceBoxes]]
    landmarks98: Callable[[Sequence[Tensor], Tensor, float], Tensor]
    landmarks68: Callable[[Sequence[Tensor], Tensor], Tensor]
    reconstruct: Callable[[list[Tensor], Tensor], Reconstruction]
    draw: Callable[[Reconstruction], Tensor] | None = None


def load_face_networks(device: torch.device, accept_unverified: bool = False) -> FaceNetworks:
    """Load the published weights of all networks, and the Basel Face Model if it is there.

    Args:
        device: where they run.
        accept_unverified: see `fan_weights.load_fan`.

    Raises:
        AssetMissingError: names all files that are missing, and the command that fetches them.
        InputFileError: a file is damaged or is not what its name says.
    """
    loaders: dict[str, Callable[[], nn.Module]] = {
        "retinaface": load_retinaface,
        "h3r": load_landmark_network,
        "landmarks68": partial(load_fan, accept_unverified=accept_unverified),
        "bfm_regressor": load_bfm_regressor,
    }
    networks, missing = [], []
    for key, load in loaders.items():
        try:
            networks.append(load().to(device))
        except AssetMissingError:
            missing.append(key)
    if missing:
        raise _missing_weights(missing)
    return join_networks(*networks, bfm=_load_bfm_if_there(device))


def join_networks(
    detector: nn.Module, landmarks98: nn.Module, landmarks68: Fan, regressor: nn.Module, bfm: BfmModel | None = None
) -> FaceNetworks:
    """Bind loaded networks, all on one device."""

    def find68(images: Sequence[Tensor], boxes: Tensor) -> Tensor:
        return detect_landmarks68(landmarks68, images, boxes).points

    def draw(faces: Reconstruction) -> Tensor:
        with torch.no_grad():
            return draw_over(faces.crops, bfm.render(bfm(faces.coefficients))).cpu()

    return FaceNetworks(
        detect=partial(detect_faces, detector),
        landmarks98=partial(detect_landmarks98, landmarks98),
        landmarks68=find68,
        reconstruct=partial(reconstruct_faces, regressor),
        draw=None if bfm is None else draw,
    )


def _load_bfm_if_there(device: torch.device) -> BfmModel | None:
    try:
        return load_bfm().to(device)
    except AssetMissingError:
        return None


def _missing_weights(keys: list[str]) -> AssetMissingError:
    files = ", ".join(f"{EXTERNAL_WEIGHTS[key].title} ({EXTERNAL_WEIGHTS[key].path})" for key in keys)
    source = f"their authors (fetch_assets.py --list), or run {fetch_command(*keys)}"
    return AssetMissingError(files, asset_places(""), source)
