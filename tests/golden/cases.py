"""Inputs that several kinds of golden files share: the stand-in head, T(...) of a case, and its head parameters."""

import json
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.flame_assets import load_flame_assets
from portrait4d.geometry.head_params import HeadParams
from portrait4d.models.checkpoints import Network, load_renamed
from portrait4d.models.upstream_networks import NetworkConfig
from portrait4d.ops.upfirdn2d import build_filter
from tests.golden import weights
from tests.helpers.standin_head import write_standin_folder


@lru_cache(maxsize=1)
def standin_head() -> HeadModel:
    """Build the stand-in head from FLAME-format files, as a user's FLAME would be."""
    with tempfile.TemporaryDirectory() as folder:
        return HeadModel.from_assets(load_flame_assets(write_standin_folder(Path(folder))))


def filled_network(
    manifest: Path, config: NetworkConfig, head: HeadModel | None, rename: Callable[[str], str | None]
) -> Network:
    """Build a published-size network with the manifest's weights, through its table of published names."""
    filled = {name: torch.from_numpy(array) for name, array in weights.fill(manifest).items()}
    derived = [name for name, _, _ in json.loads(manifest.read_text())["derived"]]
    filled |= {name: build_filter() for name in derived if name.endswith("resample_filter")}
    renamed = {rename(name): tensor for name, tensor in filled.items()}
    renamed.pop(None, None)
    return load_renamed(manifest, config, head, renamed)


def case_tensor(case: str, name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """Return T(name, shape, std) of a case."""
    return torch.from_numpy(weights.tensor(f"{case}/{name}", shape, 0, std))


def case_params(case: str, pose_std: float = 0.15, jaw_rad: float | None = None) -> HeadParams:
    """Return the head parameters of a case; zero neck pose in case "n", the jaw opened by `jaw_rad` if given."""
    pose = case_tensor(case, "pose", (1, 6), pose_std)
    if case.startswith("n"):
        pose[:, :3] = 0
    if jaw_rad is not None:
        pose[:, 3] = jaw_rad
    return HeadParams(
        case_tensor(case, "shape", (1, 300), 0.6),
        case_tensor(case, "expression", (1, 100), 0.5),
        pose,
        case_tensor(case, "eye_pose", (1, 6), 0.1),
    )
