"""Sizes of GenHead and its discriminator: published values, derived numbers, refusals."""

from dataclasses import asdict, replace

import pytest

from portrait4d.config.gan_networks import (
    ConvPyramidConfig,
    DiscriminatorConfig,
    GenHeadConfig,
    MappingConfig,
    tiny_discriminator,
    tiny_genhead,
)
from portrait4d.config.load import config_from_dict


def test_published_widths():
    config = GenHeadConfig()
    assert [config.backbone.channels(r) for r in config.backbone.resolutions] == [512] * 5 + [256, 128]
    assert [config.background.channels(r) for r in config.background.resolutions] == [512] * 4 + [256]
    assert (config.backbone.conv_clamp, config.background.conv_clamp) == (None, 256.0)
    pyramid = DiscriminatorConfig().pyramid
    assert [pyramid.channels(r) for r in pyramid.resolutions] == [512] * 5 + [256, 128, 64]
    assert DiscriminatorConfig().input_channels == 10
    assert DiscriminatorConfig(with_correspondence=False, with_mask=False).input_channels == 6


@pytest.mark.parametrize("config", [GenHeadConfig(), tiny_genhead(), DiscriminatorConfig(), tiny_discriminator()])
def test_configurations_survive_json(config):
    assert config_from_dict(type(config), asdict(config)) == config


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MappingConfig(latent_dim=0), "latent_dim: expected a latent or a condition, got 0"),
        (lambda: ConvPyramidConfig(resolution=48), "resolution: expected a power of 2, at least 8, got 48"),
        (lambda: ConvPyramidConfig(256, channel_base=128), "channel_base: expected at least 256, got 128"),
        (lambda: GenHeadConfig(render_resolution=512), "render_resolution: expected 1 to 511 rays, got 512"),
        (lambda: GenHeadConfig(mapping=MappingConfig()), r"mapping.condition_dim: expected one of \(25, 325\), got 0"),
        (lambda: DiscriminatorConfig(mapping=MappingConfig()), "mapping: expected no latent and 25 camera numbers"),
        (
            lambda: GenHeadConfig(background_mapping=MappingConfig(latent_dim=64)),
            r"latent_dim: expected one length for head and background, got \(512, 64\)",
        ),
        (
            lambda: replace(tiny_genhead(), volume=replace(tiny_genhead().volume, importance_samples=9)),
            "importance_samples: expected depth_samples, 12, got 9",
        ),
    ],
)
def test_bad_sizes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
