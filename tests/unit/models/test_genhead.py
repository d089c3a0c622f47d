"""GenHead: sizes, composition, noise and sampling, masks at work, one training step that reaches every parameter."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from portrait4d.config.gan_networks import (
    CAMERA_CONDITION,
    GenHeadConfig,
    MappingConfig,
    tiny_discriminator,
    tiny_genhead,
)
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.models.discriminator import Discriminator, DiscriminatorInput
from portrait4d.models.genhead import GenHead, GenHeadOptions
from portrait4d.models.outputs import GenHeadRender
from portrait4d.models.stylegan_mapping import Truncation
from portrait4d.rendering.ray_sampling import sample_jitter
from tests.golden.cases import standin_head
from tests.helpers.tiny_genhead import build_tiny_genhead, frame


@pytest.fixture(scope="module")
def network(ellipsoid: HeadModel) -> GenHead:
    """A tiny GenHead. Its head has a mouth, but its eyes are covered. Do not change it."""
    return build_tiny_genhead(ellipsoid).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def rendered(network: GenHead) -> GenHeadRender:
    """Two pictures of it."""
    return render(network)


def render(network: GenHead, options: GenHeadOptions | None = None, batch: int = 2) -> GenHeadRender:
    with torch.autocast("cpu", enabled=False):
        params, camera = frame(batch)
    latent = torch.randn(batch, 32, generator=torch.Generator().manual_seed(1))
    styles = network.map_styles(latent, network.conditioning(camera, params.shape))
    return network(latent, styles, params, camera, options)


def test_parameter_count_is_the_published_one_without_what_we_do_not_hold(ellipsoid: HeadModel) -> None:
    with torch.device("meta"):
        network = GenHead(GenHeadConfig(), ellipsoid)
    frozen_head_pose, noise_strengths_of_super_resolution = 9, 4
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count + frozen_head_pose + noise_strengths_of_super_resolution == 54_985_546


def test_tiny_networks_are_small(ellipsoid: HeadModel) -> None:
    networks = GenHead(tiny_genhead(), ellipsoid), Discriminator(tiny_discriminator())
    assert sum(p.numel() for network in networks for p in network.parameters()) < 3_000_000


def test_shapes_ranges_and_composition() -> None:
    result = render(build_tiny_genhead(standin_head()).requires_grad_(False))
    assert result.image_sr.shape == (2, 3, 64, 64) == result.correspondence.shape
    assert result.features.shape == (2, 8, 16, 16) == result.background.shape
    assert result.planes.shape == (2, 6, 8, 32, 32)
    assert result.depth.shape == (2, 1, 16, 16) == result.transmittance.shape
    assert all(
        mask.shape == (2, 1, 16, 16) and mask.min() > -1e-6 and 0.1 < mask.max() < 1 + 1e-6 for mask in result.masks
    )
    assert result.transmittance.min() > -1e-6 and result.transmittance.max() < 1 + 1e-6
    drawn = result.rays.features.transpose(1, 2).unflatten(2, (16, 16))
    behind = result.transmittance * (result.background + 1) / 2
    torch.testing.assert_close(result.features, 2 * (drawn + behind) - 1)
    torch.testing.assert_close(result.mask, 1 - 2 * result.transmittance)
    assert result.rays.distances.shape == (2, 256, 24) and result.rays.weights.shape == (2, 256, 23)
    face_only = result.coarse_is_face_only
    assert face_only.shape == (2, 256, 12) and 0 < face_only.float().mean() < 1
    assert (
        face_only.all(2) == ((result.masks.mouth == 0).flatten(1) & (result.rays.coarse_eye_weights == 0).all(2))
    ).all()


def test_results_repeat_and_random_samples_differ(network: GenHead, rendered: GenHeadRender) -> None:
    assert torch.equal(rendered.image_sr, render(network).image_sr)
    jitter = sample_jitter(2, 256, 12, 12, torch.Generator().manual_seed(3))
    assert not torch.equal(render(network, GenHeadOptions(jitter=jitter)).image, rendered.image)


def test_noise_of_planes_and_background_follows_mode_and_generator(network: GenHead) -> None:
    styles, latent = torch.ones(2, network.mapping.num_styles, 32), torch.ones(2, 32)
    for make, given in ((network.generate_planes, styles), (network.generate_background, latent)):
        drawn = [make(given, "random", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
        assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
        assert torch.equal(make(given), make(given, "const")) and not torch.equal(make(given), make(given, "none"))


def test_pictures_depend_neither_on_chunks_nor_on_the_rest_of_their_batch(
    network: GenHead, rendered: GenHeadRender
) -> None:
    planes, background = rendered.planes, torch.full((2, 8, 8, 8), 0.5)
    params, camera = frame(2)
    second = HeadParams(*(value[1:] for value in (params.shape, params.expression, params.pose, params.eye_pose)))

    def draw(params: HeadParams, part: slice, chunk: int | None) -> torch.Tensor:
        field, mesh = network.part_field(params), network.draw_mesh(params, camera[part])
        options = GenHeadOptions(chunk=chunk)
        return network.render(planes[part], background[part], camera[part], field, mesh, options).image_sr

    whole = draw(params, slice(0, 2), None)
    torch.testing.assert_close(draw(params, slice(0, 2), 50), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(draw(second, slice(1, 2), None), whole[1:], atol=1e-4, rtol=1e-4)


def test_folded_super_resolution_gives_the_same(network: GenHead, rendered: GenHeadRender) -> None:
    folded = GenHeadOptions(super_resolution=network.super_resolution.fold(None))
    torch.testing.assert_close(render(network, folded).image_sr, rendered.image_sr, atol=1e-5, rtol=1e-5)


def test_a_ray_for_every_pixel_needs_no_super_resolution_of_the_head(network: GenHead) -> None:
    result = render(network, GenHeadOptions(resolution=64), batch=1)
    assert torch.equal(result.image_sr, result.image) and result.features.shape == (1, 3, 64, 64)
    drawn = result.rays.features[..., :3].transpose(1, 2).unflatten(2, (64, 64))
    behind = (network.super_resolution(result.background[:, :3], result.background, None) + 1) / 2
    torch.testing.assert_close(result.image, 2 * (drawn + result.transmittance * behind) - 1)
    with pytest.raises(ValueError, match="resolution: expected at most 64 rays per side, got 65"):
        render(network, GenHeadOptions(resolution=65), batch=1)


def test_fusion_changes_on_mouth_rays_above_its_threshold(network: GenHead, rendered: GenHeadRender) -> None:
    fused = GenHead(replace(network.config, auto_fusion_above=8), network.head).requires_grad_(False)
    fused.load_state_dict(network.state_dict())
    changed = (rendered.image != render(fused).image).any(1, keepdim=True)
    assert changed.any() and not changed[rendered.masks.mouth == 0].any()


def test_truncation_pulls_towards_the_average_and_spares_later_styles(network: GenHead) -> None:
    params, camera = frame(2)
    latent, conditioning = torch.ones(2, 32), network.conditioning(camera, params.shape)
    tracked = copy.deepcopy(network)
    tracked.map_styles(latent, conditioning, update_average=True)
    plain, cut = tracked.map_styles(latent, conditioning), tracked.map_styles(latent, conditioning, Truncation(0.5, 3))
    torch.testing.assert_close(cut[:, :3], (plain[:, :3] + tracked.mapping.average) / 2)
    assert torch.equal(cut[:, 3:], plain[:, 3:])


def test_conditioning_is_camera_then_identity(ellipsoid: HeadModel, network: GenHead) -> None:
    params, camera = frame(2)
    assert torch.equal(network.conditioning(camera, params.shape), torch.cat([camera, params.shape], 1))
    mapping = MappingConfig(32, CAMERA_CONDITION, 32, 2, 0.998)
    assert torch.equal(build_tiny_genhead(ellipsoid, mapping=mapping).conditioning(camera, params.shape), camera)


def test_part_densities_are_those_of_the_fields(network: GenHead, rendered: GenHeadRender) -> None:
    params, camera = frame(2)
    planes, field = rendered.planes, network.part_field(params)
    points = 0.3 * torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
    densities = network.sample_densities(points, planes, field)
    fields, parts = network.part_fields(planes, field), field(points)
    assert torch.equal(densities.mouth, fields.inner(parts.mouth).densities)
    assert torch.equal(densities.face, fields.face(parts.face).densities)
    assert len({value.sum().item() for value in densities}) == 3


def test_one_training_step_reaches_every_parameter() -> None:
    generator, discriminator = build_tiny_genhead(standin_head()), Discriminator(tiny_discriminator())
    result = render(generator, GenHeadOptions(noise_mode="random"))
    params, camera = frame(2)
    inputs = DiscriminatorInput(result.image_sr, result.image, result.correspondence, result.mask)
    loss = F.softplus(-discriminator(inputs, camera)).mean()
    loss = loss + (F.softplus(result.rays.face_densities_in_mouth) * result.masks.mouth.flatten(1)[..., None]).mean()
    points = torch.randn(2, 20, 3)
    loss = loss + sum(
        d.abs().mean() for d in generator.sample_densities(points, result.planes, generator.part_field(params))
    )
    loss.backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert not result.correspondence.requires_grad and not result.masks.eye.requires_grad


def test_half_precision_networks_under_autocast(network: GenHead, rendered: GenHeadRender) -> None:
    expected = rendered
    with torch.autocast("cpu", torch.bfloat16):
        result = render(network)
    assert result.planes.dtype == torch.float32 == result.image_sr.dtype
    torch.testing.assert_close(result.planes, expected.planes, atol=0.05 * expected.planes.abs().max().item(), rtol=0)
    assert result.correspondence.equal(expected.correspondence)
