"""Compact motion encoder: its fixed last step, pictures of any size, files, and what the shipped weights can read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.config.networks import MotionEncoderConfig
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.face_alignment import face_crop
from portrait4d.models.checkpoints import (
    MOTION_ENCODER,
    load_compact_motion_encoder,
    load_discriminator,
    read_safetensors,
    save_network,
)
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.ops.resize import resize_antialiased
from portrait4d.rendering.mesh_maps import landmarks_2d
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.figure import Detail, build_figure, open_head_model
from portrait4d.synthetic_heads.head_expressions import FULL_EXPRESSION
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.synthetic_heads.motion_inputs import MOTION_INPUTS, motion_input_matrix
from portrait4d.synthetic_heads.motions import Motion
from portrait4d.synthetic_heads.portraits import plan_shot
from portrait4d.synthetic_heads.scene import render_portrait
from tests.helpers.hash_fill import hash_tensor

TINY = MotionEncoderConfig(picture_size=32, crop_size=16, widths=(8, 8, 8), hidden=8, inputs=3)
LANDMARKS = torch.rand(2, 70, 2, generator=torch.Generator().manual_seed(0)) * 16 + 8


def build_tiny() -> CompactMotionEncoder:
    torch.manual_seed(1)
    return CompactMotionEncoder(TINY, hash_tensor(1, [3, 548]))


def test_vectors_are_inputs_times_the_fixed_matrix() -> None:
    encoder, images = build_tiny(), hash_tensor(0, [2, 3, 32, 32])
    inputs = encoder(face_crop(images, LANDMARKS, 16))
    assert inputs.shape == (2, 3) and (inputs[0] - inputs[1]).abs().max() > 1e-3
    expected = inputs @ hash_tensor(1, [3, 548])
    torch.testing.assert_close(encoder.encode_motion(images, LANDMARKS), expected)
    assert "projection" not in dict(encoder.named_parameters())


def test_larger_pictures_are_reduced_first_and_smaller_ones_are_not() -> None:
    encoder, images = build_tiny(), hash_tensor(0, [2, 3, 64, 64])
    small = resize_antialiased(images, 32)
    large = encoder.encode_motion(images, 2 * LANDMARKS)
    torch.testing.assert_close(large, encoder.encode_motion(small, LANDMARKS))
    assert encoder.encode_motion(images[..., :16, :16], LANDMARKS / 2).shape == (2, 548)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"projection: expected shape \(3, 548\), got \(3, 5\)"):
        CompactMotionEncoder(TINY, torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"scale: expected shape \(3,\), got \(1,\)"):
        CompactMotionEncoder(TINY, scale=torch.ones(1))
    with pytest.raises(ValueError, match=r"crops: expected shape \(B, 3, 16, 16\), got \(1, 3, 8, 8\)"):
        build_tiny()(torch.zeros(1, 3, 8, 8))
    for changed, message in (
        ({"crop_size": 20}, "crop_size: expected a multiple of 8, got 20"),
        ({"widths": (8, 9, 8)}, "widths: expected multiples of 8"),
        ({"widths": (8,)}, "widths: expected at least two stages"),
    ):
        with pytest.raises(ValueError, match=message):
            MotionEncoderConfig(**({"crop_size": 16, "widths": (8, 8, 8)} | changed))


def test_files_round_trip_and_kinds_are_told_apart(tmp_path: Path) -> None:
    encoder = build_tiny()
    path = tmp_path / "m.safetensors"
    save_network(path, encoder)
    loaded = load_compact_motion_encoder(path)
    assert loaded.config == TINY and not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    with pytest.raises(InputFileError, match="expected a discriminator, got 'motion_encoder'"):
        load_discriminator(path)


def test_shipped_weights_are_small_and_make_the_vectors_of_the_world() -> None:
    encoder = load_compact_motion_encoder()
    assert MOTION_ENCODER.stat().st_size <= 8_000_000
    assert sum(parameter.numel() for parameter in encoder.parameters()) <= 2_000_000
    assert torch.equal(encoder.projection, motion_input_matrix())
    assert read_safetensors(MOTION_ENCODER)[0]["network"] == "motion_encoder"


@pytest.mark.parametrize("size", [64, 128])
def test_shipped_weights_read_mouth_gaze_and_lids(size: int) -> None:
    """One person that no training has seen, three motions: at rest, mouth open and looking left, eyes closed."""
    encoder = load_compact_motion_encoder()
    lids = open_head_extras().expression_slot("blink_left"), open_head_extras().expression_slot("blink_right")
    closed = np.zeros(100, np.float32)
    closed[list(lids)] = FULL_EXPRESSION
    rest = np.zeros(100, np.float32)
    answers = {
        "rest": _read(encoder, size, rest, 0.0, 0.0),
        "open": _read(encoder, size, rest, 0.2, 0.25),
        "closed": _read(encoder, size, closed, 0.0, 0.0),
    }
    read = {name: dict(zip(MOTION_INPUTS, values.tolist(), strict=True)) for name, values in answers.items()}
    assert read["open"]["jaw_open"] - read["rest"]["jaw_open"] > 0.6
    assert read["open"]["gaze_yaw"] - read["rest"]["gaze_yaw"] > 0.4
    for lid in ("blink_left", "blink_right"):
        assert read["closed"][lid] - read["rest"][lid] > 0.6


def _read(encoder: CompactMotionEncoder, size: int, expression: np.ndarray, jaw: float, yaw: float) -> torch.Tensor:
    """Return the inputs (27,) read from a picture of a motion."""
    still = np.zeros(3, np.float32)
    translation = np.array([0.0, -0.03, -4.25], np.float32)
    turned = np.array([[jaw, 0, 0], [0, yaw, 0]], np.float32)
    person = sample_appearance(77_000_001)
    shot = plan_shot(person, Motion(expression, still, turned[0], turned[1], translation))
    figure = build_figure(person, Detail.for_size(size))
    picture = render_portrait(figure, shot.params, shot.render_camera, size, maps=False).image[None]
    landmarks = landmarks_2d(open_head_model(), shot.params, shot.render_camera, size)
    return encoder(encoder.crop(picture, landmarks, reverse_y=True))[0]
