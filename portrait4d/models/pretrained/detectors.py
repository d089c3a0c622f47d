"""What turns pictures into feature vectors for metrics: Inception, a scripted network, or plain small pixels.

Files are taken only with a known sha256, or when told so. A TorchScript archive is a program, if a confined one; other
pickles are never opened.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.files.errors import InputFileError, UserError
from portrait4d.models.pretrained.inception import Inception, load_inception
from portrait4d.models.pretrained.registry import EXTERNAL_WEIGHTS, find_weights

PIXELS16 = "pixels16"
INCEPTION = "inception"
PIXELS16_SIDE = 16


class FeatureDetector(Protocol):
    """Pictures (B, 3, H, W) uint8 RGB of any size to feature vectors (B, D) float32."""

    def features(self, images: Tensor) -> Tensor:
        """Return feature vectors (B, D), float32."""
        ...

    def class_probabilities(self, images: Tensor) -> Tensor | None:
        """Return class probabilities (B, classes), or None if the detector knows no classes."""
        ...


@dataclass(frozen=True)
class DetectorIdentity:
    """Which detector made some numbers.

    Attributes:
        name: "inception", "pixels16" or "script".
        sha256: of its file, None without one.
        verified: its sha256 is that of the registry.
        comparable: its FID can be compared with published ones, if the file is what it claims to be.
    """

    name: str
    sha256: str | None
    verified: bool
    comparable: bool


@dataclass(frozen=True)
class Detector:
    """A detector on its device, with what it is."""

    identity: DetectorIdentity
    network: FeatureDetector


class Pixels16:
    """Means of 16 x 16 areas of a picture: 768 numbers in [0, 1], channel first.

    Runs anywhere without files. Its distances tell how close two sets are in colours and coarse shapes; they are
    **not comparable with published FID values**.
    """

    def features(self, images: Tensor) -> Tensor:
        """Return (B, 768).

        Raises:
            ValueError: another shape or type, or pictures below 16 pixels a side.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected (B, 3, H, W) uint8, got {tuple(images.shape)} {images.dtype}")
        if min(images.shape[2:]) < PIXELS16_SIDE:
            raise ValueError(f"images: expected at least 16 pixels a side, got {tuple(images.shape[2:])}")
        return functional.adaptive_avg_pool2d(images.float() / 255, PIXELS16_SIDE).flatten(1)

    def class_probabilities(self, images: Tensor) -> None:
        """Return None: pixels know no classes."""
        return


class InceptionDetector:
    """The public Inception network as a detector."""

    def __init__(self, network: Inception) -> None:
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        """Return (B, 2048)."""
        return self.network(images)

    def class_probabilities(self, images: Tensor) -> Tensor:
        """Return (B, 1008), computed without the classes' bias."""
        return self.network.class_probabilities(self.network(images))


class ScriptedDetector:
    """A TorchScript network that takes (images uint8, return_features) and (images, no_output_bias), metrics.md §2."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        """Return (B, D)."""
        return self.network(images, return_features=True).flatten(1).float()

    def class_probabilities(self, images: Tensor) -> Tensor:
        """Return (B, classes), computed without the classes' bias."""
        return self.network(images, no_output_bias=True).float()


def load_detector(name: str | Path, device: torch.device | str = "cpu", accept_unverified: bool = False) -> Detector:
    """Load a detector.

    Args:
        name: "inception" (found as `registry.find_weights` says), "pixels16", or the path of a file: the public
            Inception network as a plain state dict (.pth, .safetensors), or a TorchScript archive.
        device: where it runs.
        accept_unverified: take files whose sha256 is not that of the registry, or for which it knows none.

    Raises:
        AssetMissingError: "inception" is in none of its places.
        InputFileError: the file is missing, damaged, a pickle that would run code, or not verified.
    """
    if str(name) == PIXELS16:
        return Detector(DetectorIdentity(PIXELS16, None, verified=True, comparable=False), Pixels16())
    path = find_weights("inception") if str(name) == INCEPTION else Path(name)
    if not path.is_file():
        raise InputFileError(path, "no such detector", f"expected {INCEPTION}, {PIXELS16} or the path of a file")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    verified = sha256 == EXTERNAL_WEIGHTS["inception"].sha256
    if not verified and not accept_unverified:
        raise InputFileError(
            path,
            f"a detector with unknown sha256 {sha256}: numbers made with it may not be comparable",
            f"expected {EXTERNAL_WEIGHTS['inception'].source}; if you trust the file, give --accept-unverified",
        )
    if is_torchscript(path):
        scripted = ScriptedDetector(load_script(path, torch.device(device)))
        return Detector(DetectorIdentity("script", sha256, verified, verified), scripted)
    network = InceptionDetector(load_inception(path).to(device))
    return Detector(DetectorIdentity(INCEPTION, sha256, verified, comparable=True), network)


def is_torchscript(path: str | Path) -> bool:
    """Tell whether a file is a TorchScript archive, by the code in it, without opening it as one."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.split("/")[1:2] == ["code"] for name in names)


def detect_classes(detector: Detector, images: Tensor) -> Tensor:
    """Return class probabilities (B, classes) of pictures (B, 3, H, W) uint8.

    Raises:
        UserError: the detector knows no classes.
    """
    probabilities = detector.network.class_probabilities(images)
    if probabilities is None:
        raise UserError(
            f"the inception score needs classes, which {detector.identity.name} lacks: use another detector"
        )
    return probabilities


@torch.no_grad()
def require_fitting(detector: Detector, picture: Tensor, path: Path, with_classes: bool = False) -> None:
    """Try a detector with a picture.

    Args:
        detector: the detector.
        picture: (3, H, W) uint8 RGB, where the detector is.
        path: where the picture comes from.
        with_classes: try its class probabilities too, if it knows classes.

    Raises:
        InputFileError: naming `path`: the picture is too small, or the detector is a network of another kind.
    """
    try:
        found = [detector.network.features(picture[None])]
        if with_classes:
            found.append(detector.network.class_probabilities(picture[None]))
        shapes = [tuple(values.shape) for values in found if values is not None]
        if any(len(shape) != 2 or shape[0] != 1 for shape in shapes):
            raise ValueError(f"expected one vector for one picture, got shapes {shapes}")
    except (RuntimeError, ValueError, AttributeError, TypeError, torch.jit.Error) as error:
        problem = " ".join(str(error).split())[:200]
        name = detector.identity.name
        raise InputFileError(path, f"the detector ({name}) does not take its pictures ({problem})") from error


def load_script(path: Path, device: torch.device) -> nn.Module:
    """Open a TorchScript archive in evaluation mode.

    Raises:
        InputFileError: it cannot be read.
    """
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        text = " ".join(str(error).split())[:200]
        raise InputFileError(path, f"not a readable TorchScript archive ({text})", "get it again") from error
