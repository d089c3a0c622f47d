"""Masks for GenHead's rays: resizing, opening, blur."""

import pytest
import torch

from portrait4d.models.genhead_masks import open_mask, ray_masks
from portrait4d.ops.resize import resize_antialiased
from portrait4d.ops.upfirdn2d import build_blur_filter
from portrait4d.rendering.mesh_maps import PartMasks


def drawn(size: int) -> PartMasks:
    eye, mouth, head = (torch.zeros(1, 1, size, size) for _ in range(3))
    eye[..., size // 4, size // 4] = 1
    mouth[..., size // 2 : size // 2 + size // 16, size // 4 : 3 * size // 4] = 1
    head[..., size // 8 : -size // 8, size // 8 : -size // 8] = 1
    return PartMasks(eye, mouth, head)


def test_opening_drops_what_is_narrower_than_its_window_and_keeps_the_rest():
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 5:13, 5:20] = 1
    wide = mask.clone()
    mask[..., 25:31, 5:35] = 1  # 6 high
    assert torch.equal(open_mask(mask, 3), wide)
    assert torch.equal(open_mask(mask, 0), mask)
    everywhere = torch.ones(1, 1, 9, 9)
    assert torch.equal(open_mask(everywhere, 3), everywhere)  # borders do not erode


def test_coarse_rays_see_resized_masks():
    masks = drawn(128)
    for ours, mask in zip(ray_masks(masks, 24, 16), masks, strict=True):
        assert torch.equal(ours, resize_antialiased(mask, 24))


def test_a_ray_for_every_pixel_sees_blurred_masks():
    masks = drawn(512)
    result = ray_masks(masks, 512, 64)
    taps = build_blur_filter(1.0)
    torch.testing.assert_close(result.eye[0, 0, 125:132, 125:132], torch.outer(taps, taps))
    assert torch.equal(result.head, masks.head)
    coarse = resize_antialiased(resize_antialiased(masks.mouth, 64), 512)
    assert (result.mouth >= coarse - 1e-6).all() and result.mouth.max() == 1
    edge = 256  # first row of the mouth; the blur of a half plane is half the centre tap more than a half
    expected = (0.5 + build_blur_filter(2.0)[6].item() / 2 + coarse[0, 0, edge, 250].item(), 1.0)
    assert result.mouth[0, 0, edge, 250].item() == pytest.approx(min(expected), abs=1e-5)


def test_blur_and_opening_scale_with_the_picture():
    """At 64 pixels the published kernels are narrower than a pixel: only the coarse mask is added."""
    masks = drawn(64)
    result = ray_masks(masks, 64, 16)
    assert torch.equal(result.eye, masks.eye)
    coarse = resize_antialiased(resize_antialiased(masks.mouth, 16), 64)
    assert torch.equal(result.mouth, (masks.mouth + coarse).clamp_max(1))


def test_more_rays_than_pixels_are_refused():
    with pytest.raises(ValueError, match="resolution: expected at most 64 rays per side, got 65"):
        ray_masks(drawn(64), 65, 16)
