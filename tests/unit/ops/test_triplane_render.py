"""Fused rendering against the volume renderer that calls the field, and its errors."""

import copy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from portrait4d.config.networks import HeadPoseConfig, VolumeConfig
from portrait4d.geometry.deformation import HeadPoseField
from portrait4d.models.radiance_decoder import RadianceDecoder
from portrait4d.ops.backend import without_native
from portrait4d.ops.triplane_render import RaySamples, triplane_render, triplane_render_serves
from portrait4d.rendering import volume_renderer
from portrait4d.rendering.plane_field import PlaneField
from portrait4d.rendering.ray_sampling import Jitter, midpoint_jitter, sample_jitter
from portrait4d.rendering.rays import Rays, camera_rays
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.rendering.volume_renderer import RenderedRays, render_rays
from tests.helpers.cameras import frontal_camera, tilted_camera
from tests.helpers.native import DEVICES, relative_error, require_native

BOX_WARP = 1.3
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Scene:
    """What `render_rays` takes."""

    field: PlaneField
    rays: Rays
    jitter: Jitter
    config: VolumeConfig

    def to(self, device: str) -> "Scene":
        """Return the same on another device."""
        field, deformation = self.field, self.field.deformation
        if deformation is not None:
            deformation = replace(deformation, fine=deformation.fine.to(device), coarse=deformation.coarse.to(device))
        planes = TriPlanes(torch.zeros(1, 3, 1, 1, 1), field.planes.box_warp)
        planes.table = field.planes.table.to(device)
        moved = PlaneField(planes, copy.deepcopy(field.decoder).to(device), deformation)
        rays, jitter = (type(x)(*(value.to(device) for value in x)) for x in (self.rays, self.jitter))
        return Scene(moved, rays, jitter, self.config)

    def render(self, keep_samples: bool = True) -> RenderedRays:
        """Render by whatever serves."""
        return render_rays(self.field, self.rays, self.jitter, self.config, keep_samples=keep_samples)


def build_scene(
    device: str = "cpu",
    plane: tuple[int, int, int] = (32, 16, 16),
    hidden: int = 64,
    samples: tuple[int, int] = (48, 48),
    resolution: int = 12,
    deformed: bool = True,
    random: bool = False,
) -> Scene:
    """Two pictures from two cameras; opaque and empty places; planes of (channels, height, width)."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(4)
    decoder = RadianceDecoder(plane[0], hidden).to(device)
    torch.nn.init.normal_(decoder.density.weight, std=20)
    planes = torch.randn(2, 3, *plane, generator=generator).to(device)
    camera = torch.cat([frontal_camera(), tilted_camera()])
    pose = HeadPoseConfig()
    fine = torch.randn(2, 4, pose.fine_resolution, pose.fine_resolution, pose.fine_resolution, generator=generator)
    fine = torch.cat([fine[:, :3] * 0.02, fine[:, 3:].abs() * 0.004], dim=1)
    coarse = torch.randn(2, 3, *(pose.coarse_resolution,) * 3, generator=generator) * 0.02
    deformation = HeadPoseField(fine.to(device), coarse.to(device), BOX_WARP, pose) if deformed else None
    jitter = midpoint_jitter(2, *samples, device)
    if random:
        jitter = Jitter(*(x.to(device) for x in sample_jitter(2, resolution**2, *samples, generator)))
    field = PlaneField(TriPlanes(planes, BOX_WARP), decoder.requires_grad_(False), deformation)
    return Scene(field, camera_rays(camera.to(device), resolution), jitter, VolumeConfig(*samples, BOX_WARP, hidden))


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let native operations serve; the volume renderer must not call the field behind their back."""
    require_native(monkeypatch)


def check_parity(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> RenderedRays:
    """Check every output, and that the fused operation has served; return the CPU's reference."""
    with without_native():
        expected = scene.to("cpu").render()
    with monkeypatch.context() as patch:
        patch.setattr(volume_renderer, "render_rays_reference", None)
        ours = scene.render()
    for name, value, wanted in zip(ours._fields, ours, expected, strict=True):
        # Weights of neighbouring samples trade places where distances differ by a rounding; their sums do not. A GPU's
        # exponentials differ in the last bit; where cumulative weights are flat, that moves a sample along its ray.
        moved = name == "weights" or (name == "depth" and scene.rays.origins.device.type == "cuda")
        assert relative_error(value, wanted) <= (1e-4 if moved else TOLERANCE), name
    return expected


@pytest.mark.slow
@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("device", DEVICES)
class TestParity:
    """The fused operation and the renderer that calls the field give the same."""

    @pytest.mark.parametrize("deformed", [True, False])
    @pytest.mark.parametrize("random", [True, False])
    def test_published_decoder(
        self, deformed: bool, random: bool, device: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = check_parity(build_scene(device, deformed=deformed, random=random), monkeypatch)
        assert expected.transmittance.min() < 0.05 and expected.transmittance.max() > 0.5  # neither is trivial

    @pytest.mark.parametrize(
        ("plane", "hidden", "samples", "resolution"),
        [
            ((8, 7, 5), 16, (12, 12), 5),
            ((16, 9, 16), 33, (4, 1), 3),
            ((32, 1, 1), 64, (17, 31), 2),
            ((8, 32, 32), 64, (48, 48), 9),
        ],
    )
    def test_odd_sizes(
        self,
        plane: tuple[int, int, int],
        hidden: int,
        samples: tuple[int, int],
        resolution: int,
        device: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        check_parity(build_scene(device, plane, hidden, samples, resolution, random=True), monkeypatch)

    @pytest.mark.parametrize("count", [0, 1, 7, 65])
    def test_any_number_of_rays(self, count: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = build_scene(device, samples=(12, 12))
        rays = Rays(scene.rays.origins[:, :count], scene.rays.directions[:, :count], scene.rays.centre_distance)
        check_parity(Scene(scene.field, rays, scene.jitter, scene.config), monkeypatch)

    def test_rays_that_miss_the_cube(self, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = build_scene(device, samples=(12, 12), resolution=4)
        rays = scene.rays._replace(origins=scene.rays.origins + 10)
        expected = check_parity(Scene(scene.field, rays, scene.jitter, scene.config), monkeypatch)
        assert (expected.features - expected.features[:, :1]).abs().max() < 1e-6  # they see the decoder's biases only

    def test_nan_planes(self, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = build_scene(device, samples=(12, 12))
        scene.field.planes.table[0, 0, 9, 9, 3] = torch.nan
        expected = check_parity(scene, monkeypatch)
        broken = expected.features.isnan().all(2)
        assert broken.any() and not broken.all() and not broken[1].any()
        assert torch.equal(broken, expected.features.isnan().any(2))

    def test_samples_are_left_out_on_request(self, device: str) -> None:
        scene = build_scene(device, samples=(12, 12), resolution=3)
        kept, bare = scene.render(), scene.render(keep_samples=False)
        assert torch.equal(kept.features, bare.features) and torch.equal(kept.depth, bare.depth)
        assert bare.distances.shape == bare.weights.shape == (2, 9, 0)


def test_gradients_and_other_types_are_left_to_the_volume_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portrait4d.ops.backend.load_native", lambda: True)
    scene = build_scene(resolution=2)
    made, distances = scene.field.scene(), torch.linspace(3, 4, 48).expand(2, 48)
    samples = RaySamples(scene.rays.origins, scene.rays.directions, distances, scene.jitter.importance)
    assert triplane_render_serves(made, samples)
    assert not triplane_render_serves(made, samples._replace(distances=distances.double()))
    assert not triplane_render_serves(made, samples._replace(distances=distances[:, :3]))
    learnt = made._replace(table=made.table.clone().requires_grad_())
    assert not triplane_render_serves(learnt, samples)
    with torch.no_grad():
        assert triplane_render_serves(learnt, samples)


def test_the_volume_renderer_leaves_samples_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portrait4d.ops.backend.load_native", lambda: False)
    scene = build_scene(samples=(5, 6), resolution=2)
    assert scene.render(keep_samples=False).weights.shape == (2, 4, 0)
    assert scene.render().weights.shape == (2, 4, 10)
    made, distances = scene.field.scene(), torch.linspace(3, 4, 5).expand(2, 5)
    samples = RaySamples(scene.rays.origins, scene.rays.directions, distances, scene.jitter.importance)
    with pytest.raises(RuntimeError, match="no native operation serves"):
        triplane_render(made, samples)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"origins": torch.zeros(2, 5, 3)}, r"directions: expected shape \(2, 5, 3\), got \(2, 4, 3\)"),
        ({"distances": torch.zeros(1, 5)}, r"distances: expected shape \(2, 5\), got \(1, 5\)"),
        ({"quantiles": torch.zeros(2, 3, 6)}, r"quantiles: expected shape \(2, 4, 6\), got \(2, 3, 6\)"),
    ],
)
def test_rays_that_do_not_fit_are_named(changes: dict[str, Tensor], message: str) -> None:
    scene = build_scene(resolution=2)
    samples = RaySamples(scene.rays.origins, scene.rays.directions, torch.zeros(2, 5), torch.zeros(2, 1, 6))
    with pytest.raises(ValueError, match=message):
        triplane_render(scene.field.scene(), samples._replace(**changes))


def test_scenes_that_do_not_fit_are_named() -> None:
    scene = build_scene(resolution=2)
    samples = RaySamples(scene.rays.origins, scene.rays.directions, torch.zeros(2, 5), torch.zeros(2, 1, 6))
    made = scene.field.scene()
    with pytest.raises(ValueError, match=r"table: expected shape \(B, 3, H \+ 4, W \+ 4, C\), got \(2, 3, 4, 4, 32\)"):
        triplane_render(made._replace(table=made.table[:, :, :4, :4]), samples)
    with pytest.raises(ValueError, match=r"colour_weight: expected shape \(32, 64\), got \(32, 63\)"):
        weights = made.decoder._replace(colour_weight=made.decoder.colour_weight[:, 1:])
        triplane_render(made._replace(decoder=weights), samples)
    with pytest.raises(ValueError, match=r"coarse: expected shape \(2, 8, 8, 8, 4\), got \(2, 8, 8, 8, 3\)"):
        triplane_render(made._replace(grids=made.grids._replace(coarse=made.grids.coarse[..., :3])), samples)
