"""Subjects of the open head world, rendered when they are asked for: every seed is another person.

The person shows motion f0 to the source's camera and f1 to the others, each with the head turned as the motion says.
The target is seen, with probability 1/2, by a random camera of training-recon-v1.md §5 instead of the portrait's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.image_io import to_uint8
from portrait4d.geometry.cameras import split_camera
from portrait4d.geometry.lookat_cameras import CAMERA_DRAWS, random_camera_pose, replace_pose
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.ops.resize import resize_antialiased
from portrait4d.rendering.rays import camera_rays
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.figure import Detail, Figure, build_figure, open_head_model
from portrait4d.synthetic_heads.motions import Motion, motion_vector, sample_lively_motion, sample_still_motion
from portrait4d.synthetic_heads.portraits import Shot, plan_shot
from portrait4d.synthetic_heads.scene import Portrait, render_portrait
from portrait4d.training.subject_frames import PersonFrames, PortraitFrame, SubjectFrames

RANDOM_CAMERA_PROBABILITY = 0.5
PERSON_VIEWS = 2
"""Of each motion of `load_person`: the portrait's own, and a random camera's."""
_SEEDS = 2**53


@dataclass(frozen=True)
class RenderedSubjects:
    """Subjects rendered on the CPU, in the process that asks.

    A still subject keeps expression, jaw and gaze of f0 but turns its head as in f1, which is another view of it.

    Attributes:
        size: pixels a side.
        depth_resolution: R of the target's exact depth; None for no depth.
        cross_driving: the driving picture shows another person with the same motion.
    """

    size: int
    depth_resolution: int | None = None
    cross_driving: bool = False
    has_motions = True
    has_views = True

    def load(self, seed: int, still: bool) -> SubjectFrames:
        """Render the subject of a seed, on one thread: for small pictures more are slower, by far on a busy machine."""
        with _one_thread():
            return self._load(seed, still)

    def _load(self, seed: int, still: bool) -> SubjectFrames:
        rng = np.random.default_rng([seed, 4])
        person, other, moving = (int(number) for number in rng.integers(_SEEDS, size=3))
        draws = torch.from_numpy(rng.random(CAMERA_DRAWS).astype(np.float32))
        first, second = (sample_still_motion(moving, number) for number in range(2))
        if still:
            second = replace(first, neck_rad=second.neck_rad, camera_translation=second.camera_translation)
        figure = self._build(person)
        own = plan_shot(figure.person, second)
        shot = free_shot(own, random_camera_pose(draws)) if rng.random() < RANDOM_CAMERA_PROBABILITY else own
        target = self._render(figure, shot)
        driver = self._build(other) if self.cross_driving else figure
        return SubjectFrames(
            source=self._frame(figure, first),
            driving=_to_frame(target, shot, second)
            if shot is own and driver is figure
            else self._frame(driver, second),
            target=_to_frame(target, shot, second),
            depth=self._depth(target, shot),
        )

    def load_person(self, seed: int, motions: int) -> PersonFrames:
        """Render a person in lively motions, each seen by the portrait's own and by a random camera; on one thread."""
        with _one_thread():
            rng = np.random.default_rng([seed, 5])
            figure, moving = self._build(int(rng.integers(_SEEDS))), int(rng.integers(_SEEDS))
            frames, depths = [], []
            for number in range(motions):
                motion = sample_lively_motion(moving, number)
                own = plan_shot(figure.person, motion)
                draws = torch.from_numpy(rng.random(CAMERA_DRAWS).astype(np.float32))
                for shot in (own, free_shot(own, random_camera_pose(draws))):
                    portrait = self._render(figure, shot)
                    frames.append(_to_frame(portrait, shot, motion))
                    depths.append(self._depth(portrait, shot))
        return PersonFrames.stack(frames, depths, motions)

    def photograph(self, figure: Figure, shot: Shot, motion: Motion) -> PortraitFrame:
        """Render a person's picture, with the person's label and motion; on one thread."""
        with _one_thread():
            return _to_frame(self._render(figure, shot), shot, motion)

    def _build(self, person: int) -> Figure:
        return build_figure(sample_appearance(person), Detail.for_size(self.size))

    def _render(self, figure: Figure, shot: Shot) -> Portrait:
        return render_portrait(figure, shot.params, shot.render_camera, self.size, maps=False)

    def _frame(self, figure: Figure, motion: Motion) -> PortraitFrame:
        shot = plan_shot(figure.person, motion)
        return _to_frame(self._render(figure, shot), shot, motion)

    def _depth(self, portrait: Portrait, shot: Shot) -> np.ndarray | None:
        if self.depth_resolution is None:
            return None
        return distance_along_rays(portrait.depth[None], shot.render_camera, self.depth_resolution)[0].numpy()


def free_shot(shot: Shot, cam2world_upright: Tensor) -> Shot:
    """See the head of a shot as a camera at `cam2world_upright` (4, 4) sees it upright; its neck stays turned."""
    upright = replace_pose(shot.label_camera, cam2world_upright[None])
    return Shot(shot.params, camera_for_posed_neck(open_head_model(), shot.params, upright), upright)


def distance_along_rays(depth: Tensor, camera: Tensor, resolution: int) -> Tensor:
    """Turn depth along the view axis into what volume rendering calls depth.

    Args:
        depth: (B, 1, S, S) world units, 0 in the background.
        camera: (B, 25).
        resolution: rays a side R.

    Returns:
        (B, 1, R, R) distance from the camera, averaged over what is seen of the head in a cell; where nothing is, that
        of the world's origin along the view axis.
    """
    size = depth.shape[-1]
    rays = camera_rays(camera, size)
    forward = -split_camera(camera).cam2world[:, :3, 2:3]
    distance = depth / (rays.directions @ forward).transpose(1, 2).unflatten(2, (size, size))
    share = resize_antialiased((depth > 0).to(depth), resolution)
    nothing = rays.centre_distance[:, None, None, None].expand_as(share)
    return torch.where(share > 0, resize_antialiased(distance, resolution) / share.clamp_min(1e-12), nothing)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _to_frame(portrait: Portrait, shot: Shot, motion: Motion) -> PortraitFrame:
    image, mask = (to_uint8(picture).numpy() for picture in (portrait.image, 2 * portrait.mask - 1))
    return PortraitFrame(image, mask, shot.label, motion_vector(motion))
