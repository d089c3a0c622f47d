"""Judges of results: those of other authors' networks, with stand-ins for these, and what is listed without them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from portrait4d.config.recon_metrics import ReconMetricsConfig
from portrait4d.inference.recon_judges import AT_ONCE, Judges, Truths
from tests.helpers.waves import wave

CPU = torch.device("cpu")
COUNT = AT_ONCE + 3


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Judges:
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    config = ReconMetricsConfig(Path(), Path())
    return Judges(config, "pdfgc", CPU, landmarks_of=lambda pictures: pictures[:, :2, 0].transpose(1, 2))


@pytest.fixture
def truths() -> Truths:
    landmarks = 16 + 32 * torch.rand(COUNT + 1, 70, 2, generator=torch.Generator().manual_seed(0))
    images = 0.5 * wave(COUNT, 3, 64, 64, frequency=0.01)
    return Truths(
        images, None, landmarks[1:], wave(1, 3, 64, 64, frequency=0.02), landmarks[:1], [[0, 1, 2], [4, 5, 6, 7]]
    )


def embed(crops: Tensor) -> Tensor:
    """Stand for an identity network: means of colours."""
    return crops.mean(dim=(2, 3))


def test_nothing_is_passed_over_in_silence(judges: Judges) -> None:
    assert set(judges.missing) == {
        "lpips", "identity", "fid", "expression_error", "pose_error", "jitter_expression", "mouth_correlation",
        "blink_correlation",
    }  # fmt: skip
    assert "fetch_assets.py face_identity" in judges.missing["identity"]
    assert "fetch_assets.py motion_encoder" in judges.missing["pose_error"]


def test_judges_with_stand_ins(judges: Judges, truths: Truths) -> None:
    judges.perceptual = lambda first, second: (first - second).abs().mean(dim=(1, 2, 3))
    judges.identity = embed
    seen = judges.look(truths.images, truths.landmarks)
    assert seen.embedding.shape == (COUNT, 3) and seen.points.shape == (COUNT, 64, 2) and seen.reading is None
    trembling = 0.1 * (-1) ** torch.arange(COUNT)[:, None, None, None]
    found = judges.compare(truths.images + trembling, truths, seen)
    assert set(found) == {"psnr", "ssim", "lpips", "identity", "jitter_pixels", "jitter_landmarks"}
    assert found["lpips"].tolist() == pytest.approx([0.1] * COUNT, rel=1e-4)
    assert found["identity"].abs().max() <= 1
    inner = [1, 5, 6]
    assert found["jitter_landmarks"][inner].tolist() == pytest.approx([0.4] * 3, rel=1e-4)
    assert found["jitter_pixels"][inner].tolist() == pytest.approx([0.4 * 127.5] * 3, rel=1e-4)
    outer = [place for place in range(COUNT) if place not in inner]
    assert found["jitter_pixels"][outer].isnan().all()


def test_the_source_is_itself(judges: Judges, truths: Truths) -> None:
    judges.identity = embed
    same = Truths(truths.source, None, truths.source_landmarks, truths.source, truths.source_landmarks, [])
    found = judges.compare(truths.source, same, judges.look(same.images, same.landmarks))
    assert found["identity"].tolist() == pytest.approx([1])
    assert found["ssim"].tolist() == pytest.approx([1]) and found["psnr"].item() > 100
