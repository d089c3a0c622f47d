"""Fixtures shared by unit and command-line tests: a tiny saved network and prepared folders of painted heads."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.config.networks import ReconstructorConfig, tiny_reconstructor
from portrait4d.data.pack_folders import PackConfig, pack_clips, pack_stills
from portrait4d.data.portrait_folder import LANDMARKS_68, MOTION_VECTORS
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.checkpoints import save_reconstructor
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.synthetic_heads.ellipsoid_head import VERSION, build_ellipsoid_head
from portrait4d.synthetic_heads.ellipsoid_portrait import sample_look
from portrait4d.synthetic_heads.portrait_sets import PortraitSetConfig, write_portrait_set
from tests.helpers.painted_portraits import read_poses, write_painted_portrait


@pytest.fixture(scope="session")
def ellipsoid() -> HeadModel:
    """The ellipsoid head in world units."""
    return HeadModel.from_assets(build_ellipsoid_head(), VERSION)


def build_tiny(head: HeadModel, **changes: object) -> Reconstructor:
    """Build a seeded tiny reconstructor, its configuration changed, with densities that vary (they start at zero)."""
    torch.manual_seed(0)
    network = Reconstructor(replace(tiny_reconstructor(), **changes), head).eval()
    torch.nn.init.normal_(network.decoder.density.weight, std=20)
    return network


@pytest.fixture(scope="session")
def tiny(ellipsoid: HeadModel) -> Reconstructor:
    """A tiny reconstructor driven by FLAME coefficients. Do not change it."""
    return build_tiny(ellipsoid).requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_network(tiny: Reconstructor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny reconstructor driven by FLAME coefficients."""
    path = tmp_path_factory.mktemp("networks") / "tiny.safetensors"
    save_reconstructor(path, tiny)
    return path


@pytest.fixture(scope="session")
def tiny_pdfgc_network(ellipsoid: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny reconstructor driven by PD-FGC motion vectors."""
    path = tmp_path_factory.mktemp("networks") / "tiny-pdfgc.safetensors"
    save_reconstructor(path, build_tiny(ellipsoid, motion_kind="pdfgc"))
    return path


@pytest.fixture(scope="session")
def portrait_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 8 portraits of the open head world, 64 pixels. Do not change it."""
    root = tmp_path_factory.mktemp("open-head-world")
    write_portrait_set(PortraitSetConfig(root / "raw", identities=8, resolution=64))
    return pack_stills(PackConfig(root / "raw", root, 64)).target


@pytest.fixture(scope="session")
def portrait_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 2 clips of the open head world, 2 frames in 2 views each, 64 pixels. Do not change it."""
    root = tmp_path_factory.mktemp("pool")
    write_portrait_set(PortraitSetConfig(root, identities=2, clips=2, frames=2, fps=2.0, views=1, resolution=64))
    return root


@pytest.fixture(scope="session")
def clip_database(portrait_pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the pool's clips. Do not change it."""
    return pack_clips(PackConfig(portrait_pool, tmp_path_factory.mktemp("clips"), 64, frames=2)).target


@pytest.fixture
def prepared_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of prepared folders: names of portraits -> folder with pictures, labels, landmarks, motion."""

    def write(*names: str, folder: str = "prepared", motion: bool = True) -> Path:
        root, poses = tmp_path / folder, read_poses()
        for number, name in enumerate(names):
            look = sample_look(np.random.default_rng(number))
            write_painted_portrait(root, name, look, poses[number % len(poses)], resolution=64)
            for subfolder, values in (
                (LANDMARKS_68, np.random.default_rng(number).uniform(16, 48, (68, 2))),
                (MOTION_VECTORS, np.random.default_rng(number).normal(size=548).astype(np.float32)),
            ):
                if subfolder == LANDMARKS_68 or motion:
                    (root / subfolder).mkdir(exist_ok=True)
                    np.save(root / subfolder / f"{name}.npy", values)
        return root

    return write


@pytest.fixture(scope="session")
def config() -> ReconstructorConfig:
    """The tiny configuration."""
    return tiny_reconstructor()
