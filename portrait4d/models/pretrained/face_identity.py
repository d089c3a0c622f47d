"""ArcFace network: an aligned face crop to 512 numbers whose direction tells who it is. Frozen.

A residual network of 18 layers (Deng et al. 2019, "ArcFace"). Modules carry the names of the published state dict, so
that it loads as it is. Source: networks-auxiliary.md §3.
"""

from pathlib import Path

from torch import Tensor, nn

from portrait4d.geometry.face_alignment import IDENTITY_CROP_SIZE
from portrait4d.models.pretrained.strict_loading import load_exact_network

EMBEDDING_DIM = 512


class IdentityBlock(nn.Module):
    """Residual block: normalise, convolve, normalise, PReLU, convolve with the stride, normalise; nothing after it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        hidden = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(hidden)) + self.downsample(x)


class FaceIdentity(nn.Module):
    """The network `iresnet18`. Frozen: it stays in evaluation mode whatever `train` says; pictures get gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.layer1 = nn.Sequential(IdentityBlock(64, 64, 2), IdentityBlock(64, 64, 1))
        self.layer2 = nn.Sequential(IdentityBlock(64, 128, 2), IdentityBlock(128, 128, 1))
        self.layer3 = nn.Sequential(IdentityBlock(128, 256, 2), IdentityBlock(256, 256, 1))
        self.layer4 = nn.Sequential(IdentityBlock(256, 512, 2), IdentityBlock(512, 512, 1))
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * (IDENTITY_CROP_SIZE // 16) ** 2, EMBEDDING_DIM)
        self.features = nn.BatchNorm1d(EMBEDDING_DIM)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "FaceIdentity":
        """Stay in evaluation mode: the batch statistics belong to the weights."""
        return super().train(False)

    def forward(self, crops: Tensor) -> Tensor:
        """Return embeddings (B, 512), not of unit length, of crops (B, 3, 112, 112) in [-1, 1], see `identity_crop`.

        Raises:
            ValueError: another shape.
        """
        if crops.ndim != 4 or crops.shape[1:] != (3, IDENTITY_CROP_SIZE, IDENTITY_CROP_SIZE):
            raise ValueError(f"crops: expected shape (B, 3, 112, 112), got {tuple(crops.shape)}")
        x = self.prelu(self.bn1(self.conv1(crops)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


def load_face_identity(path: str | Path | None = None) -> FaceIdentity:
    """Build the network with published weights, on the CPU.

    Args:
        path: the published `backbone.pth` or the same tensors as `.safetensors`; None looks in the places of
            `registry.find_weights`.

    Raises:
        AssetMissingError: `path` is None and the file is in none of its places.
        InputFileError: the file is missing or damaged, or holds other tensors.
    """
    network = FaceIdentity()
    load_exact_network(network, "face_identity", path)
    return network
