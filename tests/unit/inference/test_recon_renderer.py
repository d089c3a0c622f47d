"""Results for benchmarks: where motion comes from, which camera sees them, what happens to broken ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from portrait4d.config.experiments import ReenactConfig
from portrait4d.config.recon_metrics import MotionInput, ReconMetricsConfig
from portrait4d.geometry.cameras import FRONTAL_POSITION, intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.geometry.head_params import HeadParams, join_label
from portrait4d.inference.recon_benchmarks import Case, Subject, TrueFrame
from portrait4d.inference.recon_renderer import Renderer
from portrait4d.inference.reenact import Reenactor
from tests.helpers.waves import wave


class Reader:
    """Reads from a picture that motion is its mean."""

    def encode_motion(self, images: torch.Tensor, landmarks_pixels: torch.Tensor) -> torch.Tensor:
        assert landmarks_pixels.shape == (1, 68, 2)
        return images.mean(dim=(1, 2, 3))[:, None].expand(1, 548)


def frame(name: str, yaw_rad: float, offset: float) -> TrueFrame:
    """A picture of an upright head that the camera sees turned, with a motion vector of equal numbers."""
    cam2world = orbit_cam2world(torch.tensor(yaw_rad), torch.zeros(()), FRONTAL_POSITION)
    params = HeadParams(torch.full((1, 300), offset), torch.zeros(1, 100), torch.zeros(1, 6), torch.zeros(1, 6))
    label = join_label(join_camera(cam2world, intrinsics_from_fov())[None], params)[0]
    face = torch.full((3, 90, 90), offset), torch.zeros(68, 2)
    return TrueFrame(name, wave(3, 64, 64, frequency=0.1), None, label, torch.full((548,), 10 + offset), face)


SUBJECT = Subject(
    "someone",
    frame("source", 0, 0.1),
    [Case("self", frame("driver", 0, 0.2), frame("truth", yaw, 0.3), place) for place, yaw in enumerate((0.0, 0.4))],
)


def build(network: Path, motion: MotionInput) -> Renderer:
    reenactor = Reenactor(ReenactConfig(network, Path(), Path(), Path(), device="cpu"))
    return Renderer(ReconMetricsConfig(network, Path(), motion=motion), reenactor, Reader())


@pytest.mark.parametrize(("motion", "value", "scale"), [("stored", 10.2, 1), ("encoder", 0.2, 1), ("none", 0, 0)])
def test_where_motion_comes_from(
    tiny_pdfgc_network: Path, monkeypatch: pytest.MonkeyPatch, motion: MotionInput, value: float, scale: float
) -> None:
    renderer, calls = build(tiny_pdfgc_network, motion), []
    generate = renderer.network.generate_planes
    monkeypatch.setattr(renderer.network, "generate_planes", lambda *given: calls.append(given[1:]) or generate(*given))
    results, failures = renderer.results(SUBJECT)
    assert not failures and results.images.shape == (2, 3, 64, 64) and results.masks.shape == (2, 1, 16, 16)
    assert results.images.abs().max() <= 1
    for vector, strength in calls:
        assert vector.shape == (1, 548) and strength == scale
        assert vector[0].tolist() == pytest.approx([value] * 548)


def test_the_truths_camera_sees_the_sources_head(tiny_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer, calls = build(tiny_network, "stored"), []
    render, field = renderer.network.render, renderer.network.head_pose_field
    monkeypatch.setattr(renderer.network, "render", lambda *given: calls.append(given[2]) or render(*given))
    shapes: list[torch.Tensor] = []
    monkeypatch.setattr(
        renderer.network, "head_pose_field", lambda params: shapes.append(params.shape) or field(params)
    )
    renderer.results(SUBJECT)
    for camera, case in zip(calls, SUBJECT.cases, strict=True):
        assert torch.allclose(camera[0], case.truth.label[:25], atol=1e-5)  # the neck is not turned
    assert [shape.unique().item() for shape in shapes] == pytest.approx([0.1, 0.1])


def test_results_that_are_not_finite_are_failures(tiny_network: Path) -> None:
    renderer = build(tiny_network, "stored")
    renderer.options = replace(renderer.options, super_resolution=None)  # not the folded weights
    renderer.network.average_style.fill_(torch.nan)
    results, failures = renderer.results(SUBJECT)
    assert not results.cases and len(results.images) == 0
    assert failures == {"someone, self, truth": "the result is not finite"}
