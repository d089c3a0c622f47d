"""Typed outputs of the networks."""

from dataclasses import dataclass

from torch import Tensor

from portrait4d.rendering.mesh_maps import PartMasks
from portrait4d.rendering.part_renderer import PartRays
from portrait4d.rendering.volume_renderer import RenderedRays


@dataclass(frozen=True)
class SourceFeatures:
    """What a reconstructor knows of a source portrait; none of it depends on the driving frame.

    Attributes:
        tokens: (B, N, C) canonicalised tokens, N = (S / 16) ** 2.
        detail: folded detail features, see `PlaneGenerator.fold_detail`.
        background: (B, F, S, S) background features in (0, 1).
    """

    tokens: Tensor
    detail: Tensor
    background: Tensor


@dataclass(frozen=True)
class HeadRender:
    """A rendered head. Pictures are nominally in [-1, 1] and not clamped; R is the ray grid, S the picture size.

    Attributes:
        image_sr: (B, 3, S, S) super-resolved picture.
        features: (B, F, R, R) head over background.
        features_without_background: (B, F, R, R) head over black (-1).
        background: (B, F, R, R) in [-1, 1].
        depth: (B, 1, R, R) distance along the ray, world units.
        transmittance: (B, 1, R, R) in [0, 1]; 1 where the head is not.
        planes: (B, 3, F, H, W) the tri-planes it was rendered from.
        rays: per-ray results with sample distances and weights, for losses.
    """

    image_sr: Tensor
    features: Tensor
    features_without_background: Tensor
    background: Tensor
    depth: Tensor
    transmittance: Tensor
    planes: Tensor
    rays: RenderedRays

    @property
    def image(self) -> Tensor:
        """The raw picture (B, 3, R, R): the first three feature channels."""
        return self.features[:, :3]

    @property
    def image_without_background(self) -> Tensor:
        """The raw picture over black (B, 3, R, R)."""
        return self.features_without_background[:, :3]

    @property
    def background_image(self) -> Tensor:
        """The raw picture of the background (B, 3, R, R)."""
        return self.background[:, :3]

    @property
    def mask(self) -> Tensor:
        """Head mask (B, 1, R, R) in [-1, 1], 1 inside the head."""
        return 2 * (1 - self.transmittance) - 1


@dataclass(frozen=True)
class GenHeadRender:
    """A head rendered by GenHead. Pictures are nominally in [-1, 1] and not clamped; R rays a side, S the picture size.

    Attributes:
        image_sr: (B, 3, S, S) super-resolved picture.
        features: (B, F, R, R) head over background; only 3 channels where R = S.
        background: (B, F, R, R) in [-1, 1].
        depth: (B, 1, R, R) distance along the ray, world units.
        transmittance: (B, 1, R, R) in [0, 1]; 1 where the head is not.
        masks: (B, 1, R, R) in [0, 1]: where rays see eyes, mouth and head; no gradient.
        correspondence: (B, 3, S, S) correspondence map of the mesh, for the discriminator; no gradient.
        planes: (B, 6, F, H, W), eyes and mouth first, then the face.
        rays: per-ray results with sample distances, weights and the face's densities in eyes and mouth, for losses.
    """

    image_sr: Tensor
    features: Tensor
    background: Tensor
    depth: Tensor
    transmittance: Tensor
    masks: PartMasks
    correspondence: Tensor
    planes: Tensor
    rays: PartRays

    @property
    def image(self) -> Tensor:
        """The raw picture (B, 3, R, R): the first three feature channels."""
        return self.features[:, :3]

    @property
    def mask(self) -> Tensor:
        """Head mask (B, 1, R, R) in [-1, 1], 1 inside the head ("seg" of the discriminator)."""
        return 2 * (1 - self.transmittance) - 1

    @property
    def coarse_is_face_only(self) -> Tensor:
        """Which coarse samples (B, R * R, D) neither eyes nor mouth have a share in."""
        return self.rays.coarse_eye_weights + self.masks.mouth.flatten(1)[..., None] == 0
