"""Inputs of motion vectors: they give the vectors of the world, and mirrored ones move a head as its mirror image."""

import torch

from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM, HeadParams
from portrait4d.geometry.mirroring import LANDMARK_SWAPS
from portrait4d.synthetic_heads.figure import open_head_model
from portrait4d.synthetic_heads.head_expressions import FULL_EXPRESSION
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.synthetic_heads.motion_inputs import (
    EXPRESSION_INPUTS,
    MOTION_INPUTS,
    mirror_inputs,
    motion_input_matrix,
    motion_inputs,
)
from portrait4d.synthetic_heads.motions import motion_vector, sample_clip_motions, sample_still_motion


def test_inputs_times_matrix_are_the_vectors_of_the_world() -> None:
    motions = [sample_still_motion(3, number) for number in range(6)] + sample_clip_motions(3, 0, 4, fps=2)
    expression, jaw, gaze = (
        torch.stack([torch.from_numpy(getattr(motion, name)) for motion in motions])
        for name in ("expression", "jaw_rad", "gaze_rad")
    )
    count = len(motions)
    pose = torch.cat([torch.ones(count, 3), jaw], dim=1)  # the neck does not count
    inputs = motion_inputs(HeadParams(torch.ones(count, SHAPE_DIM), expression, pose, torch.cat([gaze, gaze], dim=1)))
    assert inputs.shape == (count, len(MOTION_INPUTS)) and len(set(MOTION_INPUTS)) == 27
    expected = torch.stack([torch.from_numpy(motion_vector(motion)) for motion in motions])
    torch.testing.assert_close(inputs @ motion_input_matrix(), expected, rtol=0, atol=2e-6)


def test_a_complete_expression_and_the_scales_are_one() -> None:
    expression = torch.zeros(1, EXPRESSION_DIM)
    expression[0, open_head_extras().expression_slot("smile")] = FULL_EXPRESSION
    pose = torch.tensor([[0.0, 0, 0, 0.2, 0, 0]])
    eyes = torch.tensor([[0.3, -0.3, 0, 0, 0, 0]])
    inputs = motion_inputs(HeadParams(torch.zeros(1, SHAPE_DIM), expression, pose, eyes))[0]
    found = {name: value for name, value in zip(MOTION_INPUTS, inputs.tolist(), strict=True) if value}
    assert found.keys() == {"smile", "gaze_pitch", "gaze_yaw", "jaw_open"}
    torch.testing.assert_close(torch.tensor(list(found.values())), torch.tensor([1.0, 1, -1, 1]))


def test_mirrored_inputs_move_the_head_as_its_mirror_image() -> None:
    inputs = torch.linspace(-0.4, 0.6, 27).repeat(2, 1)
    inputs[1] = inputs[1].flip(0)
    straight, mirrored = _landmarks(inputs), _landmarks(mirror_inputs(inputs))
    turned = straight[:, list(LANDMARK_SWAPS[70])] * straight.new_tensor([-1.0, 1, 1])
    torch.testing.assert_close(mirrored, turned, rtol=0, atol=5e-4)  # the jaw is not quite symmetric
    assert (mirrored - straight).abs().max() > 1e-2
    torch.testing.assert_close(mirror_inputs(mirror_inputs(inputs)), inputs)


def _landmarks(inputs: torch.Tensor) -> torch.Tensor:
    """Return landmarks (B, 70, 3) of an average head that makes these motions."""
    count = len(inputs)
    expression = torch.zeros(count, EXPRESSION_DIM)
    for number, name in enumerate(EXPRESSION_INPUTS):
        expression[:, open_head_extras().expression_slot(name)] = FULL_EXPRESSION * inputs[:, number]
    pose, eyes = torch.zeros(count, 6), torch.zeros(count, 6)
    pose[:, 3] = 0.2 * inputs[:, MOTION_INPUTS.index("jaw_open")]
    for number, name in enumerate(("gaze_pitch", "gaze_yaw")):
        eyes[:, [number, number + 3]] = 0.3 * inputs[:, [MOTION_INPUTS.index(name)]]
    head = open_head_model()
    return head.landmarks(head(HeadParams(torch.zeros(count, SHAPE_DIM), expression, pose, eyes)))
