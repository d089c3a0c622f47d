"""Cameras about an animated head."""

from pathlib import Path

import pytest
import torch

from portrait4d.config.animation import AnimateConfig
from portrait4d.config.animation_cameras import CameraKeyframe, CameraPath
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.cameras import FRONTAL_POSITION, intrinsics_from_fov, split_camera
from portrait4d.inference.camera_paths import Viewpoint, load_camera_path, viewpoint_on_path, viewpoints

PATH = CameraPath((CameraKeyframe(1.0, yaw_deg=-30), CameraKeyframe(3.0, yaw_deg=30, distance=6.2, pitch_deg=10)))


def test_paths_go_evenly_and_stay_at_their_ends() -> None:
    assert viewpoint_on_path(PATH, 0.0).yaw_deg == -30
    assert viewpoint_on_path(PATH, 1.5) == pytest.approx((-15, 2.5, 4.7, None))
    assert viewpoint_on_path(PATH, 9.0) == pytest.approx((30, 10, 6.2, None))


def test_loops_begin_again() -> None:
    looped = CameraPath(PATH.keyframes, loop=True)
    assert viewpoint_on_path(looped, 3.5) == pytest.approx(viewpoint_on_path(PATH, 1.5))
    assert viewpoint_on_path(looped, 101.5) == pytest.approx(viewpoint_on_path(PATH, 1.5))


def test_viewpoints_become_cameras() -> None:
    intrinsics = intrinsics_from_fov(20.0)[None]
    cam2world, kept = split_camera(Viewpoint(distance=5.0).camera(intrinsics))
    torch.testing.assert_close(cam2world[0, :3, 3], torch.tensor([*FRONTAL_POSITION[:2], 5.0]))
    assert torch.equal(kept, intrinsics)
    cam2world, changed = split_camera(Viewpoint(yaw_deg=90, fov_deg=12.0).camera(intrinsics))
    torch.testing.assert_close(cam2world[0, :3, 3], torch.tensor([4.2, 0.01, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(changed[0], intrinsics_from_fov(12.0))


def test_orbits() -> None:
    config = AnimateConfig((), "", Path("a.mp4"), camera="orbit", yaw_deg=20, pitch_deg=5, orbit_s=8)
    at = viewpoints(config)
    assert at(2.0) == pytest.approx((20, 0, 4.2, None), abs=1e-9)
    assert at(6.0)[:2] == pytest.approx((-20, 0), abs=1e-9)
    assert at(8.0) == pytest.approx(at(0.0), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "expected an object at the top, got list"),
        ("{", "is no camera path"),
        ('{"keyframes": []}', "keyframes: expected at least one"),
        ('{"keyframes": [{"time_s": 1}, {"time_s": 1}]}', "expected growing time_s"),
        ('{"keyframes": [{"time_s": 0, "roll_deg": 1}]}', "roll_deg"),
        ('{"keyframes": [{"time_s": 0, "distance": -1}]}', "distance: expected above 0, got -1"),
        ('{"keyframes": [{"time_s": 0, "fov_deg": 180}]}', "fov_deg: expected between 0 and 180"),
        ('{"keyframes": [{"time_s": 0, "fov_deg": 12}, {"time_s": 1}]}', "fov_deg: expected in all keyframes"),
        ('{"keyframes": [{"time_s": 0, "yaw_deg": NaN}]}', "finite|yaw_deg"),
    ],
)
def test_files_that_are_no_paths(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputFileError, match=problem) as caught:
        load_camera_path(tmp_path / "a.json")
    assert str(caught.value).startswith(str(tmp_path / "a.json"))
