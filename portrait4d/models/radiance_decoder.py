"""Decoder of tri-plane features into colour features and density (networks-stylegan.md §8)."""

import torch
import torch.nn.functional as F
from torch import nn

from portrait4d.models.stylegan_layers import FullyConnected
from portrait4d.ops.triplane_render import DecoderWeights


class RadianceDecoder(nn.Module):
    """Two-layer perceptron from plane features to features and density, networks-stylegan.md §8.

    h = softplus(FC(g)); density = FC(h), no activation; features = 1.002 sigmoid(FC(h)) − 0.001.
    """

    def __init__(self, feature_channels: int, hidden: int, out_channels: int | None = None) -> None:
        """Build the decoder; `out_channels` is the number of colour features (None: as many as `feature_channels`)."""
        super().__init__()
        self.hidden = FullyConnected(feature_channels, hidden)
        self.density = FullyConnected(hidden, 1)
        self.features = FullyConnected(hidden, feature_channels if out_channels is None else out_channels)
        nn.init.zeros_(self.density.weight)

    def forward(self, plane_features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (..., out_channels) in [-0.001, 1.001] and raw densities (..., 1), before any softplus.

        Args:
            plane_features: (..., feature_channels), the mean over planes.
        """
        hidden = F.softplus(self.hidden(plane_features))
        return torch.sigmoid(self.features(hidden)) * 1.002 - 0.001, self.density(hidden)

    def effective_weights(self) -> DecoderWeights:
        """Return the weights as they act on features, for the fused renderer."""
        layers = (self.hidden, self.density, self.features)
        return DecoderWeights(*(parameter for layer in layers for parameter in layer.scaled_parameters()))
