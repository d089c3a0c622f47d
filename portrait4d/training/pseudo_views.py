"""Views of a driving picture that nobody took: a frozen static reconstructor shows its head from somewhere else.

From them v2 reads the driving motion, so that it does not depend on the view, and learns how heads look from the side.
Source: training-recon-v2.md §4, §5.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.config.recon_training import PseudoViewConfig
from portrait4d.geometry.lookat_cameras import CAMERA_DRAWS, frontal_camera, random_camera_pose, replace_pose
from portrait4d.losses.reconstruction import teacher_box_scale
from portrait4d.models.reconstructor import Reconstructor, RenderOptions
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.training.supervision import MotionOf, SupervisedBatch


class PseudoDraws(NamedTuple):
    """Uniform numbers of B pseudo views: `camera` (B, 7), `keep` (B,)."""

    camera: Tensor
    keep: Tensor


class TeacherView(NamedTuple):
    """What the static model shows: `image` (B, 3, S, S) and `mask` (B, 1, R, R), both in [-1, 1]."""

    image: Tensor
    mask: Tensor


class PseudoViews:
    """A frozen static reconstructor and what it is used for.

    Args:
        network: the static model.
        config: probabilities and weights.
        motion: reads motion vectors from its pictures.
    """

    def __init__(self, network: Reconstructor, config: PseudoViewConfig, motion: MotionOf) -> None:
        self.network, self.config, self.motion = network.eval().requires_grad_(False), config, motion

    @torch.no_grad()
    def augment_motion(self, batch: SupervisedBatch, resolution: int, generator: torch.Generator) -> SupervisedBatch:
        """Replace driving motions by what is read from pseudo views, each with the configured probability."""
        draws = PseudoDraws(
            torch.rand(len(batch), CAMERA_DRAWS, generator=generator, device=generator.device),
            torch.rand(len(batch), generator=generator, device=generator.device),
        )
        return self.read_motion(batch, resolution, draws)

    @torch.no_grad()
    def read_motion(self, batch: SupervisedBatch, resolution: int, draws: PseudoDraws) -> SupervisedBatch:
        """Do so with given draws; a motion is kept where `keep` is below 1 - probability."""
        camera = replace_pose(batch.camera, random_camera_pose(draws.camera))
        head = self.network.head
        planes, background = self._reconstruct(batch)
        deformation = self.network.head_pose_field(batch.params)
        view = self.network.render(planes, background, camera, deformation, RenderOptions(resolution))
        landmarks = landmarks_2d(head, batch.params, camera, view.image_sr.shape[-1])
        read = self.motion(view.image_sr.float(), landmarks, batch.params)
        kept = draws.keep[:, None] < 1 - self.config.motion_probability
        return replace(batch, driving_motion=torch.where(kept, batch.driving_motion, read))

    @torch.no_grad()
    def show(self, batch: SupervisedBatch, camera: Tensor, resolution: int) -> TeacherView:
        """Show the driving picture's head, its neck unrotated, from a camera (B, 25)."""
        scales = self.box_scales(batch)
        planes, background = self._reconstruct(batch)
        views = []
        for k, box_scale in enumerate(scales.tolist()):
            one = slice(k, k + 1)
            options = RenderOptions(resolution, box_scale=box_scale)
            view = self.network.render(planes[one], background[one], camera[one], None, options)
            views.append(TeacherView(view.image_sr.float(), view.mask))
        return TeacherView(*(torch.cat(parts) for parts in zip(*views, strict=True)))

    def _reconstruct(self, batch: SupervisedBatch) -> tuple[Tensor, Tensor]:
        """Return planes and background of the driving picture's head, without motion of its own."""
        scale = torch.zeros(len(batch), 1, 1, device=batch.camera.device)
        source = self.network.encode_source(batch.driving_image, batch.driving_motion, scale)
        return self.network.generate_planes(source, batch.driving_motion, scale), source.background

    def box_scales(self, batch: SupervisedBatch) -> Tensor:
        """Return the factor (B,) on the cube's side of each head, see `teacher_box_scale`."""
        if not self.config.scale_by_eyes:
            return torch.ones(len(batch))
        camera = frontal_camera(batch.camera)
        return teacher_box_scale(landmarks_2d(self.network.head, batch.params, camera, batch.target_image.shape[-1]))
