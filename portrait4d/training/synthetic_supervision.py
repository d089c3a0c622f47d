"""Supervision with exact ground truth from the open head world, without any network (cf. training-recon-v1.md §5).

Subjects are rendered by worker processes (`rendered_subjects`) or read from pools (`subject_frames`); both give source,
driving and target frames with exact labels and motion vectors. Unlike GenHead's, these heads turn their necks: labels
keep the neck's rotation, so the camera for the posed neck differs from the upright one.

Still subjects show one motion from several sides. Rendered ones and folders with extra views have that; clips have not.
There the half of a batch that stays still is given one and the same frame, which teaches only that without motion the
source comes back; depth is learnt from the other half. With `static` nothing else would be learnt than to copy the
source onto a plane, so that is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.image_io import from_uint8
from portrait4d.files.errors import UserError
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import split_label
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.ops.resize import resize_antialiased
from portrait4d.rendering.mesh_maps import landmarks_2d, render_correspondence
from portrait4d.synthetic_heads.portrait_sets import start_worker, worker_pool
from portrait4d.training.subject_frames import PortraitFrame, SubjectFrames, SubjectSource, ask_worker, worker_result
from portrait4d.training.supervision import MotionOf, SupervisedBatch, count_still, cpu_generator


@dataclass(frozen=True)
class SyntheticSupervisionConfig:
    """How subjects become batches.

    Attributes:
        size: pixels a side of the network's pictures; larger ones are reduced.
        static: all subjects are still.
        half_static: the second half of a batch is.
        workers: processes that load subjects; 0 loads in this one.
    """

    size: int
    static: bool = False
    half_static: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")


class SyntheticHeadsSupervision:
    """Supervision by stored or rendered pictures; batches are on the head model's device.

    Args:
        source: of subjects.
        head: the head model that the labels are for.
        config: picture size, still subjects, workers.
        motion: reads motion vectors; None: the stored, exact ones (548).

    Raises:
        UserError: the source lacks the motions or views that `config` asks for.
    """

    def __init__(
        self,
        source: SubjectSource,
        head: HeadModel,
        config: SyntheticSupervisionConfig,
        motion: MotionOf | None = None,
    ) -> None:
        if config.static and not source.has_views:
            raise UserError(
                "static training needs several views of one motion, which this pool has not: make one with "
                "write_synthetic_portraits.py --views, or render on line"
            )
        if not config.static and not source.has_motions:
            raise UserError("this pool has one motion of each person: write it with --clips, or train statically")
        self.source, self.head, self.config, self.motion = source, head, config, motion
        self._pool = worker_pool(config.workers, _start, (source,)) if config.workers else None

    def sample(self, subjects: int, generator: torch.Generator | None = None) -> SupervisedBatch:
        """Make a batch.

        Raises:
            UserError: a file that cannot be used, or a worker that was ended.
        """
        return self.request(subjects, generator)()

    def request(
        self, subjects: int, generator: torch.Generator | None = None, judged: bool = True
    ) -> Callable[[], SupervisedBatch]:
        """Let the workers start on a batch; the returned function waits for it. Asking early hides their time.

        Without `judged` there are no correspondence maps, which discriminators alone look at.
        """
        still = count_still(subjects, self.config.static, self.config.half_static)
        seeds = torch.randint(2**62, (subjects,), generator=cpu_generator(generator)).tolist()
        is_still = [number >= subjects - still for number in range(subjects)]
        if self._pool is None:
            return lambda: self._assemble(
                [self.source.load(*one) for one in zip(seeds, is_still, strict=True)], is_still, judged
            )
        futures = [ask_worker(self._pool, _load, *one) for one in zip(seeds, is_still, strict=True)]
        return lambda: self._assemble([worker_result(future) for future in futures], is_still, judged)

    def assemble(self, subjects: list[SubjectFrames]) -> SupervisedBatch:
        """Make a batch of subjects that are there already, none of them still, without correspondence maps."""
        return self._assemble(subjects, [False] * len(subjects), judged=False)

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @torch.no_grad()
    def _assemble(self, subjects: list[SubjectFrames], is_still: list[bool], judged: bool) -> SupervisedBatch:
        source, driving, target = (list(frames) for frames in zip(*(frames[:3] for frames in subjects), strict=True))
        identity = split_label(self._stack(source, "label"))[1].shape
        upright, params = split_label(self._stack(target, "label"))
        params = params.with_shape(identity)
        camera = camera_for_posed_neck(self.head, params, upright)
        depths = [frames.depth for frames in subjects]
        maps = render_correspondence(self.head, params, camera, self.config.size).image if judged else None
        images = {name: self._pictures(frames) for name, frames in (("source", source), ("driving", driving))}
        return SupervisedBatch(
            source_image=images["source"],
            driving_image=images["driving"],
            target_image=self._pictures(target),
            target_mask=self._pictures(target, "mask"),
            target_correspondence=maps,
            camera=camera,
            camera_upright=upright,
            params=params,
            source_motion=self._motion(source, images["source"]),
            driving_motion=self._motion(driving, images["driving"]),
            is_still=torch.tensor(is_still, device=camera.device),
            depth=None if depths[0] is None else torch.from_numpy(np.stack(depths)).to(camera),
        )

    def _stack(self, frames: list[PortraitFrame], name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(frame, name) for frame in frames])).to(self.head.template.device)

    def _pictures(self, frames: list[PortraitFrame], name: str = "image") -> Tensor:
        pictures = self._stack(frames, name)
        if pictures.shape[-1] < self.config.size:
            raise UserError(
                f"the pool's pictures have {pictures.shape[-1]} pixels a side, the network's {self.config.size}; "
                "write the pool with a larger --resolution"
            )
        return resize_antialiased(from_uint8(pictures), self.config.size)

    def _motion(self, frames: list[PortraitFrame], images: Tensor) -> Tensor:
        if self.motion is None:
            return self._stack(frames, "motion")
        upright, params = split_label(self._stack(frames, "label"))
        camera = camera_for_posed_neck(self.head, params, upright)
        return self.motion(images, landmarks_2d(self.head, params, camera, self.config.size), params)


_worker_source: SubjectSource | None = None


def _start(source: SubjectSource) -> None:
    global _worker_source  # set once in each worker, so that tasks are two numbers
    _worker_source = source
    start_worker()


def _load(seed: int, still: bool) -> SubjectFrames:
    try:
        return _worker_source.load(seed, still)
    except UserError as error:
        raise UserError(str(error)) from None  # its kinds cannot be pickled
