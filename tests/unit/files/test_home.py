"""Home folders, and users who have none."""

from pathlib import Path

import pytest

from portrait4d.files.errors import UserError
from portrait4d.files.home import cache_folder, expand_home


def test_home_and_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert expand_home("~/a") == Path("/somewhere/a") and expand_home(Path("b/~")) == Path("b/~")
    assert cache_folder() == Path("/somewhere/.cache/portrait4d")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/portrait4d")


def test_a_user_without_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2_000_000_001)
    with pytest.raises(UserError, match=r"~/.cache: this user has no home folder; name another folder, or set HOME"):
        cache_folder()
