"""Supervision from persons that workers render while training goes on, kept in the memory of the training's device.

A GPU learns from a hundred times more pictures than the processors beside it can render; so each is used often, and new
persons take the place of the oldest ones. What an iteration sees depends on how far the workers are: unlike everything
else in a training it does not repeat.
"""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from portrait4d.data.image_io import from_uint8
from portrait4d.files.errors import UserError
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import split_label
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.rendering.mesh_maps import landmarks_2d, render_correspondence
from portrait4d.synthetic_heads.portrait_sets import worker_pool
from portrait4d.training.rendered_subjects import PERSON_VIEWS, RANDOM_CAMERA_PROBABILITY, RenderedSubjects
from portrait4d.training.subject_frames import PersonFrames, ask_worker, worker_result
from portrait4d.training.supervision import MotionOf, SupervisedBatch, count_still

MOTIONS = 4
"""Of each person."""
FIRST_PERSONS = 32
"""So many must be there before a batch is drawn."""
AHEAD = 2
"""Persons that each worker has been asked for."""


@dataclass(frozen=True)
class SubjectMemoryConfig:
    """What is rendered and kept.

    Attributes:
        persons: that are kept; the oldest make room.
        workers: processes that render.
        seed, rank: of the run and of this process; every pair of them makes other persons.
        static, half_static: all subjects of a batch are still, or its second half is.
    """

    persons: int
    workers: int
    seed: int = 0
    rank: int = 0
    static: bool = False
    half_static: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError("supervision.workers: persons in memory are rendered by workers; give at least 1")
        if self.persons < 1:
            raise ValueError(f"persons: expected at least 1, got {self.persons}")


class SubjectMemory:
    """Subjects of persons in memory, on the head model's device: a `Supervision`.

    A subject is a person in two motions. Source and driving pictures are the portraits' own views; the target is, with
    probability 1/2, the one of a random camera. Still subjects show one motion, the target from the other side.

    Args:
        source: of persons.
        head: the head model that labels are for.
        config: what is kept.
        motion: reads motion vectors, once for each picture.

    Attributes:
        rendered: persons so far.
        rendered_before: persons of this run before it was resumed.
    """

    def __init__(
        self, source: RenderedSubjects, head: HeadModel, config: SubjectMemoryConfig, motion: MotionOf
    ) -> None:
        self.source, self.head, self.config, self.motion = source, head, config, motion
        self._stored: dict[str, Tensor] = {}
        self.rendered = self.rendered_before = 0
        self._pool = worker_pool(config.workers)
        self._waiting: list[Future[PersonFrames]] = []
        self._seeds: np.random.Generator | None = None

    def __len__(self) -> int:
        """Persons that are there."""
        return min(self.rendered, self.config.persons)

    def go_on_after(self, rendered: int) -> None:
        """Make others than the `rendered` persons of the run so far; without effect once some were asked for."""
        if self._seeds is None:
            self.rendered_before = rendered

    def sample(self, subjects: int, generator: torch.Generator | None = None) -> SupervisedBatch:
        """Draw a batch of those who are there, after taking in who was rendered meanwhile.

        Raises:
            UserError: a worker was ended.
        """
        return self.request(subjects, generator)()

    def request(
        self, subjects: int, generator: torch.Generator | None = None, judged: bool = True
    ) -> Callable[[], SupervisedBatch]:
        """Return a function that draws a batch; without `judged` it has no correspondence maps."""
        return lambda: self._draw(subjects, generator, judged)

    def close(self) -> None:
        """Stop the workers."""
        self._pool.shutdown(cancel_futures=True)

    @torch.no_grad()
    def _draw(self, subjects: int, generator: torch.Generator | None, judged: bool) -> SupervisedBatch:
        self._take_in()
        moving = subjects - count_still(subjects, self.config.static, self.config.half_static)
        still = torch.arange(subjects, device=self.head.template.device) >= moving
        drawn_on = generator.device if generator is not None else "cpu"
        chance = torch.rand(4, subjects, generator=generator, device=drawn_on).to(still.device)
        person = (chance[0] * len(self)).long()
        source, driving = (chance[1:3] * MOTIONS).long()
        driving = torch.where(still, source, driving)
        view = (still | (chance[3] < RANDOM_CAMERA_PROBABILITY)).long()
        own = torch.zeros_like(view)
        target = (person, driving, view)
        upright, params = split_label(self._stored["labels"][target])
        camera = self._stored["cameras"][target]
        maps = render_correspondence(self.head, params, camera, self.source.size).image if judged else None
        return SupervisedBatch(
            source_image=self._pictures("images", (person, source, own)),
            driving_image=self._pictures("images", (person, driving, own)),
            target_image=self._pictures("images", target),
            target_mask=self._pictures("masks", target),
            target_correspondence=maps,
            camera=camera,
            camera_upright=upright,
            params=params,
            source_motion=self._stored["motions"][person, source, own],
            driving_motion=self._stored["motions"][person, driving, own],
            is_still=still,
            depth=self._stored["depths"][target].float(),
        )

    def _pictures(self, name: str, place: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return from_uint8(self._stored[name][place])

    def _take_in(self) -> None:
        """Store who is ready now, at first after waiting for some, and ask for more."""
        self._ask()
        while self.rendered < min(FIRST_PERSONS, self.config.persons):
            self._receive(self._waiting[0])
        for future in [future for future in self._waiting if future.done()]:
            self._receive(future)

    def _receive(self, future: Future[PersonFrames]) -> None:
        """Store a person after waiting for it, and ask for another."""
        self._waiting.remove(future)
        self._store(worker_result(future))
        self._ask()

    def _ask(self) -> None:
        """Keep the workers busy."""
        if self._seeds is None:
            self._seeds = np.random.default_rng([self.config.seed, self.config.rank, 6, self.rendered_before])
        while len(self._waiting) < AHEAD * self.config.workers:
            seed = int(self._seeds.integers(2**53))
            self._waiting.append(ask_worker(self._pool, self.source.load_person, seed, MOTIONS))

    def _store(self, person: PersonFrames) -> None:
        """Put a person in the place of the oldest one, with cameras for the posed neck and motion vectors."""
        device = self.head.template.device
        values = {name: torch.from_numpy(value).to(device) for name, value in person._asdict().items()}
        upright, params = split_label(values["labels"].flatten(0, 1))
        cameras = camera_for_posed_neck(self.head, params, upright)
        images = from_uint8(values["images"].flatten(0, 1))
        motions = self.motion(images, landmarks_2d(self.head, params, cameras, self.source.size), params)
        shape = (MOTIONS, PERSON_VIEWS, -1)
        values |= {"cameras": cameras.view(shape), "motions": motions.view(shape), "depths": values["depths"].half()}
        if not self._stored:
            self._stored = {name: value.new_empty(self.config.persons, *value.shape) for name, value in values.items()}
        for name, value in values.items():
            self._stored[name][self.rendered % self.config.persons] = value
        self.rendered += 1
