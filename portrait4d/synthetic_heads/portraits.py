"""Portraits of the open head world as files of a prepared folder, with exact labels.

The head turns its neck in front of a frontal camera; the label's camera sees the same head upright, and its
world-to-camera rotation is the neck's rotation. For a neck joint p and rotation R, x -> R x + t is the label's view and
x -> p + R (x - p) + t' with t' = t - p + R p what is rendered: the same picture of the head.
Source: flame-fitting.md section 1, datasets.md section 1.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.image_io import save_image
from portrait4d.data.portrait_folder import (
    ALIGNED_IMAGES,
    FITTED_LABELS,
    LANDMARKS_68,
    LANDMARKS_98,
    MOTION_VECTORS,
    SEGMENTATIONS,
    SIMPLIFIED_LABELS,
)
from portrait4d.files.atomic import atomic_path
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.flame import NECK
from portrait4d.geometry.head_params import HeadParams, join_label
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.synthetic_heads.appearance import Appearance
from portrait4d.synthetic_heads.figure import Figure, open_head_model
from portrait4d.synthetic_heads.motions import Motion, motion_vector
from portrait4d.synthetic_heads.scene import Portrait, frame_of, render_portrait

VIEWS = "views"
"""Sub-folder of a prepared folder with extra views of its portraits: align_images, segs and flame_optim_params."""
ARRAY_FOLDERS = (LANDMARKS_98, LANDMARKS_68, FITTED_LABELS, SIMPLIFIED_LABELS, MOTION_VECTORS)
_VIEW_YAWS_DEG = (-35.0, 35.0, -18.0, 18.0, -55.0, 55.0)
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Shot:
    """A person in one motion, and the cameras of the picture.

    Attributes:
        params: batch of 1, neck rotation included.
        render_camera: (1, 25) in front of the turned head.
        label_camera: (1, 25) that sees the upright head in the same way.
    """

    params: HeadParams
    render_camera: Tensor
    label_camera: Tensor

    @property
    def label(self) -> np.ndarray:
        """The frame label (437,) float32."""
        return join_label(self.label_camera, self.params)[0].numpy()


def plan_shot(person: Appearance, motion: Motion, view: int = 0) -> Shot:
    """Place the cameras for a person and a motion.

    Args:
        person: gives the identity.
        motion: expression, gaze, jaw, neck and the label's camera translation.
        view: 0 is the main view; view 1, 2, ... orbit it about the neck's origin, and change nothing but the camera.

    Raises:
        ValueError: if `view` is negative.
    """
    if view < 0:
        raise ValueError(f"view: expected 0 or more, got {view}")
    return plan_orbit_shot(person, motion, *view_angles_rad(view))


def plan_orbit_shot(person: Appearance, motion: Motion, yaw_rad: float, pitch_rad: float = 0.0) -> Shot:
    """Place the cameras for a person and a motion, turned about the neck's origin from where view 0 is."""
    parts = [torch.from_numpy(a) for a in (motion.expression, motion.jaw_rad, motion.gaze_rad, motion.neck_rad)]
    params = frame_of(person, parts[0], parts[1], parts[2].repeat(2), parts[3])
    pivot = neck_joint(params)
    rotation = axis_angle_to_matrix(params.pose[0, :3].double())
    translation = torch.from_numpy(motion.camera_translation).double()
    position = -(translation - pivot + rotation @ pivot)
    angles = torch.tensor(yaw_rad, dtype=torch.float64), torch.tensor(pitch_rad, dtype=torch.float64)
    cam2world = orbit_cam2world(*angles, tuple(position.tolist()))
    upright = cam2world.clone()
    upright[:3, :3] = rotation.T @ cam2world[:3, :3]
    upright[:3, 3] = rotation.T @ (cam2world[:3, 3] - pivot) + pivot
    intrinsics = intrinsics_from_fov()
    cameras = [join_camera(pose.float(), intrinsics)[None] for pose in (cam2world, upright)]
    return Shot(params, *cameras)


def neck_joint(params: HeadParams) -> Tensor:
    """Return the neck joint (3,) float64 of one head, world units; it follows identity and expression."""
    mean, directions = _neck_joint_parts()
    return mean + directions @ torch.cat([params.shape[0], params.expression[0]]).double()


@cache
def _neck_joint_parts() -> tuple[Tensor, Tensor]:
    """Return the template's neck joint (3,) and its change (3, 400) per coefficient, float64."""
    head = open_head_model()
    weights = head.joint_regressor[NECK].double()
    return weights @ head.template.double(), torch.einsum("v,vkl->kl", weights, head.blend_directions.double())


def view_angles_rad(view: int) -> tuple[float, float]:
    """Return yaw and pitch of a view; view 0 is the frontal one, the others alternate between the sides."""
    if view == 0:
        return 0.0, 0.0
    turn, number = divmod(view - 1, len(_VIEW_YAWS_DEG))
    level = (turn + 1) // 2 * (1 if turn % 2 else -1)
    return float(np.deg2rad(_VIEW_YAWS_DEG[number])), float(np.deg2rad(12.0 * level))


def portrait_files(folder: Path, stem: str, suffix: str, views: int = 0) -> list[Path]:
    """List all files of a portrait, the picture last of all."""
    name = f"{stem}{suffix}"
    files = [folder / kind / f"{stem}.npy" for kind in ARRAY_FOLDERS]
    for view in range(1, views + 1):
        extra = f"{stem}_v{view:02d}"
        files += [folder / VIEWS / kind / f"{extra}{suffix}" for kind in (SEGMENTATIONS, ALIGNED_IMAGES)]
        files.append(folder / VIEWS / FITTED_LABELS / f"{extra}.npy")
    return [*files, folder / SEGMENTATIONS / name, folder / ALIGNED_IMAGES / name]


def is_complete(folder: Path, stem: str, suffix: str, views: int = 0) -> bool:
    """Say whether all files of a portrait are there."""
    return all(path.is_file() for path in portrait_files(folder, stem, suffix, views))


def write_portrait(folder: Path, name: str, figure: Figure, motion: Motion, resolution: int, views: int = 0) -> None:
    """Render a portrait and write all its files, each atomically, the picture last.

    Args:
        folder: prepared folder.
        name: of the picture, with the suffix .png or .jpg.
        figure: the person, on the CPU.
        motion: what the person does.
        resolution: pixels per side.
        views: extra views, written to the sub-folder `views` with the suffixes _v01, _v02, ...
    """
    stem, suffix = Path(name).stem, Path(name).suffix
    for view in range(1, views + 1):
        shot = plan_shot(figure.person, motion, view)
        extra = f"{stem}_v{view:02d}"
        save_array(folder / VIEWS / FITTED_LABELS / f"{extra}.npy", shot.label)
        _save_pictures(folder / VIEWS, f"{extra}{suffix}", _render(figure, shot, resolution))
    shot = plan_shot(figure.person, motion)
    portrait = _render(figure, shot, resolution)
    arrays = (portrait.landmarks98.numpy(), portrait.landmarks68.numpy(), shot.label, shot.label, motion_vector(motion))
    for kind, array in zip(ARRAY_FOLDERS, arrays, strict=True):
        save_array(folder / kind / f"{stem}.npy", array)
    _save_pictures(folder, name, portrait)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, atomically."""
    with atomic_path(path) as temporary:
        np.save(temporary, array)


def _render(figure: Figure, shot: Shot, resolution: int) -> Portrait:
    return render_portrait(figure, shot.params, shot.render_camera, resolution, maps=False)


def _save_pictures(folder: Path, name: str, portrait: Portrait) -> None:
    mask = torch.where(portrait.mask >= 0.5, 1.0, -1.0).expand(3, -1, -1)
    save_image(folder / SEGMENTATIONS / name, mask, quality=100)
    save_image(folder / ALIGNED_IMAGES / name, portrait.image, quality=JPEG_QUALITY)
