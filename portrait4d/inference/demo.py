"""Inputs and network of the demonstration: painted heads, a stored head-pose sequence, a seeded untrained network."""

from pathlib import Path

import numpy as np
import torch

from portrait4d.config.load import load_config
from portrait4d.config.networks import ReconstructorConfig
from portrait4d.data.image_io import save_image
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, FITTED_LABELS
from portrait4d.files.atomic import atomic_path
from portrait4d.geometry.cameras import FRONTAL_POSITION, intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.face_alignment import fit_similarity, warp_affine
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams, join_label
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.models.checkpoints import save_reconstructor
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.synthetic_heads.ellipsoid_head import VERSION, build_ellipsoid_head
from portrait4d.synthetic_heads.ellipsoid_portrait import Look, paint_portrait, sample_look

NETWORK_CONFIG = "reconstructor-demo-128.yaml"
EXAMPLES = Path(__file__).parents[1] / "examples"
POSE_SEQUENCE = EXAMPLES / "head_poses.csv"
"""Columns neck x, y, z, jaw x (radians), smile, mouth opening."""

ASTRONAUT_POINTS = ((203.4, 100.6), (246.4, 103.0), (223.6, 145.0))
"""Eyes and mouth in pixels of scikit-image's astronaut photo, and where a 512-pixel crop has them."""
ASTRONAUT_TARGETS = ((201.0, 220.0), (311.0, 220.0), (256.0, 335.0))


def read_poses(path: Path = POSE_SEQUENCE) -> list[HeadParams]:
    """Read a stored head-pose sequence as head parameters of batch size 1."""
    rows = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32, ndmin=2)
    return [_head_params(row) for row in rows]


def _head_params(row: np.ndarray) -> HeadParams:
    expression = torch.zeros(1, EXPRESSION_DIM)
    expression[0, :2] = torch.from_numpy(row[4:6])
    pose = torch.zeros(1, 6)
    pose[0, :4] = torch.from_numpy(row[:4])
    return HeadParams(torch.zeros(1, SHAPE_DIM), expression, pose, torch.zeros(1, 6))


def write_painted_portrait(folder: Path, stem: str, look: Look, params: HeadParams, resolution: int = 512) -> None:
    """Write a painted head as one portrait of a prepared folder: picture and frame label."""
    camera = join_camera(_frontal_cam2world(), intrinsics_from_fov())
    picture = paint_portrait(look, camera, params.pose[0], params.expression[0], resolution)
    _write_portrait(folder, stem, picture, params)


def _write_portrait(folder: Path, stem: str, picture: torch.Tensor, params: HeadParams) -> None:
    """Write a picture seen by the frontal camera, and its label, whose camera sees the head upright."""
    save_image(folder / ALIGNED_IMAGES / f"{stem}.jpg", picture, quality=90)
    turn_back = torch.eye(4)
    turn_back[:3, :3] = axis_angle_to_matrix(params.pose[0, :3]).T
    camera = join_camera(turn_back @ _frontal_cam2world(), intrinsics_from_fov())
    with atomic_path(folder / FITTED_LABELS / f"{stem}.npy") as temporary:
        np.save(temporary, join_label(camera[None], params)[0].numpy())


def _frontal_cam2world() -> torch.Tensor:
    return orbit_cam2world(torch.zeros(()), torch.zeros(()), FRONTAL_POSITION)


def write_examples(folder: Path = EXAMPLES) -> None:
    """Write the bundled examples: an astronaut (NASA, public domain, from scikit-image) and two painted heads."""
    from skimage.data import astronaut

    photo = torch.from_numpy(astronaut()).permute(2, 0, 1)[None] / 127.5 - 1
    transform = fit_similarity(torch.tensor(ASTRONAUT_POINTS), torch.tensor(ASTRONAUT_TARGETS))
    crop = warp_affine(photo.float(), transform[None].float(), (512, 512))[0]
    poses = read_poses()
    _write_portrait(folder, "astronaut", crop, _head_params(np.array([0.0, 0.05, -0.06, 0.0, 1.0, 0.2], np.float32)))
    for number, seed in enumerate((0, 2)):
        write_painted_portrait(
            folder, f"painted-{number + 1}", sample_look(np.random.default_rng(seed)), poses[4 * number + 1]
        )


def write_driving_folder(folder: Path, seed: int = 7) -> None:
    """Paint one head in every pose of the stored sequence as a prepared folder."""
    look = sample_look(np.random.default_rng(seed))
    for number, params in enumerate(read_poses()):
        write_painted_portrait(folder, f"pose-{number:02d}", look, params, resolution=256)


def write_untrained_network(path: Path, seed: int = 0) -> None:
    """Write the demonstration's network: seeded random weights on the ellipsoid head."""
    torch.manual_seed(seed)
    head = HeadModel.from_assets(build_ellipsoid_head(), VERSION)
    save_reconstructor(path, Reconstructor(load_config(ReconstructorConfig, NETWORK_CONFIG), head))
