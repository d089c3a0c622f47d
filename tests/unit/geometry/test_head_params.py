"""The 437-number frame label."""

import pytest
import torch

from portrait4d.geometry.head_params import HeadParams, join_label, split_label


def test_columns_are_those_of_the_specification() -> None:
    label = torch.arange(437.0)[None].repeat(2, 1)
    camera, params = split_label(label)
    assert camera[0].tolist() == list(range(25))
    assert params.shape[0, [0, -1]].tolist() == [25, 324]
    assert params.expression[0, [0, -1]].tolist() == [325, 424]
    assert params.pose[0].tolist() == [425, 426, 427, 428, 429, 430]
    assert params.eye_pose[0].tolist() == [431, 432, 433, 434, 435, 436]
    assert torch.equal(join_label(camera, params), label)


def test_derived_parameters() -> None:
    _, params = split_label(torch.arange(437.0)[None])
    assert params.without_neck_rotation().pose[0].tolist() == [0, 0, 0, 428, 429, 430]
    motion = params.flame_motion()[0]
    assert motion.shape == (109,)
    assert motion[[0, 99, 100, 102, 103, 108]].tolist() == [325, 424, 428, 430, 431, 436]
    other = params.with_shape(torch.zeros(1, 300))
    assert other.shape.abs().sum() == 0
    assert isinstance(other, HeadParams) and other.expression is params.expression


def test_a_wrong_length_is_named() -> None:
    with pytest.raises(ValueError, match=r"label: expected shape \(B, 437\), got \(1, 436\)"):
        split_label(torch.zeros(1, 436))
