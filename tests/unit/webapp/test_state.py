"""Shared state: nothing loaded before it is needed, bounded caches, clear words for what is missing."""

from pathlib import Path

import pytest
import torch

from portrait4d.config.web_app import WebAppConfig
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.inference import animate_job
from portrait4d.inference.driving_sources import read_prepared
from portrait4d.webapp import state as state_module
from portrait4d.webapp.sources import copy_portrait, write_tracked
from portrait4d.webapp.state import AppState, LruCache, Shelf, bundled_clips, bundled_portraits
from portrait4d.webapp.workspace import Workspace


@pytest.fixture
def state(tiny_pdfgc_network: Path, tmp_path: Path) -> AppState:
    return AppState(WebAppConfig(network=tiny_pdfgc_network, device="cpu"), Workspace(tmp_path))


def test_cache_keeps_what_was_used_last() -> None:
    gone: list[int] = []
    cache: LruCache[str, int] = LruCache(2, gone.append)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.find("a") == 1
    assert cache.get("c", lambda: 3) == 3
    assert (cache.find("b"), len(cache), gone) == (None, 2, [2])
    assert cache.get("a", lambda: pytest.fail("made twice")) == 1
    with pytest.raises(ValueError, match="bound: expected at least 1, got 0"):
        LruCache(0)


def test_shelf_deletes_folders_that_go(tmp_path: Path) -> None:
    shelf, folders = Shelf(1), [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    first, second = map(shelf.add, folders)
    assert shelf.find(first) is None and shelf.find(second) == folders[1]
    assert [folder.exists() for folder in folders] == [False, True]
    assert len({first, second}) == 2 and min(len(first), len(second)) >= 20


def test_nothing_is_loaded_before_it_is_needed(state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load = state_module.Reenactor
    monkeypatch.setattr(state_module, "Reenactor", lambda config: loads.append(config.network) or load(config))
    assert len(bundled_portraits()) >= 10 and len(bundled_clips()) == 2
    assert not loads
    name = next(iter(bundled_portraits()))
    source = state.encoded(name)
    assert state.encoded(name) is source
    assert loads == [state.config.network]
    assert state.reenactor().options.resolution is None


def test_encoded_sources_are_bounded(state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_encoded", LruCache(2))
    for name in list(bundled_portraits())[:4]:
        state.encoded(name)
    assert len(state._encoded) == 2


def test_uploaded_sources_are_portraits_until_they_go(state: AppState, tmp_path: Path) -> None:
    portrait = next(iter(bundled_portraits().values()))
    tracked = read_prepared(portrait, True)
    kept = state.workspace.new_folder()
    write_tracked(kept, "photo", tracked)
    key = state.uploaded_sources.add(kept)
    again = read_prepared(state.portrait(key), True)
    torch.testing.assert_close(again.image, tracked.image)
    assert (again.label == tracked.label).all() and (again.motion == tracked.motion).all()
    assert state.encoded(key).frame.motion.shape == (1, 548)
    with pytest.raises(UserError, match="no longer"):
        state.portrait(key[:-1])


def test_copied_portraits_stand_alone(tmp_path: Path) -> None:
    portrait = list(bundled_portraits().values())[2]
    copy_portrait(portrait, tmp_path / "one")
    (alone,) = PortraitFolder(tmp_path / "one").items()
    assert alone.stem == portrait.stem
    assert (read_prepared(alone, True).label == portrait.load_frame_label(False)).all()


def test_missing_networks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "none.safetensors"
    workspace = Workspace(tmp_path)
    with pytest.raises(InputFileError, match="none.safetensors"):
        _ = AppState(WebAppConfig(network=missing), workspace).network
    with pytest.raises(UserError, match="--genhead FILE"):
        AppState(WebAppConfig(genhead=missing), workspace).sampler(0.7, 1)
    monkeypatch.setattr(animate_job, "BUNDLED_NETWORK", missing)
    monkeypatch.setattr(animate_job, "PRETRAINED", tmp_path)
    stand_in = AppState(WebAppConfig(device="cpu"), workspace)
    assert stand_in.is_untrained and stand_in.network.path.is_file()


def test_foreign_networks_need_published_trackers(state: AppState) -> None:
    assert state.trackers().name.startswith("open head world")
    foreign = AppState(state.config, state.workspace)
    foreign.__dict__["network"] = animate_job.NetworkChoice(Path("a.pkl"), False, "")
    with pytest.raises(UserError, match="published trackers"):
        foreign.trackers()
