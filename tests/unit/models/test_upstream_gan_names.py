"""Names of published GenHeads and discriminators: every tensor meets exactly one of ours; sizes from stored options."""

import pytest
import torch

from portrait4d.config.gan_networks import DiscriminatorConfig, GenHeadConfig
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.checkpoints import load_renamed
from portrait4d.models.upstream_gan_names import rename_discriminator, rename_genhead
from portrait4d.models.upstream_networks import content_from_upstream
from portrait4d.models.upstream_pickles import NetworkRecord, read_network_pickle
from tests.golden.kind_network import hollow_value
from tests.helpers.cli import ROOT
from tests.helpers.published_weights import published_shapes

PICKLE = ROOT / "tests" / "golden" / "network-genhead.pkl"
CASES = {"genhead": (GenHeadConfig(), rename_genhead), "discriminator": (DiscriminatorConfig(), rename_discriminator)}


@pytest.fixture(scope="module")
def records() -> dict[str, NetworkRecord]:
    return read_network_pickle(PICKLE, ["G_ema", "D"])


@pytest.mark.parametrize("network", CASES)
def test_published_names_load_with_nothing_missing_or_left_over(network: str, ellipsoid: HeadModel) -> None:
    config, rename = CASES[network]
    head = ellipsoid if network == "genhead" else None
    shapes = {rename(name): shape for name, shape in published_shapes(network).items()}
    kept = [rename(name) for name in published_shapes(network) if rename(name) is not None]
    assert len(kept) == len(set(kept))
    shapes.pop(None)
    loaded = load_renamed("x", config, head, {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()})
    names = {name for name in loaded.state_dict() if not name.startswith("head.")}
    assert names == shapes.keys()


def test_what_is_dropped() -> None:
    dropped = [name for name in published_shapes("genhead") if rename_genhead(name) is None]
    assert "background.mapping.w_avg" in dropped and rename_genhead("dataset_label_std") is None
    others = {name.split(".")[-1] for name in dropped} - {"w_avg"}
    assert others == {"resample_filter", "noise_const", "noise_strength"}
    assert all(name.startswith("superresolution.") for name in dropped if "noise" in name)
    dropped = [name for name in published_shapes("discriminator") if rename_discriminator(name) is None]
    assert {name.split(".")[-1] for name in dropped} == {"resample_filter"}


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("backbone.synthesis.b4.const", "backbone.blocks.4.const"),
        ("backbone.synthesis.b256.conv0.affine.bias", "backbone.blocks.256.conv0.affine.bias"),
        ("backbone.synthesis.b8.resample_filter", "backbone.blocks.8.resample_filter"),
        ("background.synthesis.b64.torgb.weight", "background.blocks.64.to_rgb.weight"),
        ("background.mapping.fc7.weight", "background_mapping.layers.7.weight"),
        ("backbone.mapping.w_avg", "mapping.average"),
        ("decoder.out_sigma.bias", "decoder.density.bias"),
    ],
)
def test_examples_of_genhead(published: str, ours: str) -> None:
    assert rename_genhead(published) == ours


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("b512.fromrgb.weight", "from_rgb.weight"),
        ("b64.skip.resample_filter", "blocks.64.skip.resample_filter"),
        ("b4.fc.bias", "final.hidden.bias"),
        ("mapping.embed.weight", "mapping.embedding.weight"),
    ],
)
def test_examples_of_the_discriminator(published: str, ours: str) -> None:
    assert rename_discriminator(published) == ours


@pytest.mark.parametrize("name", ["", "w_avg", "backbone.synthesis.b4.conv1", "b4.torgb.weight", "b8.skip.scale"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(KeyError, match="not the name of a tensor of a published GenHead"):
        rename_genhead(name)
    with pytest.raises(KeyError, match="not the name of a tensor of a published discriminator"):
        rename_discriminator(name)


def test_a_published_discriminator_loads_from_its_pickle(records: dict[str, NetworkRecord]) -> None:
    content = content_from_upstream(records["D"], PICKLE)
    assert content.config == DiscriminatorConfig() and content.head is None
    network = load_renamed(PICKLE, content.config, None, content.tensors)
    assert network.final.output.bias.unique().item() == pytest.approx(hollow_value("b4.out.bias", "float32"))


def test_sizes_of_a_published_genhead(records: dict[str, NetworkRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded file's head is hollow, so the head is left out here."""
    monkeypatch.setattr("portrait4d.models.upstream_networks.head_from_upstream", lambda tensors: None)
    content = content_from_upstream(records["G_ema"], PICKLE)
    assert content.config == GenHeadConfig()
    record = records["G_ema"]
    record.init_kwargs["triplane_channels"] = 96
    with pytest.raises(InputFileError, match="triplane_channels: expected 192, got 96"):
        content_from_upstream(record, PICKLE)
    record.init_kwargs.pop("img_resolution")
    record.init_kwargs["triplane_channels"] = 192
    with pytest.raises(InputFileError, match="unexpected network content .img_resolution"):
        content_from_upstream(record, PICKLE)


def test_unknown_classes_are_refused(records: dict[str, NetworkRecord]) -> None:
    from dataclasses import replace

    with pytest.raises(InputFileError, match="expected a network of class Dual.*, got Painter"):
        content_from_upstream(replace(records["D"], class_name="Painter"), PICKLE)
