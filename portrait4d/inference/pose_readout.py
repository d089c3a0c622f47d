"""Yaw and pitch of faces of the open head world: a linear read-out of the compact motion encoder's features.

It judges results of reconstructors; that encoder was not made for poses, but has to see them to read what faces do.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from portrait4d.data.portrait_folder import ALIGNED_IMAGES, PreparedPortrait
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.cameras import invert_rigid, split_camera
from portrait4d.geometry.head_params import split_label
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.metrics.frame_errors import facing_angles_deg
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.ops.resize import resize_antialiased
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.synthetic_heads.figure import open_head_model
from portrait4d.synthetic_heads.portrait_sets import MANIFEST
from portrait4d.synthetic_heads.portraits import VIEWS

POSE_READOUT = Path(__file__).parents[1] / "examples" / "protocols" / "pose-readout-synthetic.safetensors"
"""Weights of the read-out of yaw and pitch, part of the package."""

FEATURE_LAYERS = 4
"""Layers of the encoder's `read_out` before its linear ones: what they answer is read for the pose."""

_CHUNK = 50


@dataclass(frozen=True)
class PoseReadout:
    """Yaw and pitch in degrees as a linear function of features: `weights` (F, 2) and `offsets` (2,)."""

    weights: Tensor
    offsets: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return angles (B, 2) of features (B, F)."""
        return features @ self.weights + self.offsets

    def to(self, device: torch.device) -> "PoseReadout":
        """Return the read-out on a device."""
        return PoseReadout(self.weights.to(device), self.offsets.to(device))


@dataclass(frozen=True)
class PoseExamples:
    """True pictures as the read-out sees them: `features` (N, F), `angles_deg` (N, 2) yaw and pitch."""

    features: Tensor
    angles_deg: Tensor


def pose_features(encoder: CompactMotionEncoder, crops: Tensor) -> Tensor:
    """Return the features (B, F) of crops from which the pose is read."""
    return encoder.read_out[:FEATURE_LAYERS](encoder.stages(crops))


@torch.no_grad()
def read_pose_examples(
    encoder: CompactMotionEncoder, root: Path, limit: int | None = None, size: int | None = None, mirror: bool = True
) -> PoseExamples:
    """Read the pictures, extra views included, of a set of `write_synthetic_portraits`.

    Args:
        encoder: whose features are read.
        root: of the set.
        limit: the first so many portraits; None: all.
        size: reduce pictures to so many pixels a side; None: as they are.
        mirror: also take every face mirrored.

    Raises:
        InputFileError: a file of the set is missing or damaged.
    """
    portraits, features, angles = _list_pictures(root)[:limit], [], []
    pictures = [picture for group in portraits for picture in group]
    for start in range(0, len(pictures), _CHUNK):
        crops, facing = _load_faces(encoder, pictures[start : start + _CHUNK], size)
        features.append(pose_features(encoder, crops))
        angles.append(facing)
        if mirror:
            features.append(pose_features(encoder, crops.flip(3)))
            angles.append(facing * facing.new_tensor([-1, 1]))
    return PoseExamples(torch.cat(features), torch.cat(angles))


def fit_pose_readout(examples: Sequence[PoseExamples], ridge: float = 10.0) -> PoseReadout:
    """Fit yaw and pitch to features by ridge regression on standardised features.

    Args:
        examples: all of them count alike.
        ridge: weight of the squared coefficients against the sum of squared errors in degrees.
    """
    x = torch.cat([part.features for part in examples]).double()
    y = torch.cat([part.angles_deg for part in examples]).double()
    centre, spread = x.mean(dim=0), x.std(dim=0) + 1e-3
    scaled = (x - centre) / spread
    normal = scaled.T @ scaled + ridge * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(normal, scaled.T @ (y - y.mean(dim=0))) / spread[:, None]
    return PoseReadout(weights.float(), (y.mean(dim=0) - centre @ weights).float())


def save_pose_readout(path: str | Path, readout: PoseReadout) -> None:
    """Write a read-out atomically."""
    with atomic_path(path) as temporary:
        save_file({"weights": readout.weights.contiguous(), "offsets": readout.offsets}, temporary)


def load_pose_readout(path: str | Path = POSE_READOUT) -> PoseReadout:
    """Load a read-out.

    Raises:
        InputFileError: the file is missing or damaged.
    """
    try:
        tensors = load_file(path)
        return PoseReadout(tensors["weights"], tensors["offsets"])
    except (OSError, KeyError, SafetensorError) as error:
        raise InputFileError(path, f"no pose read-out ({error})", "install the package again") from error


def _list_pictures(root: Path) -> list[list[PreparedPortrait]]:
    """Return each portrait with its extra views."""
    path = root / MANIFEST
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputFileError(path, f"no manifest of portraits ({error})", "write the set again") from error
    groups = []
    for row in rows:
        picture = root / row["file"]
        folder = picture.parents[1]
        names = [f"{picture.stem}_v{view:02d}" for view in range(1, row["views"] + 1)]
        views = folder / VIEWS
        extra = [PreparedPortrait(name, views / ALIGNED_IMAGES / f"{name}{picture.suffix}", views) for name in names]
        groups.append([PreparedPortrait(picture.stem, picture, folder), *extra])
    return groups


def _load_faces(
    encoder: CompactMotionEncoder, pictures: list[PreparedPortrait], size: int | None
) -> tuple[Tensor, Tensor]:
    """Return crops of faces, aligned by the head model's landmarks, and the angles (B, 2) in degrees."""
    head = open_head_model()
    images = torch.stack([picture.load_image() for picture in pictures])
    labels = torch.stack([torch.from_numpy(picture.load_frame_label(simplified=False)) for picture in pictures])
    upright, params = split_label(labels)
    if size is not None:
        images = resize_antialiased(images, size)
    landmarks = landmarks_2d(head, params, camera_for_posed_neck(head, params, upright), images.shape[-1])
    angles = facing_angles_deg(invert_rigid(split_camera(upright).cam2world)[:, :3, :3])
    return encoder.crop(images, landmarks, reverse_y=True), angles
