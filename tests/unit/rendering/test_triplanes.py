"""Tri-plane lookup against `rendering.md` section 12 and torch's own grid sampling."""

import pytest
import torch
from torch.nn.functional import grid_sample

from portrait4d.rendering.triplanes import TriPlanes
from tests.helpers.waves import wave


def reference_lookup(planes: torch.Tensor, points: torch.Tensor, box_warp: float) -> torch.Tensor:
    scaled = points * (2 / box_warp)
    sampled = [
        grid_sample(planes[:, p], scaled[..., axes].unsqueeze(2), align_corners=False, padding_mode="zeros")[..., 0]
        for p, axes in enumerate(([0, 1], [1, 2], [2, 0]))
    ]
    return (sum(sampled) / 3).transpose(1, 2)


def test_lookup_of_the_specification() -> None:
    planes, points = wave(1, 3, 2, 4, 4), torch.tensor([[[0.1, -0.2, 0.3], [0.6, 0.64, -0.7]]])
    single = torch.tensor(
        [
            [[0.760657, 0.877155], [-0.205350, -0.291343]],
            [[-0.088981, 0.178000], [0.085433, 0.022075]],
            [[0.634596, 0.784874], [0.012291, 0.091776]],
        ]
    )
    for plane in range(3):
        alone = torch.zeros_like(planes)
        alone[:, plane] = planes[:, plane]
        torch.testing.assert_close(TriPlanes(alone, 1.3).sample(points)[0] * 3, single[plane], atol=2e-6, rtol=0)


@pytest.mark.parametrize(("batch", "count", "height", "width"), [(1, 1, 1, 1), (2, 0, 5, 5), (3, 257, 7, 4)])
def test_lookup_equals_grid_sampling_inside_and_outside(batch: int, count: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(1)
    planes = torch.randn(batch, 3, 6, height, width, generator=generator)
    points = torch.randn(batch, count, 3, generator=generator)  # about half lie outside the cube
    expected = reference_lookup(planes, points, 1.3)
    torch.testing.assert_close(TriPlanes(planes, 1.3).sample(points), expected, atol=2e-6, rtol=0)


def test_far_outside_is_zero_even_next_to_nan() -> None:
    planes = torch.full((1, 3, 2, 4, 4), torch.nan)
    assert torch.equal(TriPlanes(planes, 1.0).sample(torch.full((1, 1, 3), 50.0)), torch.zeros(1, 1, 2))


def test_gradient_to_the_planes() -> None:
    generator = torch.Generator().manual_seed(2)
    planes = torch.randn(2, 3, 2, 3, 3, generator=generator, requires_grad=True)
    points = torch.randn(2, 5, 3, generator=generator) * 0.4
    weights = torch.randn(2, 5, 2, generator=generator)
    gradients = [
        torch.autograd.grad((lookup * weights).sum(), planes)[0]
        for lookup in (TriPlanes(planes, 1.3).sample(points), reference_lookup(planes, points, 1.3))
    ]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=0)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"planes: expected shape \(B, 3, C, H, W\), got \(1, 2, 2, 4, 4\)"):
        TriPlanes(torch.zeros(1, 2, 2, 4, 4), 1.3)
    with pytest.raises(ValueError, match=r"points: expected shape \(1, N, 3\), got \(2, 5, 3\)"):
        TriPlanes(torch.zeros(1, 3, 2, 4, 4), 1.3).sample(torch.zeros(2, 5, 3))
