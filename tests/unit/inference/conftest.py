"""Something to animate: a photo, a film of a turning head with sound, and a network whose heads are seen."""

from pathlib import Path

import pytest
import torch

from portrait4d.config.animation import AnimateConfig
from portrait4d.data.image_io import from_uint8, save_image
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.checkpoints import save_reconstructor
from tests.conftest import build_tiny
from tests.helpers.films import write_film
from tests.helpers.stub_tracker import grey_picture

LEVELS = (100, 140, 180, 140, 100)
"""Of the film's pictures, see `stub_tracker.grey_picture`."""


@pytest.fixture(scope="session")
def visible_network(ellipsoid: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny reconstructor driven by motion vectors, with something in its volume."""
    network = build_tiny(ellipsoid, motion_kind="pdfgc").requires_grad_(False)
    network.decoder.density.bias.fill_(14.0)
    path = tmp_path_factory.mktemp("networks") / "visible.safetensors"
    save_reconstructor(path, network)
    return path


@pytest.fixture
def animation(visible_network: Path, tmp_path: Path) -> AnimateConfig:
    """The photo, the film, in `tmp_path`."""
    save_image(tmp_path / "photo.png", from_uint8(torch.from_numpy(grey_picture(150)).permute(2, 0, 1)))
    write_film(tmp_path / "in.mp4", [grey_picture(level) for level in LEVELS], sound="aac")
    return AnimateConfig(
        (tmp_path / "photo.png",),
        str(tmp_path / "in.mp4"),
        tmp_path / "out.mp4",
        visible_network,
        render_size=8,
        device="cpu",
        cache=tmp_path / "cache",
    )
