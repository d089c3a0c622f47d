"""The radiance field of a reconstructed head: tri-planes behind a deformation, decoded by a small perceptron.

It is called like any field, and tells the volume renderer what it is made of (`scene`), so that the fused operation can
render it without calling it.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from portrait4d.geometry.deformation import HeadPoseField
from portrait4d.ops.triplane_render import DecoderWeights, TriplaneScene
from portrait4d.rendering.field import FieldSample
from portrait4d.rendering.triplanes import TriPlanes


class PlaneDecoder(Protocol):
    """Maps plane features (..., F) to colour features (..., C) and raw densities (..., 1)."""

    def __call__(self, plane_features: Tensor) -> tuple[Tensor, Tensor]:
        """Decode."""

    def effective_weights(self) -> DecoderWeights:
        """Return the weights as they act."""


@dataclass(frozen=True)
class PlaneField:
    """A field of tri-planes in canonical space; no deformation means that world is canonical space."""

    planes: TriPlanes
    decoder: PlaneDecoder
    deformation: HeadPoseField | None

    def __call__(self, points_world: Tensor) -> FieldSample:
        """Evaluate the field at points (B, N, 3)."""
        canonical = points_world if self.deformation is None else self.deformation(points_world)
        features, densities = self.decoder(self.planes.sample(canonical))
        return FieldSample(features, densities[..., 0])

    def scene(self) -> TriplaneScene:
        """Return what the fused renderer needs."""
        grids = None if self.deformation is None else self.deformation.grids()
        return TriplaneScene(self.planes.table, self.planes.box_warp, self.decoder.effective_weights(), grids)
