"""Slider values to motions and cameras."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from portrait4d.files.errors import UserError
from portrait4d.geometry.cameras import FOV_DEG, intrinsics_from_fov, split_camera
from portrait4d.synthetic_heads.head_expressions import FULL_EXPRESSION
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.webapp.poses import (
    SLIDERS,
    HeadPose,
    default_value,
    motion_params,
    pose_camera,
    pose_from_values,
    pose_motion,
)

NEUTRAL = tuple(default_value(slider) for slider in SLIDERS)


def test_sliders_are_the_fields_in_order_and_start_neutral() -> None:
    assert [slider.field for slider in SLIDERS] == [field.name for field in fields(HeadPose)]
    assert pose_from_values(NEUTRAL) == HeadPose()
    assert not pose_motion(HeadPose()).expression.any()
    assert all(slider.low <= default_value(slider) <= slider.high for slider in SLIDERS)


@pytest.mark.parametrize("bad", ["0", None, math.nan, math.inf, 46, -46, [1]])
def test_values_of_a_browser_are_checked(bad: object) -> None:
    with pytest.raises(UserError, match="Yaw"):
        pose_from_values((bad, *NEUTRAL[1:]))
    with pytest.raises(UserError, match="sliders"):
        pose_from_values(NEUTRAL[1:])


def test_expressions_reach_their_slots() -> None:
    motion = pose_motion(HeadPose(smile=0.5, blink=1))
    slot = open_head_extras().expression_slot
    assert motion.expression[slot("joy")] == 0.5 * FULL_EXPRESSION
    assert motion.expression[slot("blink_left")] == motion.expression[slot("blink_right")] == FULL_EXPRESSION
    assert np.count_nonzero(motion.expression) == 3


def test_gaze_and_jaw_have_the_right_signs() -> None:
    params = motion_params(pose_motion(HeadPose(jaw=1, gaze_right_deg=10, gaze_up_deg=5)), torch.ones(1, 300))
    assert params.shape.sum() == 300 and params.pose[0, 3] == pytest.approx(0.24)
    down, aside, _ = params.eye_pose[0, :3]
    assert down == pytest.approx(-math.radians(5)) and aside == pytest.approx(math.radians(10))
    assert torch.equal(params.eye_pose[0, :3], params.eye_pose[0, 3:])


def test_camera_orbits_and_zoom_is_the_focal_length() -> None:
    cam2world, intrinsics = split_camera(pose_camera(HeadPose(yaw_deg=20, zoom=2)))
    assert cam2world[0, 0, 3] > 1 and cam2world[0, 2, 3] < 4.2
    torch.testing.assert_close(intrinsics[0, 0, 0], 2 * intrinsics_from_fov(FOV_DEG)[0, 0])
    assert split_camera(pose_camera(HeadPose(pitch_deg=10))).cam2world[0, 1, 3] > 0.5
