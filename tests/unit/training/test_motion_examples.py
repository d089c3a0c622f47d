"""Examples of the motion encoder's training, read from packed databases."""

from pathlib import Path

import pytest
import torch

from portrait4d.data.clip_dataset import ClipDataset
from portrait4d.data.pack_folders import PackConfig, pack_clips, pack_stills
from portrait4d.data.portrait_dataset import PortraitDataset
from portrait4d.synthetic_heads.figure import open_head_model
from portrait4d.synthetic_heads.motion_inputs import MOTION_INPUTS
from portrait4d.training.motion_examples import MotionExamples, join_examples, read_clips, read_stills
from tests.helpers.raw_folders import write_clips, write_stills

SIDE = 32


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = write_stills(tmp_path_factory.mktemp("stills"), 2, SIDE)
    return pack_stills(PackConfig(raw, tmp_path_factory.mktemp("packed"), SIDE)).target


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = write_clips(tmp_path_factory.mktemp("clips"), 2, 3, SIDE)
    return pack_clips(PackConfig(raw, tmp_path_factory.mktemp("packed"), SIDE, frames=3)).target


def test_stills_with_landmarks_and_inputs(stills: Path) -> None:
    examples, dataset = read_stills(stills, open_head_model(), SIDE), PortraitDataset(stills)
    assert len(examples) == len(dataset) == 4
    for index in range(4):
        example, item = examples[index], dataset.load(index)
        assert torch.equal(example.image, item.image) and example.landmarks.shape == (68, 2)
        values = dict(zip(MOTION_INPUTS, example.inputs.tolist(), strict=True))
        assert values["jaw_open"] == pytest.approx(0.5) and values["gaze_yaw"] == pytest.approx(1 / 3)
        assert values["gaze_pitch"] == 0
    eyes, mouth = examples.examples.landmarks[:, 36:48].mean(1), examples.examples.landmarks[:, 48:].mean(1)
    assert (eyes[:, 1] > mouth[:, 1] + 3).all()  # y up
    assert ((eyes > 8) & (eyes < 24)).all()


def test_pictures_and_landmarks_are_brought_to_the_size_asked_for(stills: Path) -> None:
    full, half = (read_stills(stills, open_head_model(), size) for size in (SIDE, SIDE // 2))
    assert half.examples.image.shape == (4, 3, 16, 16)
    torch.testing.assert_close(half.examples.landmarks, full.examples.landmarks / 2)


def test_every_frame_of_a_clip_counts(clips: Path) -> None:
    examples, dataset = read_clips(clips, open_head_model(), SIDE), ClipDataset(clips)
    assert len(examples) == 6
    assert torch.equal(examples[4].image, dataset.load_frames(1, 0, 1).driving_image)


def test_joining_and_batches(stills: Path, clips: Path) -> None:
    parts = [read_stills(stills, open_head_model(), SIDE), read_clips(clips, open_head_model(), SIDE)]
    joined = join_examples(parts)
    assert len(joined) == 10 and torch.equal(joined[5].image, parts[1][1].image)
    batches = list(joined.batches(4))
    assert [len(batch.image) for batch in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), joined.examples.inputs)
    assert isinstance(joined, MotionExamples)
