"""Random changes of the motion encoder's pictures: the truth stays true."""

from dataclasses import replace

import pytest
import torch

from portrait4d.config.motion_training import DisturbanceConfig
from portrait4d.geometry.face_alignment import face_crop
from portrait4d.synthetic_heads.motion_inputs import mirror_inputs
from portrait4d.training.motion_disturbance import (
    MotionSample,
    disturb_colours,
    disturb_view,
    mirror_some,
    reduce_detail,
    sample_colours,
)
from tests.helpers.hash_fill import hash_tensor

NOTHING = DisturbanceConfig(False, 64, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
COUNT, SIDE = 16, 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def sample() -> MotionSample:
    places = torch.rand(COUNT, 68, 2, generator=generator()) * 4
    for part, centre in ((slice(36, 42), (22.0, 40)), (slice(42, 48), (40.0, 41)), (slice(60, 68), (31.0, 20))):
        places[:, part] += torch.tensor(centre)
    images = hash_tensor(0, [COUNT, 3, SIDE, SIDE]).clamp(-1, 1)
    return MotionSample(images, places, hash_tensor(1, [COUNT, 27]))


def test_without_changes_all_stays_as_it_is(sample: MotionSample) -> None:
    for before, after in zip(sample, disturb_view(sample, NOTHING, generator(), generator()), strict=True):
        assert torch.equal(after, before)
    torch.testing.assert_close(disturb_colours(sample.images, NOTHING, generator()), sample.images)


def test_equal_generators_make_equal_changes(sample: MotionSample) -> None:
    config = DisturbanceConfig()
    first, second, other = (disturb_view(sample, config, generator(seed), generator(seed)) for seed in (1, 1, 2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.landmarks, other.landmarks)
    first, second, other = (disturb_colours(sample.images, config, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert first.abs().max() <= 1 and (first - sample.images).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_some_faces_are_mirrored_with_their_crops_and_motions(sample: MotionSample) -> None:
    mirrored = mirror_some(sample, generator())
    changed = (mirrored.inputs != sample.inputs).any(dim=1)
    assert 0 < int(changed.sum()) < COUNT
    torch.testing.assert_close(mirrored.inputs[changed], mirror_inputs(sample.inputs[changed]))
    for k in range(COUNT):
        expected = sample.images[k].flip(-1) if changed[k] else sample.images[k]
        assert torch.equal(mirrored.images[k], expected)
    eyes = mirrored.landmarks[:, 36:42].mean(1)[:, 0], mirrored.landmarks[:, 42:48].mean(1)[:, 0]
    assert (eyes[0] < eyes[1]).all()  # the image-left eye comes first, mirrored or not


def test_mirrored_faces_are_aligned_alike(sample: MotionSample) -> None:
    """Landmarks' x counts from the edge of the picture, crops take pixel numbers: one pixel from side to side."""
    ramp = torch.linspace(-0.9, 0.9, SIDE).expand(COUNT, 3, SIDE, SIDE)
    mirrored = mirror_some(sample._replace(images=ramp), generator())
    crops = face_crop(mirrored.images, mirrored.landmarks, 16, reverse_y=True)
    straight = face_crop(ramp, sample.landmarks, 16, reverse_y=True)
    changed = (mirrored.inputs != sample.inputs).any(dim=1)
    assert (crops[changed] - straight[changed].flip(-1)).abs().max() < 1.5 * 1.8 / (SIDE - 1)
    assert torch.equal(crops[~changed], straight[~changed])


def test_colours_of_a_grey_picture_lose_hue() -> None:
    config = replace(NOTHING, grey=1.0)
    colours = sample_colours(200, config, generator())
    torch.testing.assert_close(colours[:, :, :3].sum(dim=2), torch.ones(200, 3))  # white stays white
    assert colours[:, :, 3].abs().max() == 0
    off_diagonal = colours[:, 0, 1] / 0.587
    assert 0 <= off_diagonal.min() < 0.01 and 0.9 < off_diagonal.max() <= 1


def test_detail_goes_down_to_the_lowest_size(sample: MotionSample) -> None:
    sizes = []
    for seed in range(40):
        images, landmarks = reduce_detail(sample.images, sample.landmarks, 48, generator(seed))
        sizes.append(images.shape[-1])
        torch.testing.assert_close(landmarks, sample.landmarks * sizes[-1] / SIDE)
    assert min(sizes) >= 48 and max(sizes) == SIDE and 8 <= sizes.count(SIDE) <= 32
    assert reduce_detail(sample.images, sample.landmarks, 100, generator())[0] is sample.images


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"lowest_size": 4}, "lowest_size"), ({"grey": 1.5}, "grey"), ({"noise": -1.0}, "noise: expected at least 0")],
)
def test_impossible_changes_are_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DisturbanceConfig(**changed)
