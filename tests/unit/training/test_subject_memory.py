"""Persons in memory: what a batch shows of them, who makes room, what is read from pictures, refusals."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.config.recon_training import SupervisionConfig
from portrait4d.data.image_io import from_uint8
from portrait4d.files.errors import UserError
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.training import subject_memory
from portrait4d.training.rendered_subjects import RenderedSubjects
from portrait4d.training.subject_frames import PersonFrames, PortraitFrame
from portrait4d.training.subject_memory import AHEAD, FIRST_PERSONS, MOTIONS, SubjectMemory, SubjectMemoryConfig
from portrait4d.training.supervision import flame_motion
from tests.helpers.raw_folders import painted_label

SIDE = 16


@dataclass(frozen=True)
class NumberedPersons(RenderedSubjects):
    """Pictures of one grey each: 32 * motion + 16 * view + 1 to 14, which tells the person's number; notes seeds."""

    seeds: list[int] = field(default_factory=list)

    def load_person(self, seed: int, motions: int) -> PersonFrames:
        """Make the next person."""
        number = len(self.seeds) % 14 + 1
        self.seeds.append(seed)
        frames, depths = [], []
        for motion in range(motions):
            for view in range(2):
                label = painted_label(0.1 * motion, smile=float(motion))[0].numpy()
                label[25:28], label[426] = number, 0.3  # shape; the neck turns
                grey = 32 * motion + 16 * view + number
                image, mask = (np.full((c, SIDE, SIDE), grey, np.uint8) for c in (3, 1))
                frames.append(PortraitFrame(image, mask, label, np.full(548, motion, np.float32)))
                depths.append(np.full((1, 8, 8), grey, np.float32))
        return PersonFrames.stack(frames, depths, motions)


class PromptPool(Executor):
    """Makes everything as soon as it is asked for, in this process."""

    def submit(self, make: Callable, *arguments: object) -> Future:
        future: Future = Future()
        future.set_result(make(*arguments))
        return future


@pytest.fixture(autouse=True)
def _prompt_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_memory, "worker_pool", lambda workers: PromptPool())


def remember(head: HeadModel, **config: object) -> SubjectMemory:
    wanted = replace(SubjectMemoryConfig(persons=12, workers=2, half_static=True), **config)
    return SubjectMemory(NumberedPersons(SIDE), head, wanted, flame_motion)


@pytest.fixture
def memory(ellipsoid: HeadModel) -> Iterator[SubjectMemory]:
    with closing(remember(ellipsoid)) as memory:
        yield memory


def greys(pictures: Tensor) -> Tensor:
    """Return each picture's grey, which must be the same in all pixels."""
    first = pictures[:, :1, :1, :1]
    assert torch.equal(pictures, first.expand_as(pictures))
    return ((first.flatten() + 1) * 127.5).round().long()


def test_one_person_in_two_motions_seen_as_labels_say(memory: SubjectMemory, ellipsoid: HeadModel) -> None:
    batch = memory.sample(64, torch.Generator().manual_seed(1))
    source, driving, target = (greys(getattr(batch, f"{name}_image")) for name in ("source", "driving", "target"))
    assert torch.equal(source % 16, target % 16) and torch.equal(source % 16, driving % 16)
    assert torch.equal(driving // 32, target // 32)
    assert (source // 16 % 2 == 0).all() and (driving // 16 % 2 == 0).all(), "their own cameras"
    assert set((source // 32).tolist()) == set(range(MOTIONS))
    still = batch.is_still
    assert still.tolist() == [False] * 32 + [True] * 32
    assert torch.equal(source[still] // 32, target[still] // 32) and (target[still] // 16 % 2 == 1).all()
    moving = ~still
    assert (
        0.3 < (target[moving] // 16 % 2).float().mean() < 0.7 and (source[moving] // 32 != target[moving] // 32).any()
    )
    assert torch.equal(greys(from_uint8(batch.depth.expand(-1, 3, -1, -1).byte())), target)
    assert torch.equal(batch.params.shape[:, 0].long(), target % 16)
    expected = [painted_label(0.1 * motion, smile=float(motion))[0] for motion in (target // 32).tolist()]
    upright, params = split_label(torch.stack(expected))
    posed = HeadParams(batch.params.shape, params.expression, batch.params.pose, params.eye_pose)
    assert torch.equal(batch.camera_upright, upright)
    torch.testing.assert_close(batch.camera, camera_for_posed_neck(ellipsoid, posed, upright), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(batch.driving_motion, batch.params.flame_motion())
    assert batch.target_correspondence is not None
    assert memory.request(2, None, judged=False)().target_correspondence is None


def test_the_seed_says_what_is_drawn(memory: SubjectMemory) -> None:
    memory.sample(1)
    memory._take_in = lambda: None  # nobody new
    first, second, other = (memory.sample(16, torch.Generator().manual_seed(seed)).target_image for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_the_oldest_make_room(memory: SubjectMemory) -> None:
    memory.sample(1)
    assert len(memory) == 12 and min(FIRST_PERSONS, 12) == 12
    while memory.rendered < 17:
        memory.sample(1)
    assert len(memory) == 12
    persons = memory._stored["labels"][:, 0, 0, 25].long().tolist()
    last = memory.rendered
    assert sorted(persons) == sorted(number % 14 + 1 for number in range(last - 12, last))


def test_a_batch_takes_in_who_is_ready_now_however_quick_the_workers_are(memory: SubjectMemory) -> None:
    for batches in range(3):
        memory.sample(1)
        assert memory.rendered == 12 + (batches + 1) * AHEAD * 2


def test_a_resumed_run_and_other_ranks_and_seeds_make_other_persons(ellipsoid: HeadModel) -> None:
    def made(rendered_before: int = 0, **config: int) -> set[int]:
        with closing(remember(ellipsoid, **config)) as memory:
            memory.go_on_after(rendered_before)
            memory.sample(1)
            assert memory.rendered_before == rendered_before
            memory.go_on_after(7)  # a run that is set back goes on with who is there
            memory.sample(1)
            assert memory.rendered_before == rendered_before
            return set(memory.source.seeds)

    assert made() == made() and made(16) == made(16)
    different = [made(), made(16), made(32), made(rank=1), made(seed=1)]
    assert len(set.union(*different)) == sum(map(len, different))


def test_static_subjects(ellipsoid: HeadModel) -> None:
    with closing(remember(ellipsoid, persons=2, workers=1, static=True)) as memory:
        assert memory.sample(8).is_still.all()


def test_rendered_persons() -> None:
    person = RenderedSubjects(32, 8).load_person(5, motions=2)
    assert person.images.shape == (2, 2, 3, 32, 32) and person.images.dtype == np.uint8
    assert person.masks.shape == (2, 2, 1, 32, 32) and person.depths.shape == (2, 2, 1, 8, 8)
    assert person.labels.shape == (2, 2, 437) and person.motions.shape == (2, 2, 548)
    assert np.array_equal(person.labels[..., 25:325], np.broadcast_to(person.labels[0, 0, 25:325], (2, 2, 300)))
    assert np.array_equal(person.motions[:, 0], person.motions[:, 1])
    assert not np.array_equal(person.motions[0], person.motions[1])
    assert not np.array_equal(person.labels[0, 0, :25], person.labels[0, 1, :25])
    assert np.abs(person.images[0, 0].astype(int) - person.images[0, 1]).mean() > 2
    again, other = (RenderedSubjects(32, 8).load_person(seed, motions=1) for seed in (5, 6))
    assert np.array_equal(again.images[0], person.images[0]) and not np.array_equal(other.images, again.images)


@pytest.mark.parametrize("changes", [{"pool": "clips"}, {"vary": True}, {"cross_driving": True}, {"source": "genhead"}])
def test_memory_is_for_heads_rendered_on_line(changes: dict) -> None:
    good = SupervisionConfig(source="synthetic_heads", memory=4)
    with pytest.raises(ValueError, match="supervision.memory"):
        replace(good, **changes)


def test_someone_must_render() -> None:
    with pytest.raises(UserError, match="supervision.workers"):
        SubjectMemoryConfig(persons=4, workers=0)
    with pytest.raises(ValueError, match="persons"):
        SubjectMemoryConfig(persons=0, workers=1)
