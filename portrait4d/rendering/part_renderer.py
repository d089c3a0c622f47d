"""Two-pass rendering of a head made of parts: eyes and mouth on planes of their own (`rendering.md` section 8).

Masks seen from the camera choose, ray by ray, how much of each part is drawn. They multiply raw densities, before the
softplus of the march: masked out means raw 0, not empty.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.config.networks import VolumeConfig
from portrait4d.geometry.part_deformation import PartPoints
from portrait4d.rendering.ray_sampling import Jitter, stratified_distances
from portrait4d.rendering.rays import Rays
from portrait4d.rendering.volume_renderer import (
    Field,
    FieldSample,
    pass_inputs,
    ray_points,
    render_in_chunks,
    render_two_passes,
)


class FaceSample(NamedTuple):
    """The face's field at points: `features` (B, N, C), raw `densities` (B, N), `plane_features` (B, N, F)."""

    features: Tensor
    densities: Tensor
    plane_features: Tensor


class PartFields(NamedTuple):
    """A head's fields. Points are (B, N, 3).

    Attributes:
        deform: points in world units to the canonical points of each part.
        inner: canonical points of eyes or mouth to features and raw densities.
        face: canonical points of the face, and of all the rest, to features, raw densities and plane features.
    """

    deform: Callable[[Tensor], PartPoints]
    inner: Field
    face: Callable[[Tensor], FaceSample]


class RayMasks(NamedTuple):
    """How much of `eye` and `mouth` (both (B, R), in [0, 1]) each ray shows."""

    eye: Tensor
    mouth: Tensor


class FusedSamples(NamedTuple):
    """One pass: S samples on each of R rays.

    Attributes:
        features: (B, R, S, C) of the parts fused.
        densities: (B, R, S) raw, of the parts fused.
        surface_distances: (B, R, S) from the parts' surfaces, world units, fused by the masks.
        face_densities_in_eyes: (B, R, S) raw density of the face in the eye boxes, 0 outside.
        face_densities_in_mouth: (B, R, S) raw density of the face times the mouth mask.
        eye_weights: (B, R, S) eye mask inside the eye boxes, 0 outside.
        points: (B, R, S, 3) in world units.
        face_plane_features: (B, R, S, F).
    """

    features: Tensor
    densities: Tensor
    surface_distances: Tensor
    face_densities_in_eyes: Tensor
    face_densities_in_mouth: Tensor
    eye_weights: Tensor
    points: Tensor
    face_plane_features: Tensor


class PartRays(NamedTuple):
    """What the renderer returns for R rays of D coarse and D fine samples; see `RenderedRays` and `FusedSamples`.

    Attributes:
        features, depth, transmittance, distances, weights: as in `RenderedRays`.
        surface_distances: (B, R, 2 D), coarse samples, then fine ones, **not** sorted, as the next two.
        face_densities_in_eyes: (B, R, 2 D).
        face_densities_in_mouth: (B, R, 2 D).
        coarse_eye_weights: (B, R, D).
        coarse_points: (B, R, D, 3).
        coarse_face_features: (B, R, D, F).
    """

    features: Tensor
    depth: Tensor
    transmittance: Tensor
    distances: Tensor
    weights: Tensor
    surface_distances: Tensor
    face_densities_in_eyes: Tensor
    face_densities_in_mouth: Tensor
    coarse_eye_weights: Tensor
    coarse_points: Tensor
    coarse_face_features: Tensor


def render_part_rays(
    fields: PartFields,
    rays: Rays,
    masks: RayMasks,
    jitter: Jitter,
    config: VolumeConfig,
    auto_fuse: bool = False,
    chunk: int | None = None,
) -> PartRays:
    """Render rays through the fused parts: a coarse pass, importance sampling, a fine pass, one march over all.

    Args:
        fields: the head.
        rays: origins, directions and the cube's distance.
        masks: of the same rays.
        jitter: random or deterministic offsets for the whole picture; as many importance samples as coarse ones.
        config: samples per ray and box size.
        auto_fuse: on rays that show the mouth add the densities of both fields and mix their features by softmax,
            instead of fusing linearly by the mask.
        chunk: rays evaluated at once (bounds the memory); None for all.

    Raises:
        ValueError: if chunk is not positive, or the two passes have different numbers of samples.
    """
    counts = jitter.stratified.shape[-1], jitter.importance.shape[-1]
    if counts[0] != counts[1]:
        raise ValueError(f"jitter: expected as many importance as coarse samples, got {counts[1]} and {counts[0]}")
    coarse = stratified_distances(rays.centre_distance, config.box_warp, jitter.stratified)

    def render_part(part: slice) -> PartRays:
        own_masks = RayMasks(*(mask[:, part] for mask in masks))

        def evaluate(distances: Tensor) -> FusedSamples:
            return sample_parts(fields, ray_points(rays, part, distances), own_masks, auto_fuse)

        rendered, near, far = render_two_passes(evaluate, *pass_inputs(rays, part, coarse, jitter))
        return PartRays(
            *rendered,
            surface_distances=torch.cat([near.surface_distances, far.surface_distances], dim=2),
            face_densities_in_eyes=torch.cat([near.face_densities_in_eyes, far.face_densities_in_eyes], dim=2),
            face_densities_in_mouth=torch.cat([near.face_densities_in_mouth, far.face_densities_in_mouth], dim=2),
            coarse_eye_weights=near.eye_weights,
            coarse_points=near.points,
            coarse_face_features=near.face_plane_features,
        )

    return render_in_chunks(render_part, rays.origins.shape[1], chunk)


def sample_parts(fields: PartFields, points: Tensor, masks: RayMasks, auto_fuse: bool = False) -> FusedSamples:
    """Evaluate the parts at points (B, R, S, 3) of masked rays and fuse them.

    With box b, eye weight m_e = eye mask * b, mouth mask m_m and m_f = 1 - m_e - m_m, inner density s_E (b + m_m),
    face density s_A: density = s_E (m_e + m_m) + s_A m_f, features alike. The inner field is read at the mouth's point
    wherever m_m > 0, and only where m_e or m_m is not 0.
    """
    shape = points.shape[1:3]
    mouth, eye_mask = (mask[:, :, None].expand(-1, *shape).flatten(1) for mask in (masks.mouth, masks.eye))
    parts = fields.deform(points.flatten(1, 2))
    box = parts.inside_eye_box.to(points.dtype)
    eye = eye_mask * box
    in_mouth = mouth > 0
    face = fields.face(parts.face)
    inner_points = torch.where(in_mouth[..., None], parts.mouth, parts.eye)
    inner = _sample_where(fields.inner, inner_points, in_mouth | (eye > 0), like=face)
    inner_density = inner.densities * (box + mouth)
    inner_share, face_share = eye + mouth, 1 - eye - mouth
    density = inner_density * inner_share + face.densities * face_share
    if auto_fuse:
        density = torch.where(in_mouth, inner_density + face.densities, density)
        softmax = torch.sigmoid(inner_density - face.densities)
        inner_share = torch.where(in_mouth, softmax, inner_share)
        face_share = torch.where(in_mouth, 1 - softmax, face_share)
    features = inner.features * inner_share[..., None] + face.features * face_share[..., None]
    distance = parts.eye_distance * eye + parts.mouth_distance * mouth + parts.face_distance * (1 - eye - mouth)
    fused = (features, density, distance, face.densities * box, face.densities * mouth, eye)
    return FusedSamples(
        *(value.unflatten(1, shape) for value in fused), points, face.plane_features.unflatten(1, shape)
    )


def _sample_where(field: Field, points: Tensor, wanted: Tensor, like: FaceSample) -> FieldSample:
    """Evaluate a field at the `wanted` (B, N) ones of points (B, N, 3); the others, most of all, give zeros.

    A GPU evaluates all: to know how many are wanted it would have to be waited for.
    """
    if points.device.type != "cpu":
        sample = field(points)
        features = torch.where(wanted[..., None], sample.features, 0.0)
        return FieldSample(features, torch.where(wanted, sample.densities, 0.0))
    features, densities = torch.zeros_like(like.features), torch.zeros_like(like.densities)
    picture, number = wanted.nonzero(as_tuple=True)
    if len(picture):
        place = (wanted.cumsum(1) - 1)[picture, number]  # among the picture's own; rows are padded with points 0
        packed = points.new_zeros(len(points), int(place.max()) + 1, 3)
        packed[picture, place] = points[picture, number]
        sample = field(packed)
        features = features.index_put((picture, number), sample.features[picture, place])
        densities = densities.index_put((picture, number), sample.densities[picture, place])
    return FieldSample(features, densities)
