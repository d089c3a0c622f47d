"""Supervised batches: chunks, joins, still subjects, and the ready-made ways to motion vectors."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait4d.geometry.head_params import HeadParams
from portrait4d.models.pretrained.motion_encoder import MotionEncoder
from portrait4d.synthetic_heads.motions import motion_vector, sample_still_motion
from portrait4d.training.supervision import (
    PlaneSamples,
    SupervisedBatch,
    count_still,
    cpu_generator,
    encoded_motion,
    flame_motion,
    join_batches,
    synthetic_motion,
)

EXTRAS = ("depth", "features", "background", "plane_samples")


def numbered(count: int, samples: int = 5) -> SupervisedBatch:
    """A batch whose tensors hold their subject's number."""
    number = torch.arange(float(count))[:, None]
    own = {part.name: number for part in fields(SupervisedBatch)}
    points = number[:, None].expand(-1, samples, 3)
    own["params"], own["plane_samples"] = HeadParams(*[number] * 4), PlaneSamples(points, points)
    return SupervisedBatch(**own | {"is_still": number[:, 0] >= count / 2})


def tensors(batch: SupervisedBatch) -> dict[str, Tensor]:
    own = {part.name: getattr(batch, part.name) for part in fields(batch)}
    own |= {f"params.{name}": value for name, value in vars(own.pop("params")).items()}
    return own | {f"samples.{name}": value for name, value in own.pop("plane_samples")._asdict().items()}


def test_a_chunk_takes_the_same_subjects_of_everything() -> None:
    for name, value in tensors(numbered(6).chunk(2, 5)).items():
        assert len(value) == 3, name
        if name != "is_still":
            assert value.flatten(1)[:, 0].tolist() == [2, 3, 4], name
    assert len(numbered(6).chunk(2, 5)) == 3


def test_chunks_joined_are_the_batch() -> None:
    batch = numbered(5)
    joined = join_batches([batch.chunk(0, 2), batch.chunk(2, 5)])
    for name, value in tensors(joined).items():
        assert torch.equal(value, tensors(batch)[name]), name


def test_extras_may_be_missing_in_all_but_not_in_some() -> None:
    bare = replace(numbered(4), **dict.fromkeys(EXTRAS))
    assert all(getattr(join_batches([bare.chunk(0, 1), bare]), name) is None for name in EXTRAS)
    with pytest.raises(ValueError, match="batches: expected the same extras in all, got some without"):
        join_batches([numbered(2), bare])
    with pytest.raises(ValueError, match="batches: expected at least one"):
        join_batches([])


def test_joined_subjects_keep_equally_many_plane_samples() -> None:
    samples = join_batches([numbered(2, samples=7), numbered(3, samples=4)]).plane_samples
    assert samples.points_world.shape == samples.features.shape == (5, 4, 3)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (0, 5)])
def test_chunks_outside_the_batch_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=f"expected 0 <= start < stop <= 4, got {start} and {stop}"):
        numbered(4).chunk(start, stop)


def test_motion_scale_of_still_subjects_is_zero() -> None:
    batch = numbered(4)
    assert batch.motion_scale(0.7).shape == (4, 1, 1)
    assert torch.allclose(batch.motion_scale(0.7).flatten(), torch.tensor([0.7, 0.7, 0, 0]))
    assert batch.chunk(1, 3).motion_scale().flatten().tolist() == [1, 0]


def test_how_many_are_still() -> None:
    assert [count_still(4, *flags) for flags in ((False, False), (False, True), (True, False))] == [0, 2, 4]
    assert count_still(3, True, False) == 3
    assert [count_still(odd, False, True) for odd in (1, 3)] == [0, 1]
    with pytest.raises(ValueError, match="subjects: expected at least 1, got 0"):
        count_still(0, False, False)


def test_a_cpu_generator_is_kept() -> None:
    generator = torch.Generator()
    assert cpu_generator(generator) is generator and cpu_generator(None) is None


def moving(count: int) -> tuple[HeadParams, np.ndarray]:
    motions = [sample_still_motion(5, number) for number in range(count)]
    jaw = torch.from_numpy(np.stack([motion.jaw_rad for motion in motions]))
    gaze = torch.from_numpy(np.stack([motion.gaze_rad for motion in motions]))
    expression = torch.from_numpy(np.stack([motion.expression for motion in motions]))
    pose = torch.cat([torch.full((count, 3), 0.3), jaw], dim=1)
    params = HeadParams(torch.ones(count, 300), expression, pose, gaze.repeat(1, 2))
    return params, np.stack([motion_vector(motion) for motion in motions])


def test_motion_of_the_open_head_world_is_what_it_stores() -> None:
    params, stored = moving(3)
    np.testing.assert_array_equal(synthetic_motion(torch.empty(0), torch.empty(0), params).numpy(), stored)


def test_flame_motion() -> None:
    params, _ = moving(2)
    assert torch.equal(flame_motion(torch.empty(0), torch.empty(0), params), params.flame_motion())


def test_encoded_motion_takes_landmarks_with_y_up(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = MotionEncoder()
    seen = {}

    def encode(images: Tensor, landmarks_pixels: Tensor, reverse_y: bool = False) -> Tensor:
        seen.update(images=images, landmarks=landmarks_pixels, reverse_y=reverse_y)
        return torch.ones(2, 548)

    monkeypatch.setattr(encoder, "encode_motion", encode)
    images, landmarks = torch.zeros(2, 3, 8, 8), torch.zeros(2, 70, 2)
    assert torch.equal(encoded_motion(encoder)(images, landmarks, moving(2)[0]), torch.ones(2, 548))
    assert seen["images"] is images and seen["landmarks"] is landmarks and seen["reverse_y"] is True
