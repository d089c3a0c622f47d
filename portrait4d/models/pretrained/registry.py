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
from portrait4d.files.home import expand_home

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
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        size=7289,
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
    "retinaface": ExternalWeights(
        title="RetinaFace face detector, ResNet-50",
        path="facedetect/retinaface/Resnet50_Final.pth",
        source="Resnet50_Final.pth of the public PyTorch RetinaFace (biubug6), in facexlib's release v0.1.0 as "
        "detection_Resnet50_Final.pth",
        licence="MIT, of the PyTorch RetinaFace authors; trained on WIDER FACE",
        url="https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
    ),
    "h3r": ExternalWeights(
        title="H3R landmark network, HRNet-W18, 98 WFLW points",
        path="hrnet_w18_wflw/h3r/model.pth",
        source="the authors of H3R (paper 'Heatmap Regression via Randomized Rounding'), HRNet-W18 trained on WFLW",
        licence="not stated for the weights",
    ),
    "landmarks68": ExternalWeights(
        title="FAN-4 landmark network, 68 points",
        path="landmark3d/3DFAN4-4a694010b9.zip",
        source="the face-alignment project, releases 1.3 to 1.4",
        licence="BSD 3-Clause, of the face-alignment authors; trained on 300W-LP",
    ),
    "bfm_regressor": ExternalWeights(
        title="Deep3DFace network, ResNet-50, 257 coefficients",
        path="facerecon/deep3d_2023/epoch_20.pth",
        source="the authors of Deep3DFaceRecon_pytorch, model of 2023",
        licence="its authors' terms, see that repository; made with the Basel Face Model, which is for research only",
    ),
    "bfm2flame_mapper": ExternalWeights(
        title="mapper from Basel Face Model to FLAME coefficients",
        path="bfm2flame_mapper/model-iter200000.pth",
        source="the published Portrait4D repository, folder data_preprocess",
        licence="its authors' terms, see that repository; not covered by the licence of this package",
        sha256="730c2d2289bb5b1d1c2c351b0de8cc5c3a55c008bfcac2fb45130808635fd91c",
        size=1125471,
    ),
    "bfm2flame_correspondence": ExternalWeights(
        title="correspondence of Basel Face Model and FLAME vertices",
        path="bfm_to_flame/BFM_to_FLAME_corr.npz",
        source="the public BFM_to_FLAME converter of FLAME's authors (BFM_to_FLAME_corr.npz)",
        licence="its authors' terms, see that repository; not covered by the licence of this package",
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
    places = asset_places(weights.path)
    for place in places:
        if place.is_file():
            _check_sha256(place, weights)
            return place
    source = f"{weights.source}, or run {fetch_command(key)}"
    raise AssetMissingError(f"{weights.title} ({places[0].name})", places, source)


def asset_places(path: str) -> list[Path]:
    """Return where the asset `path` may lie: below the folder of PORTRAIT4D_ASSETS, then below `portrait4d/models`."""
    assets = os.environ.get(ASSETS_VARIABLE)
    roots = [expand_home(assets) if assets else Path(f"${ASSETS_VARIABLE}"), PACKAGE_MODELS]
    return [root / path for root in roots]


def fetch_command(*keys: str) -> str:
    """Return the command that fetches the weights `keys`; words in capitals are the user's to fill in."""
    addresses = [
        "" if weights.url else "--repo OWNER/NAME" if weights.in_repository else f"--url {key}=ADDRESS"
        for key, weights in ((key, EXTERNAL_WEIGHTS[key]) for key in keys)
    ]
    options = [*dict.fromkeys(filter(None, addresses)), "--accept-licences"]
    return " ".join(["python portrait4d/fetch_assets.py", *keys, *options])


def load_tensors(path: str | Path, entry: str = "state_dict") -> dict[str, Tensor]:
    """Load a plain state dict {name: tensor} onto the CPU from `.safetensors` or else a `torch.save` file.

    Nothing named in the file is run. Entries that are no tensors are dropped, and so is the `module.` that
    DataParallel puts before every name.

    Args:
        path: the file.
        entry: of a file that keeps its state dict under this name, beside other things, that one is loaded.

    Raises:
        InputFileError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError(path, "no such file", "give the path of a file of weights")
    try:
        content = load_file(path) if path.suffix.lower() == ".safetensors" else _load_torch(path, entry)
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


def _load_torch(path: Path, entry: str) -> object:
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content[entry] if isinstance(content, dict) and isinstance(content.get(entry), dict) else content


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
