"""Pools of head shapes, cameras and motions to draw training views from.

A motion is expression, pose (neck | jaw) and eyes; the neck's rotation is zero throughout, because cameras contain the
head rotation. Sources: datasets.md §6, training-recon-v1.md §3, §4, §10.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.sampling import bank_grid_rows
from portrait4d.files.errors import InputFileError
from portrait4d.files.numpy_errors import UNREADABLE_ARRAY

VIEWS = 3
"""Views of a subject: 0 source, 1 driving, 2 target. Driving and target share their motion."""
JAW_PROBABILITY = 0.5
JAW_LIMIT_RAD = 0.2
SHAPE_FILES = ("ffhq_all_shape_n_c_params.npy", "vfhq_all_shape_n_c_params.npy")
STILL_MOTION_FILE = "ffhq_all_motion_params.npy"
VIDEO_MOTION_FILE = "vfhq_all_motion_params.npy"
_SHAPE_COLUMNS, _MOTION_COLUMNS = 325, 112


@dataclass(frozen=True)
class MotionPool:
    """Motions: `expression` (..., 100), `pose` (..., 6) neck | jaw axis-angle in radians, `eye_pose` (..., 6)."""

    expression: Tensor
    pose: Tensor
    eye_pose: Tensor

    @classmethod
    def from_columns(cls, columns: Tensor) -> "MotionPool":
        """Split rows (..., 112) = expression | pose | eyes, and set the neck's rotation to zero.

        Raises:
            ValueError: another number of columns.
        """
        if columns.shape[-1] != _MOTION_COLUMNS:
            raise ValueError(f"columns: expected (..., {_MOTION_COLUMNS}), got {tuple(columns.shape)}")
        expression, pose, eye_pose = columns.float().split([100, 6, 6], dim=-1)
        pose = torch.cat([torch.zeros_like(pose[..., :3]), pose[..., 3:]], dim=-1)
        return cls(expression, pose, eye_pose)


@dataclass(frozen=True)
class ViewDraws:
    """The random numbers of one batch of b subjects.

    Attributes:
        shape: (b,) rows of shapes.
        camera: (b, 3) rows of cameras.
        video: (b,); frames: (b, 2) frames of it.
        eyes: (b, 2) rows among all frames of all videos.
        jaw_value, jaw_coin: (b, 2) uniform in [0, 1).
        still_expression, still_eyes: (b // 2,) rows of still motions, for the second half of the batch.
    """

    shape: Tensor
    camera: Tensor
    video: Tensor
    frames: Tensor
    eyes: Tensor
    jaw_value: Tensor
    jaw_coin: Tensor
    still_expression: Tensor
    still_eyes: Tensor


@dataclass(frozen=True)
class SubjectViews:
    """Parameters of b subjects in three views each: (b, 3, ...)."""

    camera: Tensor
    shape: Tensor
    expression: Tensor
    pose: Tensor
    eye_pose: Tensor

    def flat(self) -> "SubjectViews":
        """Return all views as one batch (3 b, ...), a subject's views together."""
        return SubjectViews(*(getattr(self, field.name).flatten(0, 1) for field in fields(self)))


@dataclass(frozen=True)
class ParameterBank:
    """What views are drawn from.

    Attributes:
        cameras: (N, 25) camera vectors that contain the head rotation.
        shapes: (N, 300); a shape is not tied to the camera of its row.
        still: motions (M, ...).
        video: motions (videos, frames, ...).
    """

    cameras: Tensor
    shapes: Tensor
    still: MotionPool
    video: MotionPool

    @classmethod
    def from_arrays(
        cls, shapes_and_cameras: list[np.ndarray], still_motions: np.ndarray, video_motions: np.ndarray
    ) -> "ParameterBank":
        """Build a bank from arrays laid out as the published files.

        Args:
            shapes_and_cameras: arrays (..., 325) = camera 25 | shape 300, pooled.
            still_motions: (..., 112).
            video_motions: (videos, frames, 112).

        Raises:
            ValueError: another number of columns or dimensions, no row, or numbers that are not finite.
        """
        for name, arrays, columns in (
            ("shapes_and_cameras", shapes_and_cameras, _SHAPE_COLUMNS),
            ("still_motions", [still_motions], _MOTION_COLUMNS),
            ("video_motions", [video_motions], _MOTION_COLUMNS),
        ):
            for array in arrays:
                if array.ndim < 1 or array.shape[-1] != columns or not array.size:
                    raise ValueError(f"{name}: expected (..., {columns}) with at least one row, got {array.shape}")
                if not np.isfinite(array).all():
                    raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        if video_motions.ndim != 3:
            raise ValueError(f"video_motions: expected (videos, frames, {_MOTION_COLUMNS}), got {video_motions.shape}")
        rows = np.concatenate([array.reshape(-1, _SHAPE_COLUMNS) for array in shapes_and_cameras])
        cameras, shapes = torch.from_numpy(rows.astype(np.float32)).split([25, 300], dim=1)
        still = torch.from_numpy(still_motions.astype(np.float32)).reshape(-1, _MOTION_COLUMNS)
        video = torch.from_numpy(video_motions.astype(np.float32))
        return cls(
            cameras.contiguous(), shapes.contiguous(), MotionPool.from_columns(still), MotionPool.from_columns(video)
        )

    @classmethod
    def load(cls, folder: str | Path) -> "ParameterBank":
        """Load the four published `.npy` files from `folder`.

        Raises:
            InputFileError: one is missing, damaged or has another shape.
        """
        folder = Path(folder)
        names = (*SHAPE_FILES, STILL_MOTION_FILE, VIDEO_MOTION_FILE)
        arrays = [_load(folder / name) for name in names]
        try:
            return cls.from_arrays(arrays[:2], arrays[2], arrays[3])
        except ValueError as error:
            raise InputFileError(folder, str(error), f"expected the published {', '.join(names)}") from error

    def draw(self, subjects: int, generator: torch.Generator | None = None) -> ViewDraws:
        """Draw the random numbers of a batch; rows evenly and with replacement.

        Raises:
            ValueError: `subjects` below 1.
        """
        if subjects < 1:
            raise ValueError(f"subjects: expected at least 1, got {subjects}")

        def rows(count: int, *shape: int) -> Tensor:
            return torch.randint(count, shape, generator=generator)

        videos, frames = self.video.expression.shape[:2]
        stills = len(self.still.expression)
        return ViewDraws(
            shape=rows(len(self.shapes), subjects),
            camera=rows(len(self.cameras), subjects, VIEWS),
            video=rows(videos, subjects),
            frames=rows(frames, subjects, 2),
            eyes=rows(videos * frames, subjects, 2),
            jaw_value=torch.rand(subjects, 2, generator=generator),
            jaw_coin=torch.rand(subjects, 2, generator=generator),
            still_expression=rows(stills, subjects // 2),
            still_eyes=rows(stills, subjects // 2),
        )

    def compute_views(self, draws: ViewDraws, static: bool = False, half_static: bool = False) -> SubjectViews:
        """Look drawn rows up and lay them out over the three views.

        Expressions, poses and eyes of the views are those of frames (f0, f1, f1); eyes are drawn apart. With
        probability 1/2 a frame's jaw opening becomes uniform in [0, 0.2] rad.

        Args:
            draws: the random numbers.
            static: all three views show the first frame.
            half_static: the second half of the batch shows one still motion in all views; of an odd number of subjects
                the middle one moves.
        """
        subjects = len(draws.shape)
        order = [0, 0, 0] if static else [0, 1, 1]
        video, frames = draws.video[:, None], draws.frames
        pose = self.video.pose[video, frames].clone()
        opened = draws.jaw_coin >= 1 - JAW_PROBABILITY
        pose[..., 3] = torch.where(opened, draws.jaw_value * JAW_LIMIT_RAD, pose[..., 3])
        expression = self.video.expression[video, frames][:, order]
        pose = pose[:, order]
        eyes = self.video.eye_pose.flatten(0, 1)[draws.eyes][:, order]
        if half_static:
            half = subjects - subjects // 2
            expression[half:] = self.still.expression[draws.still_expression][:, None]
            pose[half:] = self.still.pose[draws.still_expression][:, None]
            eyes[half:] = self.still.eye_pose[draws.still_eyes][:, None]
        shape = self.shapes[draws.shape][:, None].repeat(1, VIEWS, 1)
        return SubjectViews(self.cameras[draws.camera], shape, expression, pose, eyes)

    def sample_views(
        self,
        subjects: int,
        generator: torch.Generator | None = None,
        static: bool = False,
        half_static: bool = False,
    ) -> SubjectViews:
        """Draw `subjects` subjects in three views; see `draw` and `compute_views`."""
        return self.compute_views(self.draw(subjects, generator), static, half_static)

    def grid_views(self, cells: int, camera_seed: int, static: bool = False) -> SubjectViews:
        """Return the subjects of the v1 snapshot grid, the same in every run but for the cameras.

        Eyes come from the frames of the expressions here, and no jaw is opened.

        Args:
            cells: subjects.
            camera_seed: of the cameras.
            static: all three views show the first frame.
        """
        videos, frames = self.video.expression.shape[:2]
        rows = bank_grid_rows((len(self.shapes), videos, frames, len(self.cameras)), cells, camera_seed)
        video, shown = torch.from_numpy(rows.video)[:, None], torch.from_numpy(rows.frames)
        shown = shown[:, [0, 0, 0] if static else [0, 1, 1]]
        return SubjectViews(
            self.cameras[torch.from_numpy(rows.camera)],
            self.shapes[torch.from_numpy(rows.shape)][:, None].repeat(1, VIEWS, 1),
            *(getattr(self.video, field.name)[video, shown] for field in fields(MotionPool)),
        )


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except UNREADABLE_ARRAY as error:
        raise InputFileError(path, f"not a readable .npy array ({error})", "put the published file there") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise InputFileError(path, "expected an array of floating-point numbers")
    return array
