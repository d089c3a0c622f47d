"""Trainings of reconstructors: what may not be together, and what the shipped files ask for."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from portrait4d.config.load import load_config
from portrait4d.config.networks import ReconstructorConfig
from portrait4d.config.recon_training import (
    ClipDataConfig,
    PseudoViewConfig,
    ReconV1Training,
    ReconV2Training,
    ValidationConfig,
    require_matching_motion,
)
from portrait4d.config.training import FREE_KEYS

FLAME = ReconstructorConfig(motion_kind="flame")
PAPER_V1 = ["portrait4d-genhead512.yaml", "portrait4d-static-genhead512.yaml"]


@pytest.mark.parametrize("motion", ["pdfgc", "synthetic", "exact"])
def test_read_motion_is_548_wide(motion: str) -> None:
    require_matching_motion(motion, ReconstructorConfig())
    with pytest.raises(ValueError, match=f"network.motion_kind: expected pdfgc, for motion: {motion}, got flame"):
        require_matching_motion(motion, FLAME)


def test_the_head_model_s_motion_is_109_wide() -> None:
    require_matching_motion("flame", FLAME)
    for kind in (ReconV1Training, ReconV2Training):
        with pytest.raises(ValueError, match="network.motion_kind: expected flame, for motion: flame, got pdfgc"):
            kind(motion="flame")


def test_pseudo_views_need_their_model() -> None:
    clips = ClipDataConfig(Path("clips"))
    with pytest.raises(ValueError, match="pseudo.network: expected the static model's file"):
        ReconV2Training(data=clips)
    ReconV2Training(data=clips, pseudo=PseudoViewConfig(Path("static.pkl")))
    ReconV2Training(data=clips, pseudo=PseudoViewConfig(motion_probability=0.0))


def test_motion_of_pseudo_views_is_not_the_head_model_s() -> None:
    views = PseudoViewConfig(Path("static.pkl"))
    with pytest.raises(ValueError, match="pseudo.motion_probability: expected 0 with motion: flame, got 0.9"):
        ReconV2Training(motion="flame", network=FLAME, pseudo=views)
    ReconV2Training(motion="flame", network=FLAME, pseudo=replace(views, motion_probability=0.0))


@pytest.mark.parametrize("name", PAPER_V1)
def test_v1_as_published(name: str) -> None:
    """training-recon-v1.md §1."""
    config = load_config(ReconV1Training, name)
    assert config.static == ("static" in name) and config.run.chunk_size == 4
    assert (config.run.kimg, config.run.batch, config.run.gpus, config.run.tick_kimg) == (15000, 32, 8, 4)
    optim, rays = config.optim, config.resolution
    assert (optim.generator_lr, optim.discriminator_lr, optim.beta1, optim.beta2) == (1e-4, 1e-4, 0.9, 0.999)
    assert (optim.eps, config.cross_lr_scale) == (1e-5, 1.0)
    assert (config.density.weight, config.density.interval, config.density.spread) == (0.25, 16, 0.004)
    assert (rays.initial, rays.final, rays.fade_kimg) == (64, 128, 1000)
    assert (config.adversarial.gamma, config.adversarial.gamma_uv, config.adversarial.gamma_seg) == (1, 10, 1)
    assert (config.supervision.source, config.supervision.truncation_psi) == ("genhead", 0.95)
    assert config.network == ReconstructorConfig() and config.encoder_init == "imagenet"
    assert (config.start.weights, config.genhead_init, config.freeze_kimg) == (None, None, 0)
    loss = config.loss
    assert (loss.perceptual, loss.identity, loss.mask_weight, loss.adversarial_weight) == (
        "lpips",
        "arcface",
        0.3,
        0.01,
    )
    assert (loss.identity_start_kimg, loss.extras_end_kimg, loss.adversarial_start_kimg) == (400, 400, 1000)


@pytest.mark.parametrize(("name", "batch", "gpus"), [("vfhq512", 32, 8), ("vfhq512-toy", 2, 1)])
def test_v2_as_published(name: str, batch: int, gpus: int) -> None:
    """training-recon-v2.md §1."""
    config = load_config(ReconV2Training, f"portrait4d-v2-{name}.yaml")
    assert (config.run.kimg, config.run.batch, config.run.gpus) == (18000, batch, gpus)
    assert (config.start.kimg, config.cross_lr_scale) == (10000, 2.5)
    assert config.start.weights == config.pseudo.network != None  # noqa: E711 (a chain)
    pseudo = config.pseudo
    assert (pseudo.motion_probability, pseudo.novel_view_weight, pseudo.interval) == (0.9, 1, 4)
    assert pseudo.scale_by_eyes and (config.resolution.initial, config.resolution.final) == (128, None)
    assert config.network == ReconstructorConfig()


@pytest.mark.parametrize("kind", [ReconV1Training, ReconV2Training])
def test_smoke_files_need_no_download(kind: type) -> None:
    smoke = "portrait4d-smoke.yaml" if kind is ReconV1Training else "portrait4d-v2-smoke.yaml"
    config = load_config(kind, smoke)
    assert config.head == "synthetic" and (config.loss.perceptual, config.loss.identity) == ("none", "none")
    assert config.motion in ("flame", "exact") and getattr(config, "encoder_init", "random") == "random"


def test_what_is_measured_may_change_when_a_run_goes_on() -> None:
    assert {f"validation.{field.name}" for field in fields(ValidationConfig)} <= FREE_KEYS


def test_a_run_may_go_on_where_fewer_processes_render() -> None:
    assert "supervision.workers" in FREE_KEYS and "supervision.memory" not in FREE_KEYS


def test_clips_need_three_frames_to_tremble() -> None:
    with pytest.raises(ValueError, match="validation.clip_frames: expected at least 3, got 2"):
        ValidationConfig(clip_frames=2)
