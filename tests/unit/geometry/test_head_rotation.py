"""Rectified head rotations against hand-made clips."""

import numpy as np
from scipy.spatial.transform import Rotation

from portrait4d.geometry.head_rotation import rectify_head_rotations


def test_a_constant_yaw_vanishes_and_pitch_stays() -> None:
    turned = np.tile(np.array([[0.0, 0.4, 0.0]], np.float32), (5, 1))
    assert np.abs(rectify_head_rotations(turned)).max() < 1e-6
    nodding = np.array([[0.1, 0, 0], [0.3, 0, 0]], np.float32)
    np.testing.assert_allclose(rectify_head_rotations(nodding), nodding, atol=1e-6)
    assert rectify_head_rotations(nodding).dtype == np.float32


def test_differences_between_frames_stay() -> None:
    rotations = Rotation.from_euler("xyz", [[0.1, 0.5, -0.2], [0.0, 0.3, -0.1], [0.2, 0.4, 0.0]])
    rectified = Rotation.from_rotvec(rectify_head_rotations(rotations.as_rotvec()))
    before, after = rotations[0].inv() * rotations[1], rectified[0].inv() * rectified[1]
    np.testing.assert_allclose(before.as_matrix(), after.as_matrix(), atol=1e-12)
    expected = Rotation.from_euler("xyz", [0, 0.4, -0.1]).inv() * rotations[2]
    np.testing.assert_allclose(rectified[2].as_matrix(), expected.as_matrix(), atol=1e-12)
