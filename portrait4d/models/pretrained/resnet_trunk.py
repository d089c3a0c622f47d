"""What the reconstructor's global encoder starts from: an ImageNet ResNet-34, or random weights.

Source: networks-reconstructor.md §3, "Initialisation".
"""

from pathlib import Path
from typing import Literal

from portrait4d.models.pretrained.strict_loading import load_exact_tensors
from portrait4d.models.reconstructor_encoders import GlobalEncoder

EncoderInit = Literal["imagenet", "random"]

_DROPPED = r"(.*\.)?bn\d\..*|.*\.downsample\.1\..*|fc\.(weight|bias)"
"""Normalisation layers and the classifier, which the encoder does not have."""


def initialise_encoder(encoder: GlobalEncoder, init: EncoderInit, path: str | Path | None = None) -> list[str]:
    """Give the trunk of a new encoder its first weights.

    "imagenet" copies the convolutions of torchvision's resnet34, all 36 of them: `conv1.weight` (to five channels:
    channel i gets 3/5 of channel i mod 3), `layer{1-4}.{i}.conv{1,2}.weight` and `layer{2,3,4}.0.downsample.0.weight`.
    Spatial pyramid and output keep their random weights. "random" leaves everything as it was built.

    Args:
        encoder: changed in place; its trunk must have the sizes of a ResNet-34 for "imagenet".
        init: what to start from.
        path: torchvision's state dict of resnet34; None looks in the places of `registry.find_weights`.

    Returns:
        Names of the copied tensors in the file.

    Raises:
        ValueError: another `init`.
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing or damaged, or holds other tensors than this trunk takes.
    """
    if init not in ("imagenet", "random"):
        raise ValueError(f"init: expected imagenet or random, got {init!r}")
    if init == "random":
        return []
    weights = load_exact_tensors("resnet34", encoder.resnet_shapes(), path, unused=_DROPPED)
    encoder.load_resnet_trunk(weights)
    return list(weights)
