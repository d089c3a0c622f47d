"""The published weights of FAN-4: a plain state dict, or the TorchScript archive, which is converted once.

A TorchScript archive is a program, if a confined one: it is opened only when its sha256 begins as the digits in its
published name promise, or when told so; only its tensors are kept. Source: preprocess-alternatives.md §3.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from data_preprocess.fan import FAN_INPUT_SIZE, Fan, published_name
from data_preprocess.published_weights import load_published
from portrait4d.files.atomic import atomic_path
from portrait4d.files.download import digest_file
from portrait4d.files.errors import InputFileError
from portrait4d.models.pretrained.detectors import is_torchscript, load_script
from portrait4d.models.pretrained.registry import EXTERNAL_WEIGHTS, asset_places, find_weights

KEY = "landmarks68"
ARCHIVE_DIGEST = "4a694010b9"
"""First digits of the sha256 of the published archive; the rest is not known."""

_SAME_HEATMAPS = 1e-3  # largest difference between archive and network, relative to the largest value


def load_fan(path: str | Path | None = None, accept_unverified: bool = False) -> Fan:
    """Build FAN-4 with published weights, on the CPU.

    Args:
        path: the plain state dict (3DFAN4-7835d9f11d.pth.tar), the archive (3DFAN4-4a694010b9.zip), or what
            `convert_fan` made of it; None looks in the places of `registry.find_weights`, for what was converted
            first. An archive is converted beside itself, once.
        accept_unverified: open an archive whose sha256 is not the published one.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing, damaged, not verified, or does not hold exactly this network.
    """
    path = _find_file() if path is None else Path(path)
    if not is_torchscript(path):
        return load_published(Fan, KEY, path, published_name=published_name)
    converted = path.with_suffix(".safetensors")
    if not converted.is_file():
        convert_fan(path, converted, accept_unverified)
    return load_published(Fan, KEY, converted, published_name=published_name)


def convert_fan(archive: str | Path, target: str | Path, accept_unverified: bool = False) -> None:
    """Write the tensors of the published TorchScript archive as a plain `.safetensors` file, names kept.

    Archive and network must give the same heat-maps for a random picture.

    Args:
        archive: the published file.
        target: the file to write, atomically.
        accept_unverified: open an archive whose sha256 is not the published one.

    Raises:
        InputFileError: the archive is missing, damaged, not verified, or is not this network; or the target cannot be
            written.
    """
    archive, target = Path(archive), Path(target)
    _require_verified(archive, accept_unverified)
    script = load_script(archive, torch.device("cpu"))
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in script.state_dict().items()}
    try:
        with atomic_path(target) as temporary:
            save_file(tensors, temporary)
            network = load_published(Fan, KEY, temporary, published_name=published_name)
            _require_same_heatmaps(archive, script, network)
    except InputFileError as error:
        raise InputFileError(archive, error.problem, "use the plain state dict of face-alignment 1.5") from error
    except OSError as error:
        remedy = "convert it elsewhere with convert_fan, and give that file"
        raise InputFileError(target, f"cannot be written ({error.strerror or error})", remedy) from error


def _find_file() -> Path:
    for place in asset_places(EXTERNAL_WEIGHTS[KEY].path):
        converted = place.with_suffix(".safetensors")
        if converted.is_file():
            return converted
    return find_weights(KEY)


def _require_verified(archive: Path, accept_unverified: bool) -> None:
    if not archive.is_file():
        raise InputFileError(archive, "no such file", "give the path of the published archive")
    digest = digest_file(archive)
    if not digest.startswith(ARCHIVE_DIGEST) and not accept_unverified:
        problem = f"a TorchScript archive with unknown sha256 {digest}, expected one that begins with {ARCHIVE_DIGEST}"
        raise InputFileError(archive, problem, "if you trust the file, give accept_unverified")


@torch.no_grad()
def _require_same_heatmaps(archive: Path, script: nn.Module, network: Fan) -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, FAN_INPUT_SIZE, FAN_INPUT_SIZE, generator=generator)
    expected: Tensor | list[Tensor] = script(picture)
    expected = expected if isinstance(expected, Tensor) else expected[-1]
    found = network(picture * 2 - 1)
    if expected.shape != found.shape or (expected - found).abs().max() > _SAME_HEATMAPS * expected.abs().max():
        raise InputFileError(archive, "gives other heat-maps than FAN-4")
