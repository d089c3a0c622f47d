"""Part-wise renderer against `rendering.md` section 12: both fusions, chunks, masks, gradients."""

import pytest
import torch

from portrait4d.geometry.part_deformation import PartPoints
from portrait4d.models.radiance_decoder import RadianceDecoder
from portrait4d.rendering.part_renderer import (
    FaceSample,
    PartFields,
    PartRays,
    RayMasks,
    render_part_rays,
    sample_parts,
)
from portrait4d.rendering.ray_sampling import Jitter
from portrait4d.rendering.rays import camera_rays
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.rendering.volume_renderer import FieldSample, render_rays
from tests.helpers.cameras import tilted_camera
from tests.helpers.hash_fill import fill_equalised, hash_tensor
from tests.unit.rendering.test_volume_renderer import DECODER_SHAPES, SMALL, conformance_jitter

EXPECTED = {
    # mean, std, elements 0, n/3, n/2, n - 1: linear fusion, automatic fusion
    "features": (
        [0.0691664, 0.025597, 0.108085, 0.0436552, 0.0732922, 0.0595708],
        [0.0534571, 0.0250005, 0.0516806, 0.0274452, 0.0446388, 0.0595708],
    ),
    "transmittance": (
        [0.874063, 0.0210426, 0.818096, 0.878472, 0.878249, 0.903815],
        [0.902504, 0.0319457, 0.911788, 0.924555, 0.923408, 0.903815],
    ),
    "depth": (
        [4.21406, 0.0422689, 4.23782, 4.14163, 4.26779, 4.17543],
        [4.22695, 0.0588649, 4.23144, 4.1873, 4.30274, 4.17543],
    ),
    "surface_distances": (
        [1.55499, 0.419844, 2.30942, 1.52622, 1.68566, 1.68678],
        [1.56136, 0.413408, 2.30942, 1.52622, 1.68566, 1.68678],
    ),
    "face_densities_in_eyes": ([-0.22719, 0.481613], [-0.216408, 0.469442]),
    "face_densities_in_mouth": (
        [-0.163522, 0.26025, -0.525587, -0.13235, -0.229573, 0],
        [-0.163494, 0.259973, -0.525587, -0.13235, -0.229573, 0],
    ),
    "coarse_face_features": (2 * [[-0.014342, 0.622843, -0.164991, -0.325493, -1.02208, 0.20435]]),
    "coarse_eye_weights": (2 * [[0.0840788, 0.218856, 0, 0.902799, 0, 0]]),
}
RAY_5 = ([0.066207, 0.067818, 0.031672, 0.087562], [0.040143, 0.042403, 0.019350, 0.053326])


def conformance_decoder() -> RadianceDecoder:
    weights = fill_equalised(DECODER_SHAPES)
    names = {"net.0": "hidden", "out_sigma": "density", "out_rgb": "features"}
    decoder = RadianceDecoder(32, 64)
    state = {
        f"{ours}.{kind}": weights[f"{theirs}.{kind}"] for theirs, ours in names.items() for kind in ("weight", "bias")
    }
    decoder.load_state_dict(state)
    return decoder.requires_grad_(False)


def conformance_planes() -> torch.Tensor:
    return 3 * hash_tensor(1003, [1, 6, 32, 8, 8])


def deform(points: torch.Tensor) -> PartPoints:
    radius = points.norm(dim=-1)
    inside = (points.abs() < 0.3).all(-1).float()
    distances = {"eye_distance": radius, "face_distance": radius + 1, "mouth_distance": radius + 2}
    nothing = torch.empty(0)
    return PartPoints(
        0.9 * points, points, 0.8 * points + 0.02, **distances, inside_eye_box=inside,
        nearest_region=nothing, nearest_weights=nothing,
    )  # fmt: skip


def conformance_fields(planes: torch.Tensor) -> PartFields:
    decoder = conformance_decoder()
    inner_planes, face_planes = TriPlanes(planes[:, :3], 1.3), TriPlanes(planes[:, 3:], 1.3)

    def inner(points: torch.Tensor) -> FieldSample:
        features, densities = decoder(inner_planes.sample(points))
        return FieldSample(features, densities[..., 0])

    def face(points: torch.Tensor) -> FaceSample:
        sampled = face_planes.sample(points)
        features, densities = decoder(sampled)
        return FaceSample(features, densities[..., 0], sampled)

    return PartFields(deform, inner, face)


def conformance_masks() -> RayMasks:
    eye = (hash_tensor(1004, [1, 16, 1]) + 1) / 2
    mouth = hash_tensor(1005, [1, 16, 1]).clamp_min(0) * (1 - eye)
    return RayMasks(eye[..., 0], mouth[..., 0])


def render(masks: RayMasks, auto_fuse: bool = False, chunk: int | None = None, planes: object = None) -> PartRays:
    fields = conformance_fields(conformance_planes() if planes is None else planes)
    rays = camera_rays(tilted_camera(), 4)
    return render_part_rays(fields, rays, masks, conformance_jitter(), SMALL, auto_fuse, chunk)


@pytest.mark.parametrize("auto_fuse", [False, True])
def test_renderer_of_the_specification(auto_fuse):
    result = render(conformance_masks(), auto_fuse)
    for name, columns in EXPECTED.items():
        expected = columns[auto_fuse]
        flat = getattr(result, name).flatten()
        n = len(flat)
        found = [flat.mean().item(), flat.std().item(), *(flat[i].item() for i in (0, n // 3, n // 2, n - 1))]
        assert found[: len(expected)] == pytest.approx(expected, abs=3e-6, rel=1e-5), name
    torch.testing.assert_close(result.features[0, 5, :4], torch.tensor(RAY_5[auto_fuse]), atol=2e-6, rtol=0)
    mouth = conformance_masks().mouth[..., None].expand(1, 16, 8)
    assert mouth.mean().item() == pytest.approx(0.134485, abs=1e-6)
    assert result.surface_distances.shape == (1, 16, 16) and result.coarse_points.shape == (1, 16, 8, 3)


@pytest.mark.parametrize("chunk", [1, 7, 16, 100])
def test_chunks_leave_no_trace(chunk):
    whole, pieces = render(conformance_masks(), True), render(conformance_masks(), True, chunk)
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-6)


def test_without_masks_only_the_face_is_drawn():
    nothing = torch.zeros(1, 16)
    result = render(RayMasks(nothing, nothing), auto_fuse=True)
    fields = conformance_fields(conformance_planes())
    plain = render_rays(
        lambda p: FieldSample(*fields.face(p)[:2]), camera_rays(tilted_camera(), 4), conformance_jitter(), SMALL
    )
    for name in plain._fields:
        torch.testing.assert_close(getattr(result, name), getattr(plain, name))


def test_the_mouth_hides_the_eye_point_and_shares_follow_the_masks():
    """By hand: two samples, one in an eye box, on rays with eye mask 0.25 and mouth mask 0 or 0.5."""
    fields = PartFields(
        deform,
        lambda p: FieldSample(p[..., :1] * 10, p[..., 1]),
        lambda p: FaceSample(p[..., :1], p[..., 2], p),
    )
    points = torch.tensor([0.1, 0.2, 0.25]).expand(1, 2, 1, 3).contiguous()
    masks = RayMasks(torch.tensor([[0.25, 0.25]]), torch.tensor([[0.0, 0.5]]))
    sample = sample_parts(fields, points, masks)
    eye_density, mouth_density = 0.9 * 0.2 * 1, (0.8 * 0.2 + 0.02) * 1.5
    expected = [eye_density * 0.25 + 0.25 * 0.75, mouth_density * 0.75 + 0.25 * 0.25]
    torch.testing.assert_close(sample.densities[0, :, 0], torch.tensor(expected))
    expected = [0.9 * 0.25 + 0.1 * 0.75, (0.8 + 0.2) * 0.75 + 0.1 * 0.25]
    torch.testing.assert_close(sample.features[0, :, 0, 0], torch.tensor(expected))
    fused = sample_parts(fields, points, masks, auto_fuse=True)
    assert fused.densities[0, 0] == sample.densities[0, 0]
    torch.testing.assert_close(fused.densities[0, 1, 0], torch.tensor(mouth_density + 0.25))
    share = torch.softmax(torch.tensor([mouth_density, 0.25]), 0)
    torch.testing.assert_close(fused.features[0, 1, 0, 0], share[0] * 1.0 + share[1] * 0.1)


def test_the_inner_field_is_only_read_where_it_counts_and_for_every_picture_of_a_batch():
    seen = []

    def inner(points: torch.Tensor) -> FieldSample:
        seen.append(points)
        return FieldSample(points[..., :1], points[..., 1])

    fields = PartFields(deform, inner, lambda p: FaceSample(p[..., :1], p[..., 2], p))
    points = torch.randn(2, 3, 4, 3)
    masks = RayMasks(torch.zeros(2, 3), torch.tensor([[0, 0.5, 0], [0, 0, 0]]))
    together = sample_parts(fields, points, masks)
    assert seen[0].shape == (2, 4, 3)
    for number in range(2):
        one = slice(number, number + 1)
        alone = sample_parts(fields, points[one], RayMasks(masks.eye[one], masks.mouth[one]))
        torch.testing.assert_close(together.densities[one], alone.densities)
        torch.testing.assert_close(together.features[one], alone.features)


def test_gradients_reach_both_sets_of_planes_through_every_output():
    planes = conformance_planes().requires_grad_()
    for name in ("features", "transmittance", "weights", "face_densities_in_mouth", "face_densities_in_eyes"):
        planes.grad = None
        getattr(render(conformance_masks(), planes=planes), name).square().sum().backward()
        assert planes.grad[:, 3:].abs().sum() > 0, name
        assert (planes.grad[:, :3].abs().sum() > 0) == (not name.startswith("face")), name


def test_different_numbers_of_samples_are_refused():
    jitter = Jitter(torch.zeros(1, 8), torch.zeros(1, 1, 6))
    fields = conformance_fields(conformance_planes())
    with pytest.raises(ValueError, match="jitter: expected as many importance as coarse samples, got 6 and 8"):
        render_part_rays(fields, camera_rays(tilted_camera(), 4), conformance_masks(), jitter, SMALL)
