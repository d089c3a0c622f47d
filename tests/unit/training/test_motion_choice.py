"""Motion sources by name."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from portrait4d.files.errors import AssetMissingError
from portrait4d.geometry.head_params import HeadParams
from portrait4d.training import motion_choice
from portrait4d.training.motion_choice import motion_reader
from portrait4d.training.supervision import flame_motion, synthetic_motion


class StubEncoder(nn.Module):
    """Reads the mean colour; notes where it is."""

    def encode_motion(self, images: Tensor, landmarks_pixels: Tensor, reverse_y: bool) -> Tensor:
        assert reverse_y, "landmarks of the head model have y up"
        return images.mean(dim=(1, 2, 3))[:, None].expand(-1, 548)


def read(source: str) -> Tensor:
    params = HeadParams(*(torch.zeros(2, width) for width in (300, 100, 6, 6)))
    return motion_reader(source)(torch.full((2, 3, 8, 8), 0.25), torch.zeros(2, 70, 2), params)


def test_sources_without_a_network() -> None:
    assert motion_reader("flame") is flame_motion and motion_reader("exact") is synthetic_motion
    assert read("flame").shape == (2, 109) and read("exact").shape == (2, 548)


def test_each_encoder_has_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(motion_choice, "load_motion_encoder", lambda: loaded.append("pdfgc") or StubEncoder())
    monkeypatch.setattr(motion_choice, "load_compact_motion_encoder", lambda: loaded.append("ours") or StubEncoder())
    for source in ("pdfgc", "synthetic"):
        assert read(source).unique().tolist() == [0.25]
    assert loaded == ["pdfgc", "ours"]


def test_missing_weights_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    with pytest.raises(AssetMissingError, match="fetch_assets.py motion_encoder"):
        motion_reader("pdfgc")
