"""What gen_images_portrait4d.py does unless told otherwise."""

from pathlib import Path

import pytest

from portrait4d.files.errors import AssetMissingError
from portrait4d.inference.reenact_defaults import complete_config
from portrait4d.models.pretrained import bundled
from portrait4d.models.pretrained.bundled import bundled_network

FOLDERS = {"srcdir": Path("a"), "tardir": Path("b"), "outdir": Path("c")}


def test_without_a_network_the_bundled_one_reads_motion_from_pictures() -> None:
    config = complete_config(FOLDERS | {"network": None, "motion": None})
    assert config.network == bundled_network("portrait4d") and config.motion == "synthetic"
    assert complete_config(FOLDERS | {"motion": "stored"}).motion == "stored"


def test_other_networks_keep_the_published_defaults(tiny_network: Path) -> None:
    config = complete_config(FOLDERS | {"network": tiny_network, "motion": None, "render_size": None, "seed": 0})
    assert (config.motion, config.render_size, config.fov_deg) == ("stored", None, None)
    assert complete_config(FOLDERS | {"network": tiny_network, "render_size": 20}).render_size == 20


def test_an_installation_without_the_bundled_network_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "_FOLDER", tmp_path)
    with pytest.raises(AssetMissingError, match=r"demo-portrait4d\.safetensors is missing.*--network"):
        complete_config(FOLDERS)
    with pytest.raises(AssetMissingError, match=r"demo-genhead\.safetensors"):
        bundled_network("genhead")
