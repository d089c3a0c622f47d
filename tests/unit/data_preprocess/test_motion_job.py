"""Motion vectors of prepared folders: the same as the encoder's own, in batches, past bad pictures, resumable."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_preprocess.motion_job import MotionConfig, extract_motion
from portrait4d.data.portrait_folder import PortraitFolder
from portrait4d.files.errors import AssetMissingError, InputFileError
from portrait4d.geometry.face_alignment import motion_crop
from portrait4d.models.checkpoints import load_compact_motion_encoder
from portrait4d.models.pretrained.motion_encoder import MotionCodes
from tests.helpers.cli import ROOT

CLIP = ROOT / "portrait4d/examples/synthetic/driving/clip-00001"


class StubEncoder(nn.Module):
    """Stands for the encoder: the first pixels of a crop are its codes."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, crops: Tensor) -> MotionCodes:
        assert crops.shape[1:] == (3, 224, 224)
        return MotionCodes(*crops.flatten(1)[:, 20_000:20_554].split((6, 6, 30, 512), 1))


@pytest.fixture
def encoder() -> StubEncoder:
    return StubEncoder()


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder with two prepared clips of three pictures."""
    root = tmp_path / "prepared"
    for clip in ("a", "deep/b"):
        for folder in ("align_images", "3dldmks_align"):
            (root / clip / folder).mkdir(parents=True)
            for path in sorted((CLIP / folder).iterdir())[:3]:
                shutil.copy(path, root / clip / folder)
    return root


def test_vectors_are_of_the_aligned_crops(prepared: Path, encoder: StubEncoder) -> None:
    report = extract_motion(MotionConfig(prepared, device="cpu", batch=4), encoder)
    assert (report.written, report.skipped, report.failures) == (6, 0, [])
    for clip in ("a", "deep/b"):
        for item in PortraitFolder(prepared / clip).items():
            landmarks = torch.from_numpy(np.load(item.array_path("3dldmks_align")))
            crop = motion_crop(item.load_image()[None], landmarks[None])[0].flatten()
            motion = np.load(item.array_path("motion_feats"))
            assert motion.dtype == np.float32 and motion.shape == (548,) and motion.std() > 0
            np.testing.assert_allclose(motion, crop[20_006:20_554], atol=1e-4)  # the head pose is left out


def test_our_encoder_reads_what_it_reads_elsewhere(prepared: Path) -> None:
    report = extract_motion(MotionConfig(prepared / "a", device="cpu", batch=2, encoder="synthetic"))
    assert (report.written, report.failures) == (3, [])
    encoder = load_compact_motion_encoder()
    for item in PortraitFolder(prepared / "a").items():
        landmarks = torch.from_numpy(item.load_landmarks68())[None]
        expected = encoder.encode_motion(item.load_image()[None], landmarks)[0].detach()
        np.testing.assert_allclose(np.load(item.array_path("motion_feats")), expected, atol=1e-5)


def test_bad_pictures_are_named_and_the_rest_is_done(prepared: Path, encoder: StubEncoder) -> None:
    items = PortraitFolder(prepared / "a").items()
    items[0].array_path("3dldmks_align").unlink()
    items[1].image_path.write_bytes(b"no picture")
    shutil.rmtree(prepared / "deep/b/align_images")
    (prepared / "deep/b/align_images").mkdir()
    out = prepared.parent / "out"
    report = extract_motion(MotionConfig(prepared, out, device="cpu", batch=1), encoder)
    assert report.written == 1 and len(report.failures) == 3
    for bad in (items[0].array_path("3dldmks_align"), items[1].image_path, prepared / "deep/b/align_images"):
        assert any(failure.startswith(f"{bad}: ") for failure in report.failures)
    assert [path.relative_to(out) for path in out.rglob("*.npy")] == [Path(f"a/motion_feats/{items[2].stem}.npy")]


def test_what_is_there_is_kept(prepared: Path, encoder: StubEncoder) -> None:
    config = MotionConfig(prepared / "a", device="cpu")
    extract_motion(config, encoder)
    paths = sorted((prepared / "a/motion_feats").iterdir())
    before = paths[0].read_bytes()
    paths[0].write_bytes(b"mine")
    paths[1].unlink()
    report = extract_motion(config, encoder)
    assert (report.written, report.skipped) == (1, 2) and paths[0].read_bytes() == b"mine"
    assert extract_motion(replace(config, overwrite=True), encoder).written == 3
    assert paths[0].read_bytes() == before


def test_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: Path) -> None:
    with pytest.raises(InputFileError, match="no align_images in this folder"):
        extract_motion(MotionConfig(tmp_path / "prepared/deep/b/align_images"))
    monkeypatch.setenv("PORTRAIT4D_ASSETS", str(tmp_path))
    with pytest.raises(AssetMissingError, match="fetch_assets.py motion_encoder"):
        extract_motion(MotionConfig(prepared, device="cpu"))
