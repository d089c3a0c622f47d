"""Readers of faces: the linear read-out of poses, and what the bundled one says of bundled portraits."""

from pathlib import Path

import pytest
import torch

from portrait4d.files.errors import InputFileError
from portrait4d.inference.face_readers import Reading, SyntheticReader, join_readings
from portrait4d.inference.pose_readout import (
    PoseExamples,
    fit_pose_readout,
    load_pose_readout,
    read_pose_examples,
    save_pose_readout,
)
from portrait4d.models.checkpoints import load_compact_motion_encoder
from portrait4d.synthetic_heads.motion_inputs import MOTION_INPUTS
from tests.helpers.cli import ROOT, run_script

PORTRAITS = ROOT / "portrait4d/examples/synthetic/portraits"


def test_a_linear_pose_is_recovered() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 5, generator=generator) * torch.tensor([1, 10, 0.1, 3, 1]) + 4
    weights, offsets = torch.randn(5, 2, generator=generator), torch.tensor([30.0, -5.0])
    examples = PoseExamples(features, features @ weights + offsets)
    halves = [PoseExamples(examples.features[k::2], examples.angles_deg[k::2]) for k in (0, 1)]
    found = fit_pose_readout(halves, ridge=1e-6)
    assert torch.allclose(found.weights, weights, atol=1e-3) and torch.allclose(found.offsets, offsets, atol=1e-3)
    stiff = fit_pose_readout(halves, ridge=1e9)
    assert torch.allclose(stiff(features), examples.angles_deg.mean(dim=0), atol=1e-3)  # nothing but the mean


def test_readouts_are_files(tmp_path: Path) -> None:
    readout = fit_pose_readout([PoseExamples(torch.eye(3), torch.arange(6.0).view(3, 2))])
    save_pose_readout(tmp_path / "a.safetensors", readout)
    found = load_pose_readout(tmp_path / "a.safetensors")
    assert torch.equal(found.weights, readout.weights) and torch.equal(found.offsets, readout.offsets)
    (tmp_path / "b.safetensors").write_bytes(b"noise")
    for name in ("b", "absent"):
        with pytest.raises(InputFileError, match=f"{name}.safetensors: no pose read-out"):
            load_pose_readout(tmp_path / f"{name}.safetensors")


def test_the_bundled_readout_knows_where_bundled_portraits_look() -> None:
    examples = read_pose_examples(load_compact_motion_encoder(), PORTRAITS, mirror=False)
    error = (load_pose_readout()(examples.features) - examples.angles_deg).abs().mean(dim=0)
    assert len(examples.features) == 12 and (error < torch.tensor([5.0, 5.0])).all()
    spread = examples.angles_deg.std(dim=0)
    assert error[0] < spread[0] / 3


def test_what_the_synthetic_reader_reads() -> None:
    encoder = load_compact_motion_encoder()
    reader = SyntheticReader(encoder, load_pose_readout())
    picture = torch.zeros(2, 3, 64, 64)
    landmarks = 16 + 32 * torch.rand(2, 70, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = reader.read(picture, landmarks)
        inputs = encoder(encoder.crop(picture, landmarks, reverse_y=True))
    kept = [k for k, name in enumerate(MOTION_INPUTS) if "gaze" not in name]
    assert torch.allclose(found.expression, inputs[:, kept]) and found.expression.shape == (2, 25)
    blink = inputs[:, [MOTION_INPUTS.index("blink_left"), MOTION_INPUTS.index("blink_right")]].mean(dim=1)
    assert torch.allclose(found.moves["blink"], blink) and found.pose.shape == (2, 2)


def test_readings_are_joined_in_order() -> None:
    parts = [
        Reading(torch.full((n, 3), k), torch.full((n, 2), k), {"a": torch.full((n,), k)})
        for n, k in ((2, 0.0), (1, 5.0))
    ]
    found = join_readings(parts)
    assert found.expression[:, 0].tolist() == found.pose[:, 1].tolist() == found.moves["a"].tolist() == [0, 0, 5]


def test_fitting_as_a_user_does(tmp_path: Path) -> None:
    out = tmp_path / "readout.safetensors"
    script = "portrait4d/fit_pose_readout.py"
    process = run_script(script, "--data", PORTRAITS, "--held-out", PORTRAITS, "--out", out)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("deg, R^2") == 4 and load_pose_readout(out).weights.shape == (800, 2)
    process = run_script(script, "--data", tmp_path, "--held-out", PORTRAITS, "--out", out)
    assert process.returncode == 1 and "no manifest of portraits" in process.stderr
