"""A driver's state becomes the source's: closed forms."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from portrait4d.geometry.head_params import split_label
from portrait4d.inference.head_states import FACE_DIM, FACE_PARTS, HeadState, Retargeting


def state(neck_rad: tuple[float, float, float], face: float) -> HeadState:
    return HeadState(np.full(25, face), np.array(neck_rad), np.full(FACE_DIM, face))


OWN, FIRST, NOW = state((0.1, 0, 0), 1.0), state((0, 0.2, 0), 3.0), state((0, 0.5, 0), 4.0)


def test_labels_hold_the_state() -> None:
    label, motion = np.arange(437, dtype=np.float32), np.arange(548, dtype=np.float32)
    found = HeadState.from_label(label, motion)
    _, params = split_label(torch.from_numpy(label)[None])
    again = found.head_params(params.shape)
    for name in ("shape", "expression", "pose", "eye_pose"):
        assert torch.equal(getattr(again, name), getattr(params, name)), name
    np.testing.assert_array_equal(found.face[FACE_PARTS["motion"]], motion)
    np.testing.assert_array_equal(found.camera, label[:25])


def test_bad_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected shapes \(437,\) and \(548,\)"):
        HeadState.from_label(np.zeros(436), np.zeros(548))
    with pytest.raises(ValueError, match="expected finite numbers"):
        HeadState.from_label(np.full(437, np.nan), np.zeros(548))


def test_absolute_states_are_the_drivers() -> None:
    target = Retargeting(OWN).retarget(NOW, FIRST)
    np.testing.assert_allclose(target.neck_rad, NOW.neck_rad)
    np.testing.assert_allclose(target.face, 4.0)


def test_relative_states_begin_as_the_source() -> None:
    retargeting = Retargeting(OWN, relative=True)
    begin = retargeting.retarget(FIRST, FIRST)
    np.testing.assert_allclose(begin.neck_rad, OWN.neck_rad, atol=1e-12)
    np.testing.assert_allclose(begin.face, OWN.face)
    later = retargeting.retarget(NOW, FIRST)
    turn = Rotation.from_rotvec([0, 0.3, 0]) * Rotation.from_rotvec(OWN.neck_rad)
    np.testing.assert_allclose(later.neck_rad, turn.as_rotvec(), atol=1e-12)
    np.testing.assert_allclose(later.face, 1.0 + (4.0 - 3.0))


@pytest.mark.parametrize(("relative", "expected"), [(False, 1 + 1.5 * 3), (True, 1 + 1.5 * 1)])
def test_expressions_are_scaled_and_heads_are_not(relative: bool, expected: float) -> None:
    target = Retargeting(OWN, relative, 1.5).retarget(NOW, FIRST)
    np.testing.assert_allclose(target.face, expected)
    same = Retargeting(OWN, relative).retarget(NOW, FIRST)
    np.testing.assert_allclose(target.neck_rad, same.neck_rad)


def test_blending_goes_evenly_from_one_to_the_other() -> None:
    start, end = state((0, 0.2, 0), 1.0), state((0, 1.0, 0), 5.0)
    for share in (0, 0.25, 1):
        between = start.blend(end, share)
        np.testing.assert_allclose(between.neck_rad, [0, 0.2 + 0.8 * share, 0], atol=1e-12)
        np.testing.assert_allclose(between.face, 1 + 4 * share)
