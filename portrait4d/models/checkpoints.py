"""Checkpoints: one .safetensors file with the network's configuration as JSON in its metadata, loaded strictly.

A licensed head model travels inside (names `head.*`). An open head is named with version and SHA-256 and rebuilt.
Published .pkl networks are read by the allow-list reader and renamed; they load wherever a .safetensors file does.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from portrait4d.config.gan_networks import DiscriminatorConfig, GenHeadConfig
from portrait4d.config.load import config_from_dict
from portrait4d.config.networks import LandmarkNetworkConfig, MotionEncoderConfig, ReconstructorConfig
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.open_head import OpenHeadBuilder, digest_assets
from portrait4d.models.compact_landmarks import CompactLandmarks
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.models.discriminator import Discriminator
from portrait4d.models.genhead import GenHead
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.models.upstream_networks import NetworkConfig, NetworkContent, content_from_upstream
from portrait4d.models.upstream_pickles import read_network_pickle

FORMAT = "portrait4d-1"
HEAD = "head."

_PRETRAINED = Path(__file__).parents[1] / "pretrained_models"
MOTION_ENCODER = _PRETRAINED / "motion-encoder-synthetic.safetensors"
"""Our weights of the compact motion encoder, part of the package."""
LANDMARK_NETWORK = _PRETRAINED / "landmarks-synthetic.safetensors"
"""Our weights of the compact landmark network, part of the package."""

Network = Reconstructor | GenHead | Discriminator | CompactMotionEncoder | CompactLandmarks
Config = NetworkConfig | MotionEncoderConfig | LandmarkNetworkConfig


@dataclass(frozen=True)
class _Kind:
    """A kind of network: how to build it from its configuration and head model (None: it has none)."""

    config: type[Config]
    build: Callable[[Config, HeadModel | None], Network]
    has_head: bool = True


_KINDS = {
    "reconstructor": _Kind(ReconstructorConfig, Reconstructor),
    "genhead": _Kind(GenHeadConfig, GenHead),
    "discriminator": _Kind(DiscriminatorConfig, lambda config, _: Discriminator(config), False),
    "motion_encoder": _Kind(MotionEncoderConfig, lambda config, _: CompactMotionEncoder(config), False),
    "landmarks": _Kind(LandmarkNetworkConfig, lambda config, _: CompactLandmarks(config), False),
}


def save_network(path: str | Path, network: Network, dtype: torch.dtype | None = None) -> None:
    """Write a network atomically. Instead of an open head's buffers its name, version and hash are written.

    Args:
        path: file to write.
        network: what to write.
        dtype: of the stored floating-point numbers; loading gives the network's own types again. None: as they are.

    Raises:
        UserError: a number is too large for `dtype`, or the file cannot be written.
    """
    head = getattr(network, "head", None)
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if head is None or head.open_head is None or not name.startswith(HEAD)
    }
    if dtype is not None:
        tensors = {name: _stored_as(dtype, name, tensor) for name, tensor in tensors.items()}
    description = {"format": FORMAT, "network": _kind_of(network.config), "config": asdict(network.config)}
    if head is not None:
        description["head"] = {"name": head.name} if head.open_head is None else head.open_head.as_dict()
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"portrait4d": json.dumps(description)})
        except SafetensorError as error:
            raise UserError(f"{path}: cannot be written ({error})") from error


def load_network(
    path: str | Path, kind: str | None = None, build_open_head: OpenHeadBuilder | None = None, entry: str = "G_ema"
) -> Network:
    """Load a network in evaluation mode, without gradients, on the CPU from a .safetensors file or a published .pkl.

    Args:
        path: the file.
        kind: what it must hold: "reconstructor", "genhead", "discriminator", "motion_encoder", "landmarks"; None: any.
        build_open_head: builds open heads by name and version; needed for files that name one.
        entry: which network of a pickle: "G_ema", "G" or "D".

    Raises:
        InputFileError: if the file is missing, damaged, of another kind, or not complete.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError(path, "no such file", "give --network a .safetensors file or a published .pkl")
    if path.suffix == ".pkl":
        record = read_network_pickle(path, [entry])[entry]
        if record is None:
            raise InputFileError(path, f"its {entry} network is None", f"use a snapshot that holds {entry}")
        content = content_from_upstream(record, path)
        _require_kind(path, _kind_of(content.config), kind)
    elif path.suffix == ".safetensors":
        description, tensors = read_safetensors(path)
        _require_kind(path, description.get("network"), kind)
        content = _read_content(path, description, tensors, build_open_head)
    else:
        raise InputFileError(path, f"unknown suffix {path.suffix!r}", "expected .safetensors or .pkl")
    return load_renamed(path, content.config, content.head, content.tensors)


def save_reconstructor(path: str | Path, network: Reconstructor) -> None:
    """Write a reconstructor, see `save_network`."""
    save_network(path, network)


def load_reconstructor(path: str | Path, build_open_head: OpenHeadBuilder | None = None) -> Reconstructor:
    """Load a reconstructor, see `load_network`."""
    return load_network(path, "reconstructor", build_open_head)


def save_genhead(path: str | Path, network: GenHead) -> None:
    """Write a GenHead, see `save_network`."""
    save_network(path, network)


def load_genhead(path: str | Path, build_open_head: OpenHeadBuilder | None = None, entry: str = "G_ema") -> GenHead:
    """Load a GenHead, see `load_network`; `entry` "G" of a pickle is the one that training goes on with."""
    return load_network(path, "genhead", build_open_head, entry)


def save_discriminator(path: str | Path, network: Discriminator) -> None:
    """Write a discriminator, see `save_network`."""
    save_network(path, network)


def load_discriminator(path: str | Path) -> Discriminator:
    """Load a discriminator, of a pickle its D, see `load_network`."""
    return load_network(path, "discriminator", entry="D")


def load_compact_motion_encoder(path: str | Path | None = None) -> CompactMotionEncoder:
    """Load the compact motion encoder of the open head world, see `load_network`; None: our weights."""
    return load_network(MOTION_ENCODER if path is None else path, "motion_encoder")


def load_landmark_network(path: str | Path | None = None) -> CompactLandmarks:
    """Load the compact landmark network of the open head world, see `load_network`; None: our weights."""
    return load_network(LANDMARK_NETWORK if path is None else path, "landmarks")


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


def names_open_head(path: Path) -> bool:
    """Tell whether one of our .safetensors files is of a network that works on an open head.

    Raises:
        InputFileError: if it is missing, damaged or not ours.
    """
    if not path.is_file():
        raise InputFileError(path, "no such file", "give --network a .safetensors file or a published .pkl")
    head = read_safetensors(path)[0].get("head")
    return isinstance(head, dict) and "version" in head


def load_renamed(path: str | Path, config: Config, head: HeadModel | None, tensors: dict[str, Tensor]) -> Network:
    """Build the network of a configuration from its head model and its other tensors, by our names.

    Raises:
        InputFileError: naming `path` and what is missing, left over or of another shape, or sizes that nothing has.
    """
    try:
        with torch.device("meta"):
            network = _KINDS[_kind_of(config)].build(config, head)
    except (RuntimeError, TypeError) as error:  # what torch makes of sizes beyond all bounds
        problem = " ".join(str(error).split())[:120]
        raise InputFileError(path, f"impossible configuration ({problem})", "convert or train it again") from error
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(HEAD)}
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
    if head is not None:
        tensors |= {HEAD + name: tensor for name, tensor in head.state_dict().items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def _stored_as(dtype: torch.dtype, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    stored = tensor.to(dtype)
    if (stored.isinf() & tensor.isfinite()).any():
        raise UserError(f"{name} has numbers up to {tensor.abs().max():.3g}, too large for {dtype}; keep float32")
    return stored


def _kind_of(config: Config) -> str:
    return next(name for name, kind in _KINDS.items() if kind.config is type(config))


def _require_kind(path: Path, found: object, kind: str | None) -> None:
    if not isinstance(found, str) or found not in _KINDS or kind not in (None, found):
        raise InputFileError(path, f"expected a {kind or ' or '.join(_KINDS)}, got {found!r}", "give another file")


def _read_content(
    path: Path, description: dict, tensors: dict[str, Tensor], build_open_head: OpenHeadBuilder | None
) -> NetworkContent:
    try:
        config = config_from_dict(_KINDS[description["network"]].config, description["config"])
        stored = {name.removeprefix(HEAD): tensors.pop(name) for name in list(tensors) if name.startswith(HEAD)}
        head = None
        if stored:
            head = HeadModel(stored, description["head"]["name"])
        elif "head" in description:
            head = _rebuild_head(path, description["head"], build_open_head)
        elif _KINDS[description["network"]].has_head:
            raise KeyError("head")
    except (KeyError, ValueError, TypeError) as error:
        raise InputFileError(path, f"damaged description ({error})", "convert or train it again") from None
    return NetworkContent(config, head, tensors)


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


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
