"""Heads that render without their network: equal pictures, and files that are refused."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from portrait4d.files.errors import InputFileError
from portrait4d.geometry.cameras import intrinsics_from_fov, join_camera, orbit_cam2world
from portrait4d.inference.plane_cache import PlaneCache, load_plane_cache, save_plane_cache
from portrait4d.inference.reenact import View
from tests.helpers.exported_heads import Head, reenact_head
from tests.helpers.hostile_files import write_unusable

SIDE = join_camera(orbit_cam2world(torch.tensor([0.6]), torch.tensor([0.2])), intrinsics_from_fov(15.0)[None])


@pytest.fixture(scope="module")
def head(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Head:
    """A rendered head. Tests leave it as it is."""
    return reenact_head(tiny_network, tmp_path_factory.mktemp("portraits"))


@pytest.fixture(scope="module")
def written(head: Head, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of its file."""
    path = tmp_path_factory.mktemp("written") / "head.safetensors"
    save_plane_cache(path, head.cache())
    return path.read_bytes()


@pytest.fixture
def saved(written: bytes, tmp_path: Path) -> Path:
    """Its file, which may be changed."""
    path = tmp_path / "head.safetensors"
    path.write_bytes(written)
    return path


def rewrite(path: Path, tensors: dict[str, Tensor] | None = None, **changes: object) -> Path:
    """Write a file again with other tensors, or with entries of its description changed."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["portrait4d"])
    tensors = load_file(path) if tensors is None else tensors
    target = path.with_name("changed.safetensors")
    save_file(tensors, target, metadata={"portrait4d": json.dumps(description | changes)})
    return target


@pytest.mark.parametrize("turned", [True, False])
def test_pictures_are_the_networks_own(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turned: bool
) -> None:
    view = head.view if turned else View(head.view.camera, head.view.params.without_neck_rotation())
    save_plane_cache(tmp_path / "head.safetensors", head.cache(view))
    cache = load_plane_cache(tmp_path / "head.safetensors")
    assert (cache.deformation is not None) == turned
    own, side = head.render(view), head.render(replace(view, camera=SIDE))
    assert torch.equal(cache.render().image_sr, own.image_sr)
    assert torch.equal(cache.render(SIDE).image_sr, side.image_sr)
    assert torch.equal(cache.render(SIDE).depth, side.depth)
    assert not torch.equal(own.image_sr, side.image_sr)
    monkeypatch.setattr(head.reenactor, "options", replace(head.reenactor.options, resolution=24))
    assert torch.equal(cache.render(SIDE, 24).image_sr, head.render(replace(view, camera=SIDE)).image_sr)


def test_a_file_holds_no_encoder_and_no_head_model(head: Head, saved: Path) -> None:
    tensors = load_file(saved)
    parts = {name.split(".")[1] for name in tensors if name.startswith("renderer.")}
    assert parts == {"average_style", "decoder", "super_resolution"}
    others = {name for name in tensors if not name.startswith("renderer.")}
    assert others == {"planes", "background", "head_pose.fine", "head_pose.coarse"}


def test_a_cache_does_not_follow_its_network(head: Head) -> None:
    cache, decoder = head.cache(), head.reenactor.network.decoder
    before = cache.render().image_sr
    kept = copy.deepcopy(decoder.state_dict())
    decoder.features.weight.data.add_(1.0)
    after, changed = cache.render().image_sr, head.render().image_sr
    decoder.load_state_dict(kept)
    assert torch.equal(after, before) and not torch.equal(changed, before)


def test_half_precision_is_close_and_small(head: Head, saved: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    save_plane_cache(half, head.cache(), "float16")
    assert half.stat().st_size < 0.8 * saved.stat().st_size
    pictures = [load_plane_cache(path).render().image_sr for path in (saved, half)]
    assert pictures[1].dtype == torch.float32
    assert 0 < (pictures[0] - pictures[1]).abs().max() < 0.01  # an eighth of a grey level is 0.001
    cache = head.cache()
    with pytest.raises(ValueError, match="planes: expected numbers that torch.float16 can hold, got up to 1e"):
        save_plane_cache(tmp_path / "large.safetensors", replace(cache, planes=cache.planes + 1e6), "float16")
    assert not (tmp_path / "large.safetensors").exists()


def test_files_of_other_kinds_are_refused(saved: Path, tiny_network: Path, tmp_path: Path) -> None:
    for name in write_unusable(tmp_path):
        with pytest.raises(InputFileError, match=name):
            load_plane_cache(tmp_path / name)
    with pytest.raises(InputFileError, match="expected planes, got 'reconstructor'"):
        load_plane_cache(tiny_network)
    with pytest.raises(InputFileError, match="no such file"):
        load_plane_cache(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_refused(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputFileError, match="head.safetensors: cannot be read"):
        load_plane_cache(saved)


def _without(name: str) -> Callable[[PlaneCache, dict], dict]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("planes"), "planes"),
        (_without("head_pose.coarse"), "head_pose.coarse"),
        (_without("renderer.decoder.hidden.bias"), "renderer.decoder.hidden.bias"),
        (lambda t: t | {"extra": torch.zeros(1)}, "unexpected extra"),
        (lambda t: t | {"planes": t["planes"][:, :2].contiguous()}, "planes: expected numbers of shape"),
        (lambda t: t | {"planes": t["planes"] * torch.nan}, "planes: expected finite numbers"),
        (lambda t: t | {"background": t["background"].int()}, "background: expected numbers"),
    ],
)
def test_parts_that_do_not_fit_are_named(saved: Path, change: Callable, message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        load_plane_cache(rewrite(saved, change(load_file(saved))))


@pytest.mark.parametrize(
    "changes",
    [
        {"camera": [0.0] * 24},
        {"camera": [float("inf")] * 25},
        {"camera": "from the left"},
        {"render_size": 10**9},
        {"render_size": None},
        {"config": {"image_resolution": 1 << 40}},
        {"config": {"super_resolution": {"channels": [1 << 62, 1 << 62]}}},
        {"config": [1, 2]},
    ],
)
def test_descriptions_that_do_not_fit_are_refused(saved: Path, changes: dict) -> None:
    with pytest.raises(InputFileError, match="changed.safetensors: damaged or not complete"):
        load_plane_cache(rewrite(saved, **changes))
