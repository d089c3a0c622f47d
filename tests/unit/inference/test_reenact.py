"""Views, sampling and precision of the reenactor."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.files.errors import UserError
from portrait4d.geometry.cameras import FRONTAL_POSITION, split_camera
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.inference.reenact import Frame, Reenactor


@pytest.fixture
def frames(tiny_network: Path, prepared_folder: Callable[..., Path]) -> tuple[Reenactor, list[Frame]]:
    folder = prepared_folder("a", "b", "c")
    reenactor = Reenactor(ReenactConfig(tiny_network, folder, folder, folder / "out", render_size=16))
    return reenactor, [reenactor.load_frame(item) for item in PortraitFolder(folder).items()]


def test_views_of_the_reference(frames: tuple[Reenactor, list[Frame]]) -> None:
    reenactor, (_, driver, _) = frames
    neck = reenactor.view(driver)
    cam2world, intrinsics = split_camera(neck.camera)
    assert torch.equal(neck.params.pose, driver.params.pose)
    torch.testing.assert_close(cam2world[0, :3, :3], torch.eye(3), atol=1e-6, rtol=0)
    assert cam2world[0, :3, 3].tolist() == pytest.approx(FRONTAL_POSITION)
    assert torch.equal(intrinsics, split_camera(driver.camera).intrinsics)

    reenactor.config = replace(reenactor.config, use_neck=False)
    camera = reenactor.view(driver)
    assert torch.equal(camera.camera, driver.camera)
    assert camera.params.pose[0, :3].abs().max() == 0
    # Both show the same head: the camera's world-to-camera rotation is the neck's (flame-fitting.md section 1).
    rotation = split_camera(driver.camera).cam2world[0, :3, :3].T
    torch.testing.assert_close(rotation, axis_angle_to_matrix(driver.params.pose[0, :3]), atol=1e-6, rtol=0)


def test_frontal_and_orbit_views(frames: tuple[Reenactor, list[Frame]]) -> None:
    reenactor, (_, driver, _) = frames
    reenactor.config = replace(reenactor.config, camera="frontal", fov_deg=20.0)
    view = reenactor.view(driver)
    assert view.params.pose[0, :3].abs().max() == 0
    assert split_camera(view.camera).intrinsics[0, 0, 0].item() == pytest.approx(0.5 / math.tan(math.radians(10)))
    reenactor.config = replace(reenactor.config, camera="orbit", yaw_deg=30.0, pitch_deg=10.0)
    position = split_camera(reenactor.view(driver).camera).cam2world[0, :3, 3]
    assert math.degrees(math.atan2(position[0], position[2])) == pytest.approx(30, abs=0.1)
    assert position[1] > 0.5
    loop = [split_camera(reenactor.view(driver, k, 8).camera).cam2world[0, :3, 3] for k in range(8)]
    assert loop[2][0] > 1.5 and loop[6][0] < -1.5 and abs(loop[0][0]) < 1e-5


def test_random_sampling_depends_on_seed_source_and_step_alone(frames: tuple[Reenactor, list[Frame]]) -> None:
    reenactor, _ = frames
    assert reenactor.jitter(0, 0) is None
    reenactor.config = replace(reenactor.config, random_sampling=True)
    first = reenactor.jitter(1, 2)
    assert first.importance.shape == (1, 256, 8)
    assert torch.equal(first.importance, reenactor.jitter(1, 2).importance)
    assert not torch.equal(first.importance, reenactor.jitter(1, 3).importance)
    assert not torch.equal(first.importance, reenactor.jitter(2, 2).importance)


def test_identity_comes_from_the_source_and_motion_from_the_driver(frames: tuple[Reenactor, list[Frame]]) -> None:
    reenactor, (source, driver, other) = frames
    features = reenactor.encode_source(source)
    pictures = [reenactor.render(source, features, d, reenactor.view(d)).image_sr for d in (driver, other)]
    assert not torch.equal(*pictures)
    shaped = replace(driver, params=driver.params.with_shape(torch.ones(1, 300)))
    again = reenactor.render(source, features, shaped, reenactor.view(shaped)).image_sr
    assert torch.equal(again, pictures[0])


def test_bfloat16_stays_close(tiny_network: Path, frames: tuple[Reenactor, list[Frame]]) -> None:
    reenactor, (source, driver, _) = frames
    half = Reenactor(replace(reenactor.config, dtype="bfloat16"))
    pictures = [r.render(source, r.encode_source(source), driver, r.view(driver)).image_sr for r in (reenactor, half)]
    assert pictures[1].dtype == torch.float32
    error = (pictures[0] - pictures[1]).square().mean().sqrt() / pictures[0].std()
    assert 0 < error < 0.1


def test_a_surface_is_posed_as_rendered(frames: tuple[Reenactor, list[Frame]]) -> None:
    reenactor, (source, driver, _) = frames
    reenactor.config = replace(reenactor.config, shape_res=16, shape_level=25.0)
    view = reenactor.view(driver)
    render = reenactor.render(source, reenactor.encode_source(source), driver, view)
    surface = reenactor.surface(source, render, view)
    assert np.abs(surface.vertices).max() <= 0.65 + 1e-6 and len(surface.faces) > 10
    reenactor.config = replace(reenactor.config, shape_level=1e6)
    with pytest.raises(UserError, match="no mesh: level: expected between .* choose another --shape-level"):
        reenactor.surface(source, render, view)


def test_motion_can_be_read_from_pictures_by_our_encoder(
    tiny_pdfgc_network: Path, prepared_folder: Callable[..., Path]
) -> None:
    folder = PortraitFolder(prepared_folder("a"))
    config = ReenactConfig(tiny_pdfgc_network, folder.root, folder.root, folder.root, motion="synthetic")
    reenactor = Reenactor(config)
    assert reenactor.needs_motion_encoder(folder.items())  # although there is a stored vector
    reenactor.load_motion_encoder()
    read = reenactor.load_frame(folder.items()[0]).motion
    stored = Reenactor(replace(config, motion="stored")).load_frame(folder.items()[0]).motion
    assert read.shape == stored.shape == (1, 548) and not torch.allclose(read, stored)
