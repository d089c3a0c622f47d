"""The face identity network's crop: anchors go where they should, whichever way y points."""

import pytest
import torch
from torch import Tensor

from portrait4d.geometry.face_alignment import IDENTITY_ANCHORS_PIXELS, identity_crop

ORDER = [68, 69, 30, 48, 54]
"""Landmarks of the anchors: eye centres, nose tip, mouth corners."""


def landmarks_at(points: Tensor) -> Tensor:
    """70 landmarks (1, 70, 2), nonsense but for the five anchors."""
    landmarks = torch.full((1, 70, 2), -50.0)
    landmarks[:, ORDER] = points.float()
    return landmarks


ANCHORS = torch.tensor(IDENTITY_ANCHORS_PIXELS, dtype=torch.float64)


def test_anchors_in_place_crop_the_corner_unchanged() -> None:
    image = torch.rand(1, 3, 160, 160) * 2 - 1
    crop, transform = identity_crop(image, landmarks_at(ANCHORS))
    torch.testing.assert_close(transform[0], torch.eye(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(crop, image[..., :112, :112], atol=1e-4, rtol=0)


def test_a_turned_and_doubled_face_is_brought_back() -> None:
    turned = 2 * torch.stack([-ANCHORS[:, 1], ANCHORS[:, 0]], 1) + torch.tensor([300.0, 20.0])
    _, transform = identity_crop(torch.zeros(1, 3, 400, 400), landmarks_at(turned))
    torch.testing.assert_close(
        transform[0, :, :2].double() @ turned.T + transform[0, :, 2:], ANCHORS.T, atol=1e-4, rtol=0
    )


def test_y_up_is_turned_round() -> None:
    image, y_down = torch.rand(1, 3, 160, 160), landmarks_at(ANCHORS).double()
    y_up = torch.stack([y_down[..., 0], 159 - y_down[..., 1]], -1)
    for ours, theirs in zip(identity_crop(image, y_up, reverse_y=True), identity_crop(image, y_down), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_values_are_clamped_and_gradients_flow_to_the_picture_alone() -> None:
    image = torch.full((1, 3, 160, 160), 0.5, requires_grad=True)
    landmarks = landmarks_at(ANCHORS).requires_grad_()
    identity_crop(image, landmarks)[0].sum().backward()
    assert image.grad[..., 5:100, 5:100].min() > 0.9 and not image.grad[..., 120:, :].any()
    assert landmarks.grad is None
    assert identity_crop(torch.full((1, 3, 160, 160), 3.0), landmarks)[0].max() == 1


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"landmarks_pixels: expected shape \(1, 70, 2\), got \(1, 68, 2\)"):
        identity_crop(torch.zeros(1, 3, 8, 8), torch.zeros(1, 68, 2))
    with pytest.raises(ValueError, match=r"images: expected shape \(B, 3, S, S\), got \(1, 1, 8, 8\)"):
        identity_crop(torch.zeros(1, 1, 8, 8), torch.zeros(1, 70, 2))
