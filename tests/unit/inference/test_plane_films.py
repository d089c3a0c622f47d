"""Films of exported heads: where frames are seen from, and what is written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from portrait4d.config.exporting import RenderPlanesConfig
from portrait4d.data.image_io import load_image, to_uint8
from portrait4d.data.video_io import read_frames
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world, split_camera
from portrait4d.inference.plane_cache import PlaneCache, load_plane_cache, save_plane_cache
from portrait4d.inference.plane_films import film_viewpoints, render_planes
from tests.helpers.exported_heads import reenact_head


@pytest.fixture(scope="module")
def planes(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a head. Do not change it."""
    folder = tmp_path_factory.mktemp("head")
    save_plane_cache(folder / "head.safetensors", reenact_head(tiny_network, folder).cache())
    return folder / "head.safetensors"


def seen_from(cache: PlaneCache, yaw_rad: float, intrinsics: torch.Tensor) -> torch.Tensor:
    camera = join_camera(orbit_cam2world(torch.tensor([yaw_rad]), torch.zeros(1)), intrinsics)
    return to_uint8(cache.render(camera).image_sr[0])


def test_an_orbit_is_a_closed_round(tmp_path: Path) -> None:
    config = RenderPlanesConfig(tmp_path, tmp_path / "film.mp4", yaw_deg=40, pitch_deg=10, seconds=2, fps=10)
    viewpoints = film_viewpoints(config)
    assert len(viewpoints) == 20
    assert [viewpoints[k].yaw_deg for k in (0, 5, 10, 15)] == pytest.approx([0, 40, 0, -40], abs=1e-9)
    assert [viewpoints[k].pitch_deg for k in (0, 5, 10, 15)] == pytest.approx([10, 0, -10, 0], abs=1e-9)
    assert len(film_viewpoints(replace(config, seconds=None))) == 40


def test_a_path_is_followed_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "path.json"
    path.write_text(json.dumps({"keyframes": [{"time_s": 0, "yaw_deg": -20}, {"time_s": 2, "yaw_deg": 20}]}))
    config = RenderPlanesConfig(tmp_path, tmp_path / "film.mp4", camera=str(path), fps=4)
    assert [view.yaw_deg for view in film_viewpoints(config)] == pytest.approx([-20, -15, -10, -5, 0, 5, 10, 15])
    with pytest.raises(InputFileError, match="absent"):
        film_viewpoints(replace(config, camera="absent"))


def test_a_picture_is_seen_from_where_it_is_asked_for(planes: Path, tmp_path: Path) -> None:
    config = RenderPlanesConfig(planes, tmp_path / "side.png", yaw_deg=45)
    assert render_planes(config) == 1
    cache = load_plane_cache(planes)
    own = split_camera(cache.camera).intrinsics
    side = seen_from(cache, torch.pi / 4, own)
    assert torch.equal(to_uint8(load_image(config.out)), side)
    render_planes(replace(config, fov_deg=20.0))
    wide = seen_from(cache, torch.pi / 4, intrinsics_from_fov(20.0)[None])
    assert torch.equal(to_uint8(load_image(config.out)), wide) and not torch.equal(side, wide)


def test_a_film_has_every_frame(planes: Path, tmp_path: Path) -> None:
    config = RenderPlanesConfig(planes, tmp_path / "film.mp4", seconds=0.4, fps=10, render_size=8)
    assert render_planes(config) == 4
    frames = [frame.load() for frame in read_frames(config.out)]
    assert [tuple(frame.shape) for frame in frames] == [(3, 64, 64)] * 4
    assert (frames[1] - frames[3]).abs().mean() > 0.01


def test_other_outputs_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="film.gif: expected the suffix .mp4 or .png, .jpg, .jpeg"):
        render_planes(RenderPlanesConfig(tmp_path / "absent", tmp_path / "film.gif"))
