"""The network for one frame: what is exported computes the same, and onnxruntime finds the same."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from portrait4d.files.errors import UserError
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.inference import onnx_export
from portrait4d.inference.onnx_export import (
    INPUTS,
    TOLERANCE,
    FrameNetwork,
    frame_inputs,
    run_frame_network,
    save_frame_network,
)
from portrait4d.inference.reenact import View
from tests.helpers.exported_heads import RENDER_SIZE, Head, reenact_head

MISSING = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def head(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Head:
    """A rendered head. Tests leave it as it is."""
    return reenact_head(tiny_network, tmp_path_factory.mktemp("portraits"))


def inputs_of(head: Head, view: View) -> dict[str, Tensor]:
    return frame_inputs(head.reenactor, head.source, head.features, head.driver, view)


def views(head: Head) -> dict[str, View]:
    """Return the driver's head pose, and an upright head seen from the side."""
    side = join_camera(orbit_cam2world(torch.tensor([0.6]), torch.tensor([0.2])), intrinsics_from_fov(15.0)[None])
    return {"turned": head.view, "upright": View(side, head.view.params.without_neck_rotation())}


@pytest.mark.parametrize("name", ["turned", "upright"])
def test_the_exported_module_renders_the_networks_picture(head: Head, name: str) -> None:
    view = views(head)[name]
    inputs = inputs_of(head, view)
    assert list(inputs) == list(INPUTS)
    assert inputs["head_pose_fine"].any() == inputs["head_pose_coarse"].any() == (name == "turned")
    with torch.no_grad():
        picture = FrameNetwork(head.reenactor.network, RENDER_SIZE)(*inputs.values())
    torch.testing.assert_close(picture, head.render(view).image_sr, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"the extra `export` is not installed: {', '.join(MISSING)}")
def test_onnxruntime_renders_the_networks_picture(head: Head, tmp_path: Path) -> None:
    path = tmp_path / "frame.onnx"
    network = head.reenactor.network
    wanted = {name: (inputs_of(head, view), head.render(view).image_sr) for name, view in views(head).items()}
    difference = save_frame_network(path, network, RENDER_SIZE, *wanted["turned"])
    assert difference <= TOLERANCE
    assert not any(parameter.requires_grad for parameter in network.parameters())
    pictures = {name: run_frame_network(path, inputs) for name, (inputs, _) in wanted.items()}
    for name, (_, picture) in wanted.items():
        torch.testing.assert_close(pictures[name], picture, atol=1e-4, rtol=0)
    assert not torch.allclose(*pictures.values(), atol=1e-2)
    assert [file.name for file in tmp_path.iterdir()] == ["frame.onnx"]


def test_a_file_with_another_picture_is_not_kept(head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    picture = head.render().image_sr
    monkeypatch.setattr(onnx_export, "require_onnx", lambda: None)
    monkeypatch.setattr(onnx_export, "_export", lambda path, *_: path.write_bytes(b"onnx"))
    for error in (TOLERANCE / 2, TOLERANCE * 2, torch.nan):
        monkeypatch.setattr(onnx_export, "run_frame_network", lambda *_, error=error: picture + error)
        if error < TOLERANCE:
            found = save_frame_network(tmp_path / "right.onnx", head.reenactor.network, RENDER_SIZE, {}, picture)
            assert found == pytest.approx(error, rel=1e-3)
            continue
        with pytest.raises(
            UserError, match="wrong.onnx: its picture differs from PyTorch's by .*; nothing was written"
        ):
            save_frame_network(tmp_path / "wrong.onnx", head.reenactor.network, RENDER_SIZE, {}, picture)
    assert [file.name for file in tmp_path.iterdir()] == ["right.onnx"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"ONNX needs the package onnx: pip install 'portrait4d\[export\]'"):
        run_frame_network(tmp_path / "frame.onnx", {})
