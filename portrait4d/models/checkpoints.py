"""Checkpoints: one .safetensors file with the network's configuration as JSON in its metadata, loaded strictly.

A licensed head model travels inside (names `head.*`). An open head is named with version and SHA-256 and rebuilt.
Published .pkl networks are read by the allow-list reader and renamed; they load wherever a .safetensors file does.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from portrait4d.config.load import config_from_dict
from portrait4d.config.networks import (
    MOTION_DIMS,
    HeadPoseConfig,
    ReconstructorConfig,
    SuperResolutionConfig,
    VolumeConfig,
)
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.open_head import OpenHeadBuilder, digest_assets
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.models.upstream_head import PREFIX as HEAD_PREFIX
from portrait4d.models.upstream_head import head_from_upstream
from portrait4d.models.upstream_names import rename_reconstructor
from portrait4d.models.upstream_pickles import NetworkRecord, read_network_pickle

FORMAT = "portrait4d-1"
RECONSTRUCTOR_CLASS = "TriPlaneReconstructorNeutralize"


def save_reconstructor(path: str | Path, network: Reconstructor) -> None:
    """Write a reconstructor atomically. Instead of an open head's buffers its name, version and hash are written."""
    open_head = network.head.open_head
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if open_head is None or not name.startswith("head.")
    }
    head = {"name": network.head.name} if open_head is None else open_head.as_dict()
    description = {"format": FORMAT, "network": "reconstructor", "config": asdict(network.config), "head": head}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"portrait4d": json.dumps(description)})


def load_reconstructor(path: str | Path, build_open_head: OpenHeadBuilder | None = None) -> Reconstructor:
    """Load a reconstructor in evaluation mode on the CPU from a .safetensors file or a published .pkl.

    Args:
        path: the file.
        build_open_head: builds open heads by name and version; needed for files that name one.

    Raises:
        InputFileError: if the file is missing, damaged, of another kind, or not complete.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError(path, "no such file", "give --network a .safetensors file or a published .pkl")
    if path.suffix == ".pkl":
        record = read_network_pickle(path, ["G_ema"])["G_ema"]
        if record is None:
            raise InputFileError(path, "its G_ema network is None", "use a snapshot that holds G_ema")
        return reconstructor_from_upstream(record, path)
    if path.suffix != ".safetensors":
        raise InputFileError(path, f"unknown suffix {path.suffix!r}", "expected .safetensors or .pkl")
    description, tensors = read_safetensors(path)
    return _assemble(path, description, tensors, build_open_head)


def read_safetensors(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """Read one of our .safetensors files: its description and {name: tensor}.

    Raises:
        InputFileError: if it is damaged or not ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        description = json.loads(metadata["portrait4d"])
    except (SafetensorError, OSError) as error:
        raise InputFileError(path, f"cannot be read as safetensors ({error})", "copy or convert it again") from None
    except (KeyError, json.JSONDecodeError):
        raise InputFileError(
            path, "has no Portrait4D description in its metadata", "make it with convert_network.py"
        ) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else description
        raise InputFileError(path, f"expected format {FORMAT}, got {found!r}", "use the release that wrote it")
    return description, tensors


def reconstructor_from_upstream(record: NetworkRecord, path: str | Path) -> Reconstructor:
    """Build a reconstructor from a published network's tensors and stored constructor arguments.

    Raises:
        InputFileError: naming what is missing or left over.
    """
    if record.class_name != RECONSTRUCTOR_CLASS:
        raise InputFileError(
            path, f"expected a {RECONSTRUCTOR_CLASS}, got a {record.class_name}", "give a Portrait4D network"
        )
    try:
        config = config_from_upstream(record)
        head = head_from_upstream(record.tensors)
        renamed = {rename_reconstructor(k): v for k, v in record.tensors.items() if not k.startswith(HEAD_PREFIX)}
    except (KeyError, ValueError, TypeError) as error:
        raise InputFileError(path, f"unexpected network content ({error.args[0]})") from None
    renamed.pop(None, None)
    return load_renamed(path, config, head, renamed)


def config_from_upstream(record: NetworkRecord) -> ReconstructorConfig:
    """Read a published reconstructor's sizes from its stored constructor arguments (`networks-reconstructor.md` 1).

    Raises:
        KeyError: if an argument is missing.
        ValueError: if one has a value this implementation does not know.
    """
    kwargs = record.init_kwargs
    rendering = record.rendering_kwargs or kwargs["rendering_kwargs"]
    motion_kinds = {dim: kind for kind, dim in MOTION_DIMS.items()}
    motion_dim = kwargs.get("mot_dims", 512)
    if motion_dim not in motion_kinds:
        raise ValueError(f"mot_dims: expected one of {sorted(motion_kinds)}, got {motion_dim}")
    for key in ("ray_start", "ray_end"):
        if rendering.get(key) != "auto-plane":
            raise ValueError(f"{key}: expected 'auto-plane', got {rendering.get(key)!r}")
    fp16_blocks = kwargs.get("sr_num_fp16_res", 0)
    style = "ones" if kwargs.get("sr_kwargs", {}).get("use_ws_ones", False) else "average"
    return ReconstructorConfig(
        image_resolution=kwargs.get("img_resolution", 512),
        render_resolution=128,  # of the published inference program; the stored attribute is a training state
        motion_kind=motion_kinds[motion_dim],
        super_resolution=SuperResolutionConfig(
            style=style,
            conv_clamp=256.0 if fp16_blocks > 0 else None,
            antialias=rendering.get("sr_antialias", True),
        ),
        volume=VolumeConfig(
            depth_samples=rendering["depth_resolution"],
            importance_samples=rendering["depth_resolution_importance"],
            box_warp=rendering["box_warp"],
        ),
        head_pose=HeadPoseConfig(),
    )


def _assemble(
    path: Path, description: dict, tensors: dict[str, Tensor], build_open_head: OpenHeadBuilder | None
) -> Reconstructor:
    if description.get("network") != "reconstructor":
        raise InputFileError(path, f"expected a reconstructor, got {description.get('network')!r}", "give another file")
    try:
        config = config_from_dict(ReconstructorConfig, description["config"])
        identity = description["head"]
        stored = {name.removeprefix("head."): tensors.pop(name) for name in list(tensors) if name.startswith("head.")}
        head = HeadModel(stored, identity["name"]) if stored else _rebuild_head(path, identity, build_open_head)
    except (KeyError, ValueError, TypeError) as error:
        raise InputFileError(path, f"damaged description ({error})", "convert or train it again") from None
    return load_renamed(path, config, head, tensors)


def _rebuild_head(path: Path, identity: dict, build_open_head: OpenHeadBuilder | None) -> HeadModel:
    if build_open_head is None:
        raise InputFileError(path, f"needs the open head {identity['name']!r}, and no builder was given")
    assets = build_open_head(identity["name"], identity["version"])
    found = digest_assets(assets)
    if found != identity["sha256"]:
        raise InputFileError(
            path,
            f"was made with another build of the open head {identity['name']} {identity['version']} "
            f"(sha256 {identity['sha256'][:12]}, rebuilt {found[:12]})",
            "use the release that wrote it",
        )
    return HeadModel.from_assets(assets, identity["version"])


def load_renamed(
    path: str | Path, config: ReconstructorConfig, head: HeadModel, tensors: dict[str, Tensor]
) -> Reconstructor:
    with torch.device("meta"):
        network = Reconstructor(config, head)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("head.")}
    missing = sorted(set(wanted) - set(tensors))
    unexpected = sorted(set(tensors) - set(wanted))
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    problems = [
        f"{kind} {_abbreviate(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
        if names
    ]
    if problems:
        raise InputFileError(
            path, "does not fit its configuration: " + "; ".join(problems), "convert or train it again"
        )
    tensors = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    network.load_state_dict(tensors | {f"head.{k}": v for k, v in head.state_dict().items()}, assign=True)
    return network.eval().requires_grad_(False)


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
