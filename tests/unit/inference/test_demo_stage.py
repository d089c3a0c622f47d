"""The demonstration's cameras and pictures are those of the true pictures."""

from pathlib import Path

import pytest
import torch

from portrait4d.config.demo import DemoConfig
from portrait4d.data.image_io import load_image
from portrait4d.data.portrait_folder import ALIGNED_IMAGES
from portrait4d.inference import demo_cast as cast
from portrait4d.inference.demo_stage import Stage
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.motions import sample_clip_motions, sample_still_motion
from portrait4d.synthetic_heads.portraits import plan_orbit_shot, plan_shot


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The bundled network. Do not change it."""
    return Stage(DemoConfig(tmp_path_factory.mktemp("demo"), device="cpu"))


def test_results_are_seen_by_the_camera_of_the_true_picture(stage: Stage) -> None:
    person, clip, number = cast.SOURCES[1], 1, 5
    view, render = stage.reenact(person, cast.clip_portraits(clip)[number])
    motion = sample_clip_motions(16, clip, number + 1, cast.CLIP_FPS)[number]
    shot = plan_shot(sample_appearance(13_000_000 + person), motion)
    torch.testing.assert_close(view.camera, shot.render_camera, atol=1e-4, rtol=0)
    torch.testing.assert_close(view.params.pose, shot.params.pose)
    assert len(stage.frame_s) >= 1 and stage.frame_s[-1] > 0
    normals = stage.normals(person, view, render)
    assert normals.shape[0] == 3 and normals.abs().max() <= 1 + 1e-6


def test_the_orbit_is_that_of_the_true_pictures(stage: Stage) -> None:
    person, angles = cast.ORBIT_SOURCE, cast.orbit_angles_rad(7)
    view, _ = stage.reenact(person, cast.source_portrait(person), angles)
    shot = plan_orbit_shot(sample_appearance(13_000_000 + person), sample_still_motion(13, person), *angles)
    torch.testing.assert_close(view.camera, shot.render_camera, atol=1e-4, rtol=0)


def test_all_truths_are_bundled_and_those_from_the_front_are_nearest_to_the_source() -> None:
    for person in cast.SOURCES:
        for clip in cast.CLIPS:
            assert _count(cast.truth_folder(person, clip)) == cast.CLIP_FRAMES == len(cast.clip_portraits(clip))
    folder = cast.truth_folder(cast.ORBIT_SOURCE, None)
    assert _count(folder) == cast.ORBIT_FRAMES
    source = load_image(cast.source_portrait(cast.ORBIT_SOURCE).image_path, cast.TRUTH_SIZE)
    errors = [float((cast.load_truth(folder, n)[0] - source).abs().mean()) for n in range(cast.ORBIT_FRAMES)]
    assert errors.index(min(errors)) in (0, cast.ORBIT_FRAMES // 2)  # where yaw is 0
    image, mask = cast.load_truth(folder, 0)
    assert image.shape == (3, 128, 128) and mask.shape == (1, 128, 128) and 0.2 < mask.mean() < 0.9


def _count(folder: Path) -> int:
    return len(list((folder / ALIGNED_IMAGES).glob("*.jpg")))
