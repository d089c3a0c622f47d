"""Heads that a frozen GenHead makes up while a reconstructor learns from them (training-recon-v1.md §4 to §6).

Each subject is one latent and one identity in three views: source, driving, target, each with its own camera and
motion. The target comes with everything its volume rendering knows: mask, depth, features, background, plane samples.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.data.parameter_bank import VIEWS, ParameterBank, SubjectViews
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.lookat_cameras import CAMERA_DRAWS, frontal_camera, random_camera_pose, replace_pose
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.models.genhead import GenHead, GenHeadOptions
from portrait4d.models.outputs import GenHeadRender
from portrait4d.models.stylegan_mapping import Truncation
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.rendering.ray_sampling import Jitter, sample_jitter
from portrait4d.training.supervision import (
    MotionOf,
    PlaneSamples,
    SupervisedBatch,
    count_still,
    cpu_generator,
    join_batches,
)

RANDOM_CAMERA_PROBABILITY = 0.5
TRUNCATION = Truncation(psi=0.95, cutoff=14)
PLANE_SAMPLES = 4000
"""Points of a target at which the face's planes are compared."""
_CPU_RAYS_PER_CHUNK = 2048


@dataclass(frozen=True)
class GenHeadSupervisionConfig:
    """How a GenHead is used.

    Attributes:
        static: all three views of every subject show one motion.
        half_static: those of the second half of a batch do.
        truncation_psi: how far styles are pulled to their average is 1 - psi.
        resolution: rays a side.
        chunk: subjects, of three pictures each, made at once.
        dtype: of GenHead's networks; volume rendering stays in float32.
        frontal_probability: of telling GenHead a frontal camera instead of the subject's first one; 0 as published,
            where it is prepared (1/2) and never used.
    """

    static: bool = False
    half_static: bool = False
    truncation_psi: float = TRUNCATION.psi
    resolution: int = 64
    chunk: int = 4
    dtype: torch.dtype = torch.float32
    frontal_probability: float = 0.0


class CameraDraws(NamedTuple):
    """Random numbers of N views: `poses` (N, 7) of random cameras, `coins` (N,), all uniform in [0, 1)."""

    poses: Tensor
    coins: Tensor


class PlannedViews(NamedTuple):
    """What N views show; those of a subject together.

    Attributes:
        params: of N heads.
        camera: (N, 25) that sees the head with its neck posed.
        camera_upright: (N, 25) that sees it with its neck unrotated.
        condition_camera: (N, 25) what the mapping network is told, the subject's first one.
    """

    params: HeadParams
    camera: Tensor
    camera_upright: Tensor
    condition_camera: Tensor


class RenderedViews(NamedTuple):
    """What was made of N views; attributes as in `SupervisedBatch`, `motion` (N, D)."""

    image: Tensor
    mask: Tensor
    correspondence: Tensor
    depth: Tensor
    features: Tensor
    background: Tensor
    motion: Tensor


def plan_views(head: HeadModel, views: SubjectViews, draws: CameraDraws) -> PlannedViews:
    """Choose the camera of each view, with probability 1/2 a random one with the intrinsics of the view's own (§5.1-3).

    Args:
        head: the head model.
        views: (b, 3, ...).
        draws: of 3 b views.
    """
    flat = views.flat()
    params = HeadParams(flat.shape, flat.expression, flat.pose, flat.eye_pose)
    chosen = draws.coins < RANDOM_CAMERA_PROBABILITY
    upright = replace_pose(flat.camera, random_camera_pose(draws.poses), chosen)
    condition = views.camera[:, :1].expand_as(views.camera).flatten(0, 1)
    return PlannedViews(params, camera_for_posed_neck(head, params, upright), upright, condition)


def choose_samples(usable: Tensor, permutation: Tensor, count: int = PLANE_SAMPLES) -> Tensor:
    """Return the numbers (at most `count`,) of usable samples in the order of a permutation.

    Args:
        usable: (N,) bool.
        permutation: of the usable ones.
        count: how many are wanted.

    Raises:
        ValueError: a permutation of another number of samples.
    """
    numbers = usable.nonzero()[:, 0]
    if len(numbers) != len(permutation):
        raise ValueError(f"permutation: expected one of {len(numbers)} usable samples, got one of {len(permutation)}")
    return numbers[permutation[:count]]


def arrange_views(
    rendered: RenderedViews, planned: PlannedViews, is_still: Tensor, plane_samples: PlaneSamples | None = None
) -> SupervisedBatch:
    """Hand each view to the inputs it is for: 0 source, 1 driving, 2 target.

    Args:
        rendered, planned: 3 b views.
        is_still: (b,) bool.
        plane_samples: of the targets.
    """
    source, driving, target = (slice(view, None, VIEWS) for view in range(VIEWS))
    params = planned.params
    return SupervisedBatch(
        source_image=rendered.image[source],
        driving_image=rendered.image[driving],
        target_image=rendered.image[target],
        target_mask=rendered.mask[target],
        target_correspondence=rendered.correspondence[target],
        camera=planned.camera[target],
        camera_upright=planned.camera_upright[target],
        params=HeadParams(
            params.shape[source], params.expression[driving], params.pose[driving], params.eye_pose[driving]
        ),
        source_motion=rendered.motion[source],
        driving_motion=rendered.motion[driving],
        is_still=is_still,
        depth=rendered.depth[target],
        features=rendered.features[target],
        background=rendered.background[target],
        plane_samples=plane_samples,
    )


class _Draws(NamedTuple):
    """Random numbers of a batch, on the CPU: of subjects (b, ...) and of views (b, 3, ...)."""

    latent: Tensor
    poses: Tensor
    coins: Tensor
    stratified: Tensor
    importance: Tensor
    sample_seed: Tensor
    frontal_coins: Tensor


class GenHeadSupervision:
    """Supervision by a frozen GenHead, on the device where it is.

    Args:
        genhead: is put into evaluation mode and frozen.
        bank: shapes, cameras and motions.
        motion: reads motion vectors; landmarks are those of the head model.
        config: default `GenHeadSupervisionConfig()`.

    Raises:
        ValueError: more rays a side than GenHead can super-resolve.
    """

    def __init__(
        self, genhead: GenHead, bank: ParameterBank, motion: MotionOf, config: GenHeadSupervisionConfig | None = None
    ) -> None:
        self.config = config or GenHeadSupervisionConfig()
        size = genhead.config.image_resolution
        if not 1 <= self.config.resolution < size:
            raise ValueError(f"resolution: expected 1 to {size - 1} rays a side, got {self.config.resolution}")
        self.genhead = genhead.eval().requires_grad_(False)
        self.bank, self.motion = bank, motion
        self.device = next(genhead.parameters()).device
        self._folded = genhead.super_resolution.fold(None, self.config.dtype)

    @torch.no_grad()
    def sample(self, subjects: int, generator: torch.Generator | None = None) -> SupervisedBatch:
        """Make up a batch.

        Args:
            subjects: B; where half are still, the middle one of an odd number moves.
            generator: on any device; what is drawn depends neither on GenHead's device nor on `chunk`.
        """
        config, generator = self.config, cpu_generator(generator)
        still = count_still(subjects, config.static, config.half_static)
        is_still = torch.arange(subjects, device=self.device) >= subjects - still
        views = self.bank.sample_views(subjects, generator, config.static, config.half_static)
        draws = self._draw(subjects, generator)
        batches = []
        for start in range(0, subjects, config.chunk):
            part = slice(start, start + config.chunk)
            batches.append(self._make(self._take(views, part), self._take(draws, part), is_still[part]))
        batch = join_batches(batches)
        return batch if batch.plane_samples.points_world.shape[1] else replace(batch, plane_samples=None)

    def _draw(self, subjects: int, generator: torch.Generator | None) -> _Draws:
        network, count = self.genhead.config, subjects * VIEWS
        latent = torch.randn(subjects, network.mapping.latent_dim, generator=generator)
        poses = torch.rand(subjects, VIEWS, CAMERA_DRAWS, generator=generator)
        coins = torch.rand(subjects, VIEWS, generator=generator)
        depths = network.volume.depth_samples, network.volume.importance_samples
        jitter = sample_jitter(count, self.config.resolution**2, *depths, generator)
        seeds = torch.randint(2**62, (subjects,), generator=generator)
        stratified, importance = (numbers.unflatten(0, (subjects, VIEWS)) for numbers in jitter)
        frontal_coins = torch.rand(subjects, generator=generator)
        return _Draws(latent, poses, coins, stratified, importance, seeds, frontal_coins)

    def _take(self, group: SubjectViews | _Draws, part: slice) -> SubjectViews | _Draws:
        """Take some subjects to GenHead's device."""
        names = group._fields if isinstance(group, _Draws) else [field.name for field in fields(group)]
        return type(group)(*(getattr(group, name)[part].to(self.device) for name in names))

    def _make(self, views: SubjectViews, draws: _Draws, is_still: Tensor) -> SupervisedBatch:
        planned = plan_views(self.genhead.head, views, CameraDraws(draws.poses.flatten(0, 1), draws.coins.flatten()))
        told = planned.condition_camera
        frontal = (draws.frontal_coins < self.config.frontal_probability).repeat_interleave(VIEWS)[:, None]
        planned = planned._replace(condition_camera=torch.where(frontal, frontal_camera(told), told))
        render = self._render(planned, draws)
        samples = _sample_planes(render, draws.sample_seed.tolist())
        return arrange_views(self._describe(render, planned), planned, is_still, samples)

    def _render(self, planned: PlannedViews, draws: _Draws) -> GenHeadRender:
        network, config = self.genhead, self.config
        options = GenHeadOptions(
            resolution=config.resolution,
            jitter=Jitter(draws.stratified.flatten(0, 1), draws.importance.flatten(0, 1)),
            chunk=_CPU_RAYS_PER_CHUNK if self.device.type == "cpu" else None,
            super_resolution=self._folded,
        )
        latent = draws.latent.repeat_interleave(VIEWS, dim=0)
        condition = network.conditioning(planned.condition_camera, planned.params.shape)
        with torch.autocast(self.device.type, config.dtype, enabled=config.dtype != torch.float32):
            styles = network.map_styles(latent, condition, Truncation(config.truncation_psi, TRUNCATION.cutoff))
            return network(latent, styles, planned.params, planned.camera, options)

    def _describe(self, render: GenHeadRender, planned: PlannedViews) -> RenderedViews:
        image = render.image_sr.float()
        landmarks = landmarks_2d(self.genhead.head, planned.params, planned.camera_upright, image.shape[-1])
        return RenderedViews(
            image=image,
            mask=render.mask,
            correspondence=render.correspondence,
            depth=render.depth,
            features=render.features,
            background=render.background,
            motion=self.motion(image, landmarks, planned.params),
        )


def _sample_planes(render: GenHeadRender, seeds: list[int]) -> PlaneSamples:
    """Pick samples of the targets in which only the face has a share, the same number of each target.

    A permutation's length depends on the picture, so each subject has a generator of its own.
    """
    chosen = []
    targets = range(VIEWS - 1, len(render.image_sr), VIEWS)
    for target, seed in zip(targets, seeds, strict=True):
        usable = render.coarse_is_face_only[target].flatten()
        generator = torch.Generator().manual_seed(seed)
        permutation = torch.randperm(int(usable.sum()), generator=generator)
        chosen.append(choose_samples(usable, permutation.to(usable.device)))
    count = min(len(numbers) for numbers in chosen)
    rays = render.rays
    points, features = (
        torch.stack([values[t].flatten(0, 1)[c[:count]] for t, c in zip(targets, chosen, strict=True)])
        for values in (rays.coarse_points, rays.coarse_face_features)
    )
    return PlaneSamples(points, features)
