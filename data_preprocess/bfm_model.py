"""The Basel Face Model of Deep3DFace: coefficients to vertices, landmarks, lit colours and a picture of the face.

An optional, licensed file: it serves to look at coefficients and to carry them to another head model. Model axes: x
image right, y up, z to the viewer, decimetres. Camera axes: z into the scene, the camera 10 decimetres before the
origin. Source: preprocess-networks.md §4.3 to §4.5.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor, nn
from torch.nn import functional

from data_preprocess.bfm_coefficients import BfmCoefficients
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.models.pretrained.fetching import REGISTERED_ASSETS, check_bfm
from portrait4d.models.pretrained.registry import asset_places
from portrait4d.ops.rasterize import interpolate_vertices, rasterize_perspective

BFM_IMAGE_SIZE = 224
BFM_FOCAL_PIXELS = 1015.0
CAMERA_DISTANCE = 10.0
"""In decimetres."""

BFM_FOV_DEG = 2 * math.degrees(math.atan(BFM_IMAGE_SIZE / 2 / BFM_FOCAL_PIXELS))

_CENTRE = (-0.00322627, 0.04506068, 0.75983167)
_AMBIENT = 0.8
_COMPONENTS = {"idBase": 80, "exBase": 64, "texBase": 80}
_LANDMARKS = 68


class BfmFace(NamedTuple):
    """Faces of B coefficients.

    Attributes:
        vertices_camera: (B, V, 3) decimetres, camera axes.
        normals: (B, V, 3) unit vectors, model axes, after the rotation.
        texture: (B, V, 3) unlit RGB, about 0 to 1.
        colours: (B, V, 3) lit RGB, not clamped.
        landmarks_pixels: (B, 68, 2) (x right, **y up**) in the 224-pixel crop.
    """

    vertices_camera: Tensor
    normals: Tensor
    texture: Tensor
    colours: Tensor
    landmarks_pixels: Tensor


class FacePicture(NamedTuple):
    """Drawn faces.

    Attributes:
        colours: (B, 3, 224, 224) lit RGB, about 0 to 1, not clamped, 0 where there is no face.
        mask: (B, 1, 224, 224) 0 or 1.
        depth: (B, 1, 224, 224) decimetres from the camera, 0 where there is no face.
    """

    colours: Tensor
    mask: Tensor
    depth: Tensor


class BfmModel(nn.Module):
    """The face model, float32. Build it with `load_bfm` or `from_arrays`.

    Args:
        tensors: mean_shape (V, 3), identity_basis (3 V, 80), expression_basis (3 V, 64), mean_texture (3 V,),
            texture_basis (3 V, 80), faces (T, 3), vertex_faces (V, 8) with T for none, landmark_vertices (68,).
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "BfmModel":
        """Build the model from the arrays of the published file, by its names, indices from 1.

        Raises:
            ValueError: arrays that are missing, of other shapes, or with indices out of range.
        """
        _check_arrays(arrays)
        floats = {name: torch.from_numpy(np.asarray(arrays[name], np.float32)) for name in _FLOATS}
        indices = {name: torch.from_numpy(np.asarray(arrays[name]).astype(np.int64)) - 1 for name in _INDICES}
        return cls(
            {
                "mean_shape": floats["meanshape"].view(-1, 3) - torch.tensor(_CENTRE),
                "identity_basis": floats["idBase"],
                "expression_basis": floats["exBase"],
                "mean_texture": floats["meantex"].flatten(),
                "texture_basis": floats["texBase"],
                "faces": indices["tri"],
                "vertex_faces": indices["point_buf"],
                "landmark_vertices": indices["keypoints"].flatten(),
            }
        )

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Return vertices (B, V, 3) before rotation and translation of identity (B, 80) and expression (B, 64)."""
        offsets = identity @ self.identity_basis.T + expression @ self.expression_basis.T
        return self.mean_shape + offsets.view(len(offsets), -1, 3)

    def texture(self, texture: Tensor) -> Tensor:
        """Return unlit RGB (B, V, 3), about 0 to 1, of coefficients (B, 80)."""
        return (self.mean_texture + texture @ self.texture_basis.T).view(len(texture), -1, 3) / 255

    def normals(self, vertices: Tensor) -> Tensor:
        """Return unit vertex normals (B, V, 3): the mean of the normals of up to eight faces around each vertex."""
        first, second, third = vertices[:, self.faces].unbind(2)
        of_faces = functional.normalize(torch.cross(first - second, second - third, dim=-1), dim=-1, eps=1e-12)
        of_faces = functional.pad(of_faces, (0, 0, 0, 1))  # index T: no face
        return functional.normalize(of_faces[:, self.vertex_faces].sum(2), dim=-1, eps=1e-12)

    def forward(self, coefficients: BfmCoefficients) -> BfmFace:
        """Pose and light faces."""
        vertices = self.shape(coefficients.identity, coefficients.expression)
        rotation = rotation_from_angles(coefficients.angle_rad)
        normals = self.normals(vertices) @ rotation
        posed = vertices @ rotation + coefficients.translation[:, None]
        camera = posed * posed.new_tensor([1, 1, -1]) + posed.new_tensor([0, 0, CAMERA_DISTANCE])
        texture = self.texture(coefficients.texture)
        return BfmFace(
            vertices_camera=camera,
            normals=normals,
            texture=texture,
            colours=light(texture, normals, coefficients.lighting),
            landmarks_pixels=project(camera[:, self.landmark_vertices]),
        )

    def render(self, face: BfmFace) -> FacePicture:
        """Draw faces as they lie in the 224-pixel crop. Gradients flow to the colours only.

        As in published pictures, pixels that show the model's first triangle count as background.
        """
        points = face.vertices_camera * face.vertices_camera.new_tensor([1, 1, -1])
        fragments = rasterize_perspective(points, self.faces, BFM_IMAGE_SIZE, BFM_FOV_DEG, cull_backfaces=False)
        mask = (fragments.face_index > 0).float()[:, None]
        colours = interpolate_vertices(fragments, self.faces, face.colours)
        return FacePicture(colours * mask, mask, fragments.depth[:, None] * mask)


def rotation_from_angles(angle_rad: Tensor) -> Tensor:
    """Return rotations (B, 3, 3) to be applied on the right of row vectors, (R_z R_y R_x)^T, of (B, 3) x, y, z."""
    sin, cos = angle_rad.sin().unbind(-1), angle_rad.cos().unbind(-1)
    rotation = torch.eye(3, dtype=angle_rad.dtype, device=angle_rad.device).expand(len(angle_rad), 3, 3)
    for axis in range(3):
        after, last = (axis + 1) % 3, (axis + 2) % 3
        elementary = torch.zeros_like(rotation)
        elementary[:, axis, axis] = 1
        elementary[:, after, after] = elementary[:, last, last] = cos[axis]
        elementary[:, after, last], elementary[:, last, after] = -sin[axis], sin[axis]
        rotation = elementary @ rotation
    return rotation.mT


def project(points_camera: Tensor) -> Tensor:
    """Project points (..., 3) in camera axes to (..., 2) pixels of the 224-pixel crop, x right, **y up**."""
    return BFM_FOCAL_PIXELS * points_camera[..., :2] / points_camera[..., 2:] + BFM_IMAGE_SIZE / 2


def light(texture: Tensor, normals: Tensor, lighting: Tensor) -> Tensor:
    """Light RGB (B, V, 3) under unit normals (B, V, 3) by spherical harmonics of order 2.

    Args:
        texture: unlit colours.
        normals: model axes.
        lighting: (B, 27), nine of each channel, less 0.8 in its first.

    Returns:
        (B, V, 3), not clamped.

    Source: preprocess-networks.md §4.4.
    """
    x, y, z = normals.unbind(-1)
    k0, k1, k2 = math.sqrt(math.pi) / 2, math.sqrt(math.pi), math.sqrt(math.pi) * math.sqrt(15 / 8)
    harmonics = torch.stack(
        [
            torch.full_like(x, k0),
            -k1 * y,
            k1 * z,
            -k1 * x,
            k2 * x * y,
            -k2 * y * z,
            k2 / (2 * math.sqrt(3)) * (3 * z * z - 1),
            -k2 * x * z,
            k2 / 2 * (x * x - y * y),
        ],
        -1,
    )
    weights = lighting.view(-1, 3, 9) + functional.pad(lighting.new_tensor([_AMBIENT]), (0, 8))
    return texture * (harmonics @ weights.mT)


def draw_over(crops: Tensor, picture: FacePicture) -> Tensor:
    """Return crops (B, 3, 224, 224) in [-1, 1] and, right of each, the same under its face: (B, 3, 224, 448)."""
    faces = (2 * picture.colours - 1).clamp(-1, 1)
    return torch.cat([crops, torch.where(picture.mask > 0, faces, crops)], -1)


def load_bfm(path: str | Path | None = None) -> BfmModel:
    """Load `BFM_model_front.mat`, on the CPU. Nothing in the file is run.

    Args:
        path: the file; None looks below the folder of PORTRAIT4D_ASSETS, then below `portrait4d/models`.

    Raises:
        AssetMissingError: `path` is None and the file is in neither place.
        InputFileError: the file is missing, damaged, or holds something else.
    """
    if path is None:
        asset = REGISTERED_ASSETS["bfm"]
        places = asset_places(asset.path)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise AssetMissingError(f"{asset.title} ({places[0].name})", places, f"its owners: {asset.instructions}")
    check_bfm(Path(path))
    try:
        return BfmModel.from_arrays(loadmat(path, variable_names=[*_FLOATS, *_INDICES]))
    except ValueError as error:
        raise InputFileError(path, str(error), "make it again") from error


_FLOATS = ("meanshape", "idBase", "exBase", "meantex", "texBase")
_INDICES = ("tri", "point_buf", "keypoints")


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    missing = [name for name in (*_FLOATS, *_INDICES) if name not in arrays]
    if missing:
        raise ValueError(f"{', '.join(missing)}: expected in the face model, got none")
    coordinates, triangles = arrays["meanshape"].size, len(arrays["tri"])
    shapes = {name: (coordinates, components) for name, components in _COMPONENTS.items()}
    shapes |= {"meanshape": (1, coordinates), "meantex": (1, coordinates), "tri": (triangles, 3)}
    shapes |= {"point_buf": (coordinates // 3, 8), "keypoints": (1, _LANDMARKS)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {arrays[name].shape}")
    highest = {"tri": coordinates // 3, "keypoints": coordinates // 3, "point_buf": triangles + 1}
    for name, most in highest.items():
        low, high = int(arrays[name].min()), int(arrays[name].max())
        if low < 1 or high > most:
            raise ValueError(f"{name}: expected indices from 1 to {most}, got {low} to {high}")
