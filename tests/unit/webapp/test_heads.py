"""Heads under sliders: pictures follow them, normals of known surfaces, meshes as files."""

from pathlib import Path

import pytest
import torch
import trimesh

from portrait4d.config.web_app import WebAppConfig
from portrait4d.files.errors import UserError
from portrait4d.rendering.rays import camera_rays
from portrait4d.webapp.heads import LOOKS, look_pictures, normal_picture, pose_head, write_meshes
from portrait4d.webapp.markup import data_url, download, film, notice, pictures
from portrait4d.webapp.poses import HeadPose, pose_camera
from portrait4d.webapp.state import AppState, bundled_portraits
from portrait4d.webapp.workspace import Workspace

NAME = next(iter(bundled_portraits()))


@pytest.fixture(scope="module")
def state(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> AppState:
    config = WebAppConfig(network=tiny_network, device="cpu")
    return AppState(config, Workspace(tmp_path_factory.mktemp("app")))


def test_the_picture_follows_the_sliders(state: AppState) -> None:
    poses = (HeadPose(), HeadPose(yaw_deg=20), HeadPose(zoom=1.5), HeadPose(smile=1), HeadPose(gaze_right_deg=15))
    heads = [look_pictures(state, pose_head(state, NAME, pose), [])["Picture"] for pose in poses]
    again = look_pictures(state, pose_head(state, NAME, HeadPose()), [])["Picture"]
    assert torch.equal(heads[0], again)
    for other in heads[1:]:
        assert not torch.equal(heads[0], other)
    for moved in heads[1:3]:
        assert (heads[0] - moved).abs().mean() > 0.01


def test_looks_are_pictures(state: AppState) -> None:
    found = look_pictures(state, pose_head(state, NAME, HeadPose()), list(LOOKS))
    assert list(found) == ["Picture", *LOOKS]
    for picture in found.values():
        assert picture.shape[0] == 3 and picture.abs().max() <= 1
    assert found["Mesh"].std() > 0.1  # a head before black


def test_normals_of_a_plane_and_of_a_sphere() -> None:
    camera = pose_camera(HeadPose(yaw_deg=30, pitch_deg=-10))
    size = 32
    rays = camera_rays(camera, size)
    to_plane = 4 / (rays.directions @ -camera[:, :16].view(1, 4, 4)[0, :3, 2])
    opaque = torch.zeros(1, 1, size, size)
    normals = normal_picture(camera, to_plane.view(1, 1, size, size), opaque)
    forward = torch.tensor([0.0, 0, 1])[None, :, None, None].expand_as(normals)
    torch.testing.assert_close(normals, forward, atol=1e-3, rtol=0)
    middle = (rays.origins * rays.directions).sum(-1)
    depth = -middle - (middle**2 - (rays.origins**2).sum(-1) + 1).clamp_min(0).sqrt()  # unit sphere about the origin
    inside = ((rays.origins + depth[..., None] * rays.directions).norm(dim=-1) < 1.001).view(1, 1, size, size)
    normals = normal_picture(camera, depth.view(1, 1, size, size), 1 - inside.float())
    expected = (rays.origins + depth[..., None] * rays.directions) @ camera[:, :16].view(1, 4, 4)[0, :3, :3]
    expected = expected.transpose(1, 2).view(1, 3, size, size)
    assert inside[0, 0, 4:-4, 4:-4].all()
    torch.testing.assert_close(normals[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], atol=0.02, rtol=0)
    assert (normal_picture(camera, depth.view(1, 1, size, size), torch.ones(1, 1, size, size)) == -1).all()


def test_meshes_are_files_with_colours(state: AppState, tmp_path: Path) -> None:
    glb, ply = write_meshes(state, pose_head(state, NAME, HeadPose()), 24, tmp_path)
    scene, mesh = trimesh.load(glb), trimesh.load(ply)
    assert len(mesh.vertices) == sum(len(part.vertices) for part in scene.geometry.values()) > 10
    assert mesh.visual.kind == "vertex"
    assert state.reenactor().config.shape_res != 24  # what others share is left alone


def test_unknown_sources_are_refused(state: AppState) -> None:
    for key in ("", "../..", "0" * 22):
        with pytest.raises(UserError, match="no longer"):
            pose_head(state, key, HeadPose())


def test_markup_escapes() -> None:
    text = "<script>alert('x')</script>"
    assert notice() == ""
    for html in (notice(text, True), pictures({text: torch.zeros(3, 4, 4)}), film('a"b', text), download('"', text)):
        assert "<script>" not in html and '""' not in html.replace('=""', "")
    assert 'role="alert"' in notice("a", True) and 'role="status"' in notice("a")
    assert data_url(torch.zeros(3, 8, 8), 4).startswith("data:image/jpeg;base64,/9j/")
