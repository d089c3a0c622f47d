"""Name table: every published tensor meets exactly one of ours, of the same shape; unknown names are refused."""

import pytest
import torch
from torch import nn

from portrait4d.config.networks import ReconstructorConfig
from portrait4d.models.canonical_encoder import CanonicalEncoder
from portrait4d.models.plane_generator import PlaneGenerator
from portrait4d.models.radiance_decoder import RadianceDecoder
from portrait4d.models.reconstructor_encoders import BackgroundEncoder, DetailEncoder, GlobalEncoder
from portrait4d.models.super_resolution import SuperResolution
from portrait4d.models.upstream_names import rename_reconstructor
from tests.helpers.published_weights import published_shapes


def test_published_names_map_one_to_one_onto_the_full_size_networks():
    config = ReconstructorConfig()
    with torch.device("meta"):
        network = nn.Module()
        network.register_buffer("average_style", torch.zeros(config.super_resolution.style_dim))
        network.global_encoder = GlobalEncoder(config.global_encoder)
        network.detail_encoder = DetailEncoder(config.detail_channels, config.plane_channels)
        network.canonical_encoder = CanonicalEncoder(config)
        network.plane_generator = PlaneGenerator(config)
        network.background_encoder = BackgroundEncoder(config.background_widths, config.plane_features)
        network.super_resolution = SuperResolution(config.super_resolution, config.plane_features, 512)
        network.decoder = RadianceDecoder(config.plane_features, config.volume.decoder_hidden)
    renamed = [(rename_reconstructor(name), shape) for name, shape in published_shapes().items()]
    kept = [(name, shape) for name, shape in renamed if name is not None]
    assert len(kept) == len(dict(kept))
    assert dict(kept) == {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_only_unused_buffers_are_dropped():
    dropped = [name for name in published_shapes() if rename_reconstructor(name) is None]
    assert len(dropped) == 4 + 4 + 2
    assert {name.split(".")[-1] for name in dropped} == {"noise_const", "noise_strength", "resample_filter"}
    assert rename_reconstructor("dataset_label_std") is None


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("w_avg", "average_style"),
        ("encoder_canonical.trans_blocks_neutral.3.norm2.bias", "canonical_encoder.neutral_blocks.3.cross_norm.bias"),
        ("encoder_canonical.proj_y.weight", "canonical_encoder.driving_motion.expansion.weight"),
        ("generator_triplane.trans_blocks.0.attn.sr.bias", "plane_generator.block.self_attention.reduction.bias"),
        ("superresolution.block1.torgb.affine.bias", "super_resolution.block1.to_rgb.affine.bias"),
    ],
)
def test_examples(published, ours):
    assert rename_reconstructor(published) == ours


@pytest.mark.parametrize(
    "name",
    [
        "",
        "w_avg.weight",
        "decoder.net.0",
        "decoder.net.1.weight",
        "encoder_global.encoder.bn1.weight",
        "deformer.flame_deform.flame_model.v_template",
        "module.decoder.net.0.weight",
    ],
)
def test_unknown_names_are_refused(name):
    with pytest.raises(KeyError, match="not the name of a tensor of a published reconstructor"):
        rename_reconstructor(name)
