"""Weights that come from elsewhere: one table of what they are, how they are found, and how they are read safely."""

import hashlib
import os
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from portrait4d.files.errors import AssetMissingError, InputFileError

ASSETS_VARIABLE = "PORTRAIT4D_ASSETS"
"""Environment variable that names the folder of licensed and downloaded files."""

PACKAGE_MODELS = Path(__file__).resolve().parents[1]
"""The folder `portrait4d/models`, where the published instructions put external weights."""


@dataclass(frozen=True)
class ExternalWeights:
    """One file of weights by other authors.

    Attributes:
        title: what the network is, for messages.
        path: place of the file below the assets folder, and below `portrait4d/models`.
        source: where to get it.
        licence: what is known of its terms.
        sha256: hexadecimal digest of the file, None when unknown.
        size: bytes of the file, None when unknown.
        url: address for `fetch_assets.py`, None when unknown.
        in_repository: whether the published Portrait4D model repository holds it (`fetch_assets.py --repo`).
    """

    title: str
    path: str
    source: str
    licence: str
    sha256: str | None = None
    size: int | None = None
    url: str | None = None
    in_repository: bool = False


_REPOSITORY = "the published Portrait4D model repository"
_REPOSITORY_LICENCE = "its authors' terms, see that repository; not covered by the licence of this package"


def _published_network(title: str, name: str) -> ExternalWeights:
    return ExternalWeights(
        title, f"pretrained_models/{name}", _REPOSITORY, f"{_REPOSITORY_LICENCE}; holds FLAME data", in_repository=True
    )


def _published_table(title: str, name: str) -> ExternalWeights:
    return ExternalWeights(title, f"data/{name}", _REPOSITORY, _REPOSITORY_LICENCE, in_repository=True)


EXTERNAL_WEIGHTS = {
    "motion_encoder": ExternalWeights(
        title="PD-FGC motion encoder",
        path="pdfgc/weights/motion_model.pth",
        source="the authors' PD-FGC-inference repository (paper 'Progressive Disentangled Representation Learning for "
        "Fine-Grained Controllable Talking Head Synthesis')",
        licence="its authors' terms, see that repository; not covered by the licence of this package",
        in_repository=True,
    ),
    "face_identity": ExternalWeights(
        title="ArcFace network, iresnet18",
        path="arcface/ms1mv3_arcface_r18_fp16/backbone.pth",
        source=f"{_REPOSITORY}, or ms1mv3_arcface_r18_fp16 of the InsightFace project (arcface_torch)",
        licence="InsightFace: its models are for non-commercial research only",
        in_repository=True,
    ),
    "inception": ExternalWeights(
        title="Inception-V3 for FID",
        path="inception/inception-2015-12-05.pth",
        source="the FID Inception network of 2015-12-05 as a plain state dict, as the pytorch-fid project has it",
        licence="the network is TensorFlow's, Apache License 2.0; trained on ImageNet",
    ),
    "lpips_vgg": ExternalWeights(
        title="LPIPS weights, v0.1 for VGG16",
        path="lpips/weights/v0.1/vgg.pth",
        source="the package lpips on PyPI, which brings it as lpips/weights/v0.1/vgg.pth",
        licence="BSD 2-Clause, of the LPIPS authors",
    ),
    "vgg16": ExternalWeights(
        title="VGG16 for ImageNet",
        path="imagenet/vgg16.pth",
        source="torchvision's ImageNet weights of vgg16, a plain state dict",
        licence="torchvision: BSD 3-Clause; trained on ImageNet",
    ),
    "resnet34": ExternalWeights(
        title="ResNet-34 for ImageNet",
        path="imagenet/resnet34.pth",
        source="torchvision's ImageNet weights of resnet34, a plain state dict",
        licence="torchvision: BSD 3-Clause; trained on ImageNet",
    ),
    "genhead": _published_network("GenHead network", "genhead-ffhq512.pkl"),
    "portrait4d_static": _published_network("Portrait4D static network", "portrait4d-static-genhead512.pkl"),
    "portrait4d_v2": _published_network("Portrait4D-v2 network", "portrait4d-v2-vfhq512.pkl"),
    "ffhq_shapes": _published_table("FFHQ shapes and cameras", "ffhq_all_shape_n_c_params.npy"),
    "ffhq_motions": _published_table("FFHQ motions", "ffhq_all_motion_params.npy"),
    "vfhq_shapes": _published_table("VFHQ shapes and cameras", "vfhq_all_shape_n_c_params.npy"),
    "vfhq_motions": _published_table("VFHQ motions", "vfhq_all_motion_params.npy"),
}
"""key -> external weights and data. Sizes, hashes and addresses that no source of ours states are None."""


def find_weights(key: str) -> Path:
    """Return where the weights `key` of `EXTERNAL_WEIGHTS` lie.

    Looks below the folder named by the environment variable PORTRAIT4D_ASSETS, then below `portrait4d/models`. A file
    whose sha256 is known is checked.

    Raises:
        ValueError: `key` is not in the table.
        AssetMissingError: the file is in neither place; names both, and the source.
        InputFileError: the file is not the one whose sha256 is known.
    """
    if key not in EXTERNAL_WEIGHTS:
        raise ValueError(f"key: expected one of {sorted(EXTERNAL_WEIGHTS)}, got {key!r}")
    weights = EXTERNAL_WEIGHTS[key]
    assets = os.environ.get(ASSETS_VARIABLE)
    roots = [Path(assets).expanduser() if assets else Path(f"${ASSETS_VARIABLE}"), PACKAGE_MODELS]
    places = [root / weights.path for root in roots]
    for place in places:
        if place.is_file():
            _check_sha256(place, weights)
            return place
    raise AssetMissingError(f"{weights.title} ({places[0].name})", places, weights.source)


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Load a plain state dict {name: tensor} onto the CPU from `.safetensors` or else a `torch.save` file.

    Nothing named in the file is run. Entries that are no tensors are dropped, and so is the `module.` that
    DataParallel puts before every name.

    Raises:
        InputFileError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError(path, "no such file", "give the path of a file of weights")
    try:
        content = load_file(path) if path.suffix.lower() == ".safetensors" else _load_torch(path)
    except _UNREADABLE as error:
        problem = f"not a readable file of weights ({type(error).__name__})"
        raise InputFileError(path, problem, "it may be damaged or incomplete: get it again") from error
    tensors = {name: value for name, value in _items(content) if isinstance(value, Tensor)}
    if not tensors:
        problem = f"expected a dict of names and tensors, got {type(content).__name__} without any"
        raise InputFileError(path, problem, "use a plain state dict")
    return {name.removeprefix("module."): value for name, value in tensors.items()}


_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    struct.error,
    pickle.UnpicklingError,
    SafetensorError,
)
"""What the readers raise for text, noise and files cut short."""


def _load_torch(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def _items(content: object) -> list[tuple[str, object]]:
    return [(str(name), value) for name, value in content.items()] if isinstance(content, dict) else []


def _check_sha256(path: Path, weights: ExternalWeights) -> None:
    if weights.sha256 is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != weights.sha256:
        problem = f"not the expected {weights.title}: sha256 {digest} instead of {weights.sha256}"
        raise InputFileError(path, problem, f"get it again from {weights.source}")
