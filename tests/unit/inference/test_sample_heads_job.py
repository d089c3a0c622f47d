"""The grid of a sampling job, of more seeds than a JPEG holds at full size."""

import shutil
from pathlib import Path

import torch

from portrait4d.config.experiments import SampleHeadsConfig
from portrait4d.data.image_io import load_image, save_image
from portrait4d.geometry.flame import HeadModel
from portrait4d.inference.sample_heads_job import picture_path, run_sampling
from portrait4d.models.checkpoints import save_genhead
from tests.helpers.tiny_genhead import build_tiny_genhead


def test_a_grid_of_many_seeds(ellipsoid: HeadModel, tmp_path: Path) -> None:
    network, out = tmp_path / "tiny.safetensors", tmp_path / "out"
    save_genhead(network, build_tiny_genhead(ellipsoid))
    config = SampleHeadsConfig(network, out, tuple(range(340)), frames=1, grid=True, resume=True, device="cpu")
    save_image(picture_path(config, 0, 0), torch.zeros(3, 192, 192))
    for seed in config.seeds[1:]:
        shutil.copy(picture_path(config, 0, 0), picture_path(config, seed, 0))
    assert run_sampling(config).skipped == 340
    assert load_image(out / "grid.jpg").shape == (3, 340 * 192 + 2, 192 + 2)
