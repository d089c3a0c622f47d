"""The assembled reconstructor: caching, batches, outputs, gradients."""

import pytest
import torch

from portrait4d.config.networks import ReconstructorConfig
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.models.reconstructor import Reconstructor, RenderOptions
from tests.conftest import build_tiny
from tests.helpers.cameras import frontal_camera


def inputs(batch: int = 1) -> tuple[torch.Tensor, torch.Tensor, HeadParams, torch.Tensor]:
    """Return picture, driving motion, head parameters and cameras."""
    generator = torch.Generator().manual_seed(1)
    params = HeadParams(
        torch.randn(batch, 300, generator=generator),
        torch.randn(batch, 100, generator=generator),
        torch.randn(batch, 6, generator=generator) * 0.2,
        torch.randn(batch, 6, generator=generator) * 0.1,
    )
    image = torch.rand(batch, 3, 64, 64, generator=generator) * 2 - 1
    return image, params.flame_motion(), params, frontal_camera().repeat(batch, 1)


@torch.no_grad()
def test_shapes_and_ranges(tiny: Reconstructor) -> None:
    image, motion, params, camera = inputs(2)
    render = tiny(tiny.encode_source(image, motion), motion, params, camera)
    assert render.image_sr.shape == (2, 3, 64, 64)
    assert render.image.shape == render.image_without_background.shape == (2, 3, 16, 16)
    assert render.features.shape == render.background.shape == (2, 8, 16, 16)
    assert render.depth.shape == render.transmittance.shape == render.mask.shape == (2, 1, 16, 16)
    assert render.planes.shape == (2, 3, 8, 32, 32)
    assert render.rays.weights.shape == (2, 256, 15)
    assert render.transmittance.min() > -1e-6 and render.transmittance.max() < 1 + 1e-6
    assert render.depth.min() > 3.5 and render.depth.max() < 4.95
    torch.testing.assert_close(
        render.features, render.features_without_background + render.transmittance * (render.background + 1)
    )


@torch.no_grad()
def test_a_batch_equals_its_frames(tiny: Reconstructor) -> None:
    image, motion, params, camera = inputs(3)
    whole = tiny(tiny.encode_source(image, motion), motion, params, camera).image_sr
    for k in range(3):
        part = slice(k, k + 1)
        one = HeadParams(params.shape[part], params.expression[part], params.pose[part], params.eye_pose[part])
        single = tiny(tiny.encode_source(image[part], motion[part]), motion[part], one, camera[part]).image_sr
        torch.testing.assert_close(whole[part], single, atol=2e-4, rtol=0)


@torch.no_grad()
def test_folded_super_resolution_and_chunks_change_nothing(tiny: Reconstructor) -> None:
    image, motion, params, camera = inputs()
    source = tiny.encode_source(image, motion)
    plain = tiny(source, motion, params, camera, RenderOptions(resolution=13))
    options = RenderOptions(resolution=13, chunk=50, super_resolution=tiny.super_resolution.fold(tiny.average_style))
    folded = tiny(source, motion, params, camera, options)
    torch.testing.assert_close(plain.image_sr, folded.image_sr, atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.depth, folded.depth, atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_drives_and_what_does_not(tiny: Reconstructor) -> None:
    image, motion, params, camera = inputs()
    source = tiny.encode_source(image, motion)
    driven = tiny.generate_planes(source, motion + 1)
    assert not torch.equal(driven, tiny.generate_planes(source, motion))
    still = tiny.encode_source(image, motion, motion_scale=0.0)
    other = tiny.encode_source(image, motion + 1, motion_scale=0.0)
    assert torch.equal(still.tokens, other.tokens)  # the static model: no motion enters
    assert torch.equal(tiny.generate_planes(still, motion, 0.0), tiny.generate_planes(still, motion + 1, 0.0))


def test_gradients_reach_every_parameter(ellipsoid: HeadModel) -> None:
    network = build_tiny(ellipsoid).train()
    network.average_style.fill_(0.5)  # with the initial zeros no gradient reaches the style layers' weights
    image, motion, params, camera = inputs(2)
    render = network(network.encode_source(image, motion), motion, params, camera)
    (render.image_sr.square().mean() + render.features.square().mean() + render.depth.mean()).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


def test_wrong_inputs_are_named(tiny: Reconstructor) -> None:
    image, motion, _, _ = inputs()
    with pytest.raises(ValueError, match=r"image: expected shape \(B, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        tiny.encode_source(image[..., ::2, ::2], motion)
    with pytest.raises(ValueError, match=r"motion: expected shape \(1, 109\), got \(1, 548\)"):
        tiny.encode_source(image, torch.zeros(1, 548))


def test_published_size(ellipsoid: HeadModel) -> None:
    with torch.device("meta"):
        network = Reconstructor(ReconstructorConfig(), ellipsoid)
    # 224,766,132 of the published module less 4 unused noise strengths and the head model's 9 frozen pose parameters.
    assert sum(p.numel() for p in network.parameters()) == 224_766_132 - 4 - 9
