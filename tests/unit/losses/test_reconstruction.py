"""Reconstruction terms on flat pictures, whose differences are known, and on what they must not see."""

import pytest
import torch
from torch import Tensor

from portrait4d.geometry.face_alignment import IDENTITY_ANCHORS_PIXELS
from portrait4d.losses.reconstruction import (
    HeadPictures,
    absolute_loss,
    build_target,
    cut_out,
    depth_loss,
    emphasised_loss,
    face_emphasis,
    feature_loss,
    identity_loss,
    mask_loss,
    novel_view_loss,
    perceptual_loss,
    teacher_box_scale,
)
from tests.helpers.waves import wave


def flat(value: float, size: int, channels: int = 3) -> Tensor:
    """Two flat pictures."""
    return torch.full((2, channels, size, size), value)


def squares(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference (B, 1, 1, 1), in place of a learned distance."""
    return (first - second).square().mean((1, 2, 3), keepdim=True)


def left_half(size: int) -> Tensor:
    """Masks that show the left half."""
    mask = -torch.ones(2, 1, size, size)
    mask[..., : size // 2] = 1
    return mask


def test_cut_out_shows_black_elsewhere() -> None:
    picture = wave(2, 3, 4, 4)
    shown = cut_out(picture, left_half(4))
    torch.testing.assert_close(shown[..., :2], picture[..., :2])
    assert (shown[..., 2:] == -1).all()
    torch.testing.assert_close(cut_out(picture, flat(0.0, 4, 1)), (picture - 1) / 2)  # half covered: half as bright
    torch.testing.assert_close(shown + cut_out(picture, -left_half(4)), picture - 1)


def test_target_of_a_real_picture_knows_only_the_visible_background() -> None:
    target = build_target(wave(2, 3, 16, 16), left_half(16), 16)
    assert target.background is None
    torch.testing.assert_close(target.pictures.background, cut_out(wave(2, 3, 16, 16), -left_half(16)))
    one, other = (HeadPictures(*target.pictures[:3], torch.full((2, 3, 16, 16), value)) for value in (0.0, 0.5))
    hidden = HeadPictures(*target.pictures[:3], torch.where(left_half(16) > 0, 0.5, 0.0).expand(2, 3, 16, 16))
    assert absolute_loss(one, target) == absolute_loss(hidden, target) != absolute_loss(other, target)


def test_target_of_a_synthetic_picture_is_its_background_itself() -> None:
    background = wave(2, 5, 8, 8)
    target = build_target(wave(2, 3, 16, 16), left_half(8), 8, background)
    torch.testing.assert_close(target.pictures.background, background[:, :3])
    assert [tuple(p.shape[1:]) for p in target.pictures] == [(3, 16, 16), (3, 8, 8), (3, 8, 8), (3, 8, 8)]
    assert build_target(wave(2, 3, 16, 16), left_half(8), 4, background).background.shape == (2, 5, 4, 4)


def test_differences_of_four_flat_pictures_add_up() -> None:
    target = build_target(flat(0.0, 16), flat(1.0, 8, 1), 8, flat(0.25, 8, 4))
    predicted = HeadPictures(flat(0.1, 16), flat(-0.2, 8), flat(0.3, 8), flat(0.65, 8))
    assert absolute_loss(predicted, target).item() == pytest.approx(0.1 + 0.2 + 0.3 + 0.4)
    distance = perceptual_loss(predicted, target, squares)
    torch.testing.assert_close(distance, torch.full((2,), 0.01 + 0.04 + 0.09 + 0.16))
    assert absolute_loss(target.pictures, target) == 0 and not perceptual_loss(target.pictures, target, squares).any()


def test_absolute_gradient() -> None:
    target = build_target(wave(1, 3, 4, 4).double(), wave(1, 1, 4, 4, frequency=0.9).double(), 4)
    leaves = [wave(1, 3, 4, 4, frequency=0.5 + i).double().requires_grad_() for i in range(4)]
    assert torch.autograd.gradcheck(lambda *pictures: absolute_loss(HeadPictures(*pictures), target), leaves)


def test_identity_is_the_angle_between_embeddings() -> None:
    landmarks = torch.zeros(2, 70, 2)
    landmarks[:, [68, 69, 30, 48, 54]] = torch.tensor(IDENTITY_ANCHORS_PIXELS) * torch.tensor([1.0, -1.0])
    landmarks[..., 1] += 127  # y up in a picture of 128 pixels
    image = wave(2, 3, 128, 128)

    def colours(crops: Tensor) -> Tensor:
        assert crops.shape == (2, 3, 112, 112)
        return crops[:, :, 20:90, 20:90].mean((2, 3))

    def loss(first: Tensor, second: Tensor) -> Tensor:
        return identity_loss(first, second, landmarks, colours)

    torch.testing.assert_close(loss(image, image), torch.zeros(2), atol=1e-6, rtol=0)
    plain = [flat(0.0, 128) for _ in range(2)]
    plain[0][:, 0], plain[1][:, 1] = 0.5, 0.25
    torch.testing.assert_close(loss(*plain), torch.ones(2))  # at right angles
    torch.testing.assert_close(loss(plain[0], -plain[0]), torch.full((2,), 2.0))
    torch.testing.assert_close(loss(plain[0], 0.5 * plain[0]), torch.zeros(2), atol=1e-6, rtol=0)


def test_masks_of_three_channels_are_compared_with_one() -> None:
    channels = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    target = build_target(flat(0.0, 16), channels, 8)
    assert mask_loss(flat(0.5, 8, 1), target).item() == pytest.approx((0.5 + 0.5 + 1.5) / 3)


def test_depth_counts_only_where_the_head_is() -> None:
    weight = (left_half(8) + 1) / 2
    predicted = torch.where(weight > 0, 4.2, 99.0)
    assert depth_loss(predicted, flat(4.0, 8, 1), weight).item() == pytest.approx(0.1, rel=1e-4)


def test_features_of_head_and_background() -> None:
    target = build_target(flat(0.0, 8), left_half(8), 8, flat(0.2, 8, 4))
    head = cut_out(flat(0.5, 8, 4), left_half(8))
    assert feature_loss(head, flat(0.2, 8, 4), flat(0.5, 8, 4), target) == 0
    assert feature_loss(head + 0.1, flat(0.0, 8, 4), flat(0.5, 8, 4), target).item() == pytest.approx(0.3)
    with pytest.raises(ValueError, match="target: expected one with a synthetic background"):
        feature_loss(head, head, head, build_target(flat(0.0, 8), left_half(8), 8))


def test_a_novel_view_is_compared_inside_both_masks() -> None:
    student, teacher = wave(2, 3, 16, 16), wave(2, 3, 16, 16)
    teacher[..., 10:] = 0.9  # outside, away from the resized mask's edge
    same = novel_view_loss(student, left_half(8), teacher, left_half(8), squares)
    torch.testing.assert_close(same, torch.zeros(2))
    assert novel_view_loss(student, left_half(8), teacher, flat(1.0, 8, 1), squares).min() > 0.01
    flats = novel_view_loss(flat(0.5, 16), flat(1.0, 8, 1), flat(0.0, 16), flat(1.0, 8, 1), squares)
    torch.testing.assert_close(flats, torch.full((2,), 0.25))


@pytest.mark.parametrize(("opening", "scale"), [(0.0, 0.97), (0.1, 0.98), (0.25, 0.995), (0.3, 1.0), (0.8, 1.0)])
def test_box_scale_follows_the_eyes(opening: float, scale: float) -> None:
    landmarks = torch.zeros(1, 68, 2)
    for first in (36, 42):  # an eye of length 20, four points on its lids
        x = torch.tensor([0.0, 6, 14, 20, 14, 6])
        y = torch.tensor([0.0, 1, 1, 0, -1, -1]) * 10 * opening
        landmarks[0, first : first + 6] = torch.stack([x, y], 1) + first
    assert teacher_box_scale(landmarks).item() == pytest.approx(scale, abs=1e-4)


def test_eyes_and_mouth_are_emphasised_where_they_are() -> None:
    landmarks = torch.full((1, 70, 2), 20.0)  # x right, y up
    for first, x in ((36, 10.0), (42, 22.0)):
        landmarks[0, first : first + 6, 0] = torch.linspace(x - 2, x + 2, 6)
        landmarks[0, first : first + 6, 1] = 22.0
    landmarks[0, 48:68, 1] = 8.0
    landmarks[0, 48:68, 0] = torch.linspace(11, 21, 20)
    emphasis = face_emphasis(landmarks, 32)
    assert emphasis.shape == (1, 1, 32, 32) and emphasis.max() <= 1
    assert emphasis[0, 0, 32 - 22, 10] > 0.3 and emphasis[0, 0, 32 - 22, 22] > 0.3  # eyes: rows count down
    assert emphasis[0, 0, 32 - 8, 16] > 0.9 and emphasis[0, 0, 32 - 8, 12] > 0.4  # the mouth is wide
    assert emphasis[0, 0, 32 - 22, 16] < 0.01 and emphasis[0, 0, 2, 2] < 0.01


def test_an_emphasised_difference_counts_by_its_emphasis() -> None:
    emphasis = (left_half(8) + 1) / 2
    assert emphasised_loss(flat(0.5, 8), flat(0.1, 8), emphasis).item() == pytest.approx(0.2)
    assert emphasised_loss(flat(0.5, 8), flat(0.1, 8), 0 * emphasis) == 0
