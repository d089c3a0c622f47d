"""Deep3DFace: an aligned face to the 257 coefficients of the Basel Face Model, by ResNet-50. Frozen.

The coefficients need no face model; `bfm_model.py` draws them where there is one. Source: preprocess-networks.md §4.1.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data_preprocess.bfm_coefficients import BfmCoefficients
from data_preprocess.portrait_crop import REGRESSOR, PortraitCrop, crop_portrait
from data_preprocess.published_weights import load_published
from data_preprocess.resnet50 import ResNet50

_FEATURES = 2048
_HEADS = (80, 64, 80, 3, 27, 2, 1)  # the last two are the translation in the picture and in depth


class Reconstruction(NamedTuple):
    """What the network sees and says of B faces.

    Attributes:
        crops: (B, 3, 224, 224) in [-1, 1].
        coefficients: of the faces as they lie in those crops.
    """

    crops: Tensor
    coefficients: BfmCoefficients


class BfmRegressor(nn.Module):
    """The network."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet50()
        self.final_layers = nn.ModuleList(nn.Conv2d(_FEATURES, size, 1) for size in _HEADS)

    def forward(self, crops: Tensor) -> BfmCoefficients:
        """Map aligned crops (B, 3, 224, 224) RGB in [-1, 1], see `align_face`, to coefficients.

        Raises:
            ValueError: another shape.
        """
        if crops.ndim != 4 or crops.shape[1:] != (3, REGRESSOR.size, REGRESSOR.size):
            raise ValueError(f"crops: expected shape (B, 3, 224, 224), got {tuple(crops.shape)}")
        features = self.features(crops)
        return BfmCoefficients.from_vector(torch.cat([head(features) for head in self.final_layers], 1).flatten(1))

    def features(self, crops: Tensor) -> Tensor:
        """Return the pooled features (B, 2048, 1, 1); see `forward`."""
        return self.backbone((crops + 1) / 2).stride32.mean((2, 3), keepdim=True)


def align_face(image: Tensor, landmarks98: Tensor) -> PortraitCrop:
    """Cut a face from a picture (3, H, W) in [-1, 1] as the network wants it: 224 pixels, black outside the picture.

    Args:
        image: the picture.
        landmarks98: (98, 2) WFLW points in its pixels, y down.

    Raises:
        ValueError: other shapes, or landmarks that make no face.

    Source: preprocess-pipeline.md §6.
    """
    return crop_portrait(image, landmarks98, kind=REGRESSOR)


@torch.no_grad()
def reconstruct_faces(network: BfmRegressor, images: list[Tensor], landmarks98: Tensor) -> Reconstruction:
    """Align one face in each picture and regress its coefficients, all at once, on the network's device.

    Args:
        network: on any device.
        images: B pictures (3, H, W) in [-1, 1], of any sizes.
        landmarks98: (B, 98, 2) WFLW points in their pixels, y down.

    Raises:
        ValueError: other shapes, or landmarks that make no face.
    """
    if not images or len(images) != len(landmarks98):
        raise ValueError(f"landmarks98: expected one face for each of {len(images)} pictures, got {len(landmarks98)}")
    pairs = zip(images, landmarks98, strict=True)
    crops = torch.stack([align_face(image, points).image for image, points in pairs])
    crops = crops.to(network.backbone.conv1.weight.device)
    return Reconstruction(crops, network(crops))


def load_bfm_regressor(path: str | Path | None = None) -> BfmRegressor:
    """Build the network with published weights, on the CPU.

    Args:
        path: the published `epoch_20.pth`, whose entry `net_recon` is read, or the same tensors as `.safetensors`;
            None looks in the places of `registry.find_weights`.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing, damaged, or does not hold exactly this network.
    """
    return load_published(BfmRegressor, "bfm_regressor", path, entry="net_recon")
