"""Validation: what is measured, the answers that need no network, pictures; subjects are waves, not rendered."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from portrait4d.config.networks import tiny_reconstructor
from portrait4d.config.recon_training import ValidationConfig
from portrait4d.geometry.flame import HeadModel
from portrait4d.metrics.frame_errors import LEVELS
from portrait4d.metrics.image_quality import psnr
from portrait4d.training import validation as module
from portrait4d.training.supervision import SupervisedBatch
from portrait4d.training.synthetic_supervision import SyntheticHeadsSupervision
from portrait4d.training.validation import CHUNK, Validation, compare_pictures, compare_shapes
from tests.helpers.supervised_batches import wavy_batch

COUNT, SIDE, RAYS = CHUNK + 2, 32, 8
DATA = wavy_batch(COUNT, SIDE, RAYS)


def perfect(batch: SupervisedBatch) -> SimpleNamespace:
    """Show the truth."""
    return SimpleNamespace(
        image_sr=batch.target_image,
        mask=batch.target_mask,
        depth=batch.depth,
        transmittance=(1 - batch.target_mask) / 2,
    )


@pytest.fixture
def measured(ellipsoid: HeadModel, monkeypatch: pytest.MonkeyPatch) -> Validation:
    """A validation whose subjects are waves; both kinds are measured."""
    monkeypatch.setattr(module, "motion_reader", lambda *_: None)
    monkeypatch.setattr(SyntheticHeadsSupervision, "sample", lambda *_: DATA)
    return Validation(ValidationConfig(COUNT, shown=3), tiny_reconstructor(), ellipsoid, "pdfgc")


def test_a_perfect_network_beats_the_answers_that_need_none(measured: Validation) -> None:
    found = measured.measure(perfect)
    names = {"psnr", "psnr_head", "ssim"}
    expected = {prefix + name for prefix in ("", "copy_", "mean_") for name in names} | {"mask_iou", "depth_error"}
    assert found.keys() == {f"Valid/{kind}/{name}" for kind in ("self", "cross") for name in expected}
    assert found["Valid/self/ssim"] == pytest.approx(1) and found["Valid/self/psnr"] > 100
    assert (found["Valid/self/mask_iou"], found["Valid/self/depth_error"]) == (1, 0)
    copied = psnr(DATA.source_image, DATA.target_image).mean().item()
    mean = DATA.target_image.mean(dim=0, keepdim=True).expand_as(DATA.target_image)
    assert found["Valid/self/copy_psnr"] == pytest.approx(copied, rel=1e-5)
    assert found["Valid/self/mean_psnr"] == pytest.approx(psnr(mean, DATA.target_image).mean().item(), rel=1e-5)


def test_what_is_measured(ellipsoid: HeadModel) -> None:
    def kinds(motion: str, static: bool = False, subjects: int = 4) -> tuple[str, ...]:
        return Validation(ValidationConfig(subjects), tiny_reconstructor(), ellipsoid, motion, static).kinds

    assert kinds("pdfgc") == kinds("synthetic") == ("self", "cross")
    assert kinds("flame") == kinds("exact") == kinds("pdfgc", static=True) == ("self",)
    assert kinds("pdfgc", subjects=0) == ()


def test_subjects_are_made_once_by_their_seed(ellipsoid: HeadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def sample(supervision: SyntheticHeadsSupervision, count: int, generator: torch.Generator) -> SupervisedBatch:
        asked.append((supervision.source.cross_driving, supervision.config.static, count, generator.initial_seed()))
        return DATA

    monkeypatch.setattr(SyntheticHeadsSupervision, "sample", sample)
    monkeypatch.setattr(module, "motion_reader", lambda *_: None)
    for static in (False, True):
        validation = Validation(ValidationConfig(COUNT, seed=5), tiny_reconstructor(), ellipsoid, "pdfgc", static)
        for _ in range(2):
            validation.measure(perfect)
    assert asked == [(False, False, COUNT, 5), (True, False, COUNT, 5), (False, True, COUNT, 5)]


def test_without_subjects_there_is_nothing(ellipsoid: HeadModel) -> None:
    validation = Validation(ValidationConfig(clips=2), tiny_reconstructor(), ellipsoid, "pdfgc")
    assert validation.measure(perfect) == {} and validation.draw(perfect) == {}


def test_of_clips_there_are_three_kinds(ellipsoid: HeadModel) -> None:
    def kinds(motion: str, static: bool = False) -> tuple[str, ...]:
        return Validation(ValidationConfig(1, clips=1), tiny_reconstructor(), ellipsoid, motion, static).clip_kinds

    assert kinds("pdfgc") == kinds("synthetic") == ("clip_self", "clip_cross", "clip_novel")
    assert kinds("exact") == kinds("flame") == ("clip_self", "clip_novel"), "another person's motion is the same"
    assert kinds("pdfgc", static=True) == ()


def test_clips_tell_how_results_tremble(
    measured: Validation, ellipsoid: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, frames, asked = 2, 3, []

    def render(config: ValidationConfig, size: int, kinds: tuple[str, ...]) -> dict[str, list[str]]:
        asked.append((config, size, kinds))
        return {kind: [kind] for kind in kinds}

    monkeypatch.setattr(module, "render_clips", render)
    monkeypatch.setattr(SyntheticHeadsSupervision, "assemble", lambda *_: DATA)
    config = ValidationConfig(COUNT, clips=clips, clip_frames=frames)
    validation = Validation(config, tiny_reconstructor(), ellipsoid, "pdfgc")
    found = validation.measure(perfect)
    assert asked == [(config, validation.network.image_resolution, ("clip_self", "clip_cross", "clip_novel"))]
    truth = DATA.target_image
    accelerations = [truth[k - 1] - 2 * truth[k] + truth[k + 1] for k in (1, 4)]  # of each clip's inner frame
    still = LEVELS * torch.stack(accelerations).abs().mean().item()
    for kind in ("clip_self", "clip_cross", "clip_novel"):
        assert found[f"Valid/{kind}/jitter"] == 0 and found[f"Valid/{kind}/psnr"] > 100
        shown = DATA.source_image
        error = [shown[k - 1] - 2 * shown[k] + shown[k + 1] - a for k, a in zip((1, 4), accelerations, strict=True)]
        assert found[f"Valid/{kind}/copy_jitter"] == pytest.approx(
            LEVELS * torch.stack(error).abs().mean().item(), rel=1e-5
        )
        assert found[f"Valid/{kind}/mean_jitter"] == pytest.approx(still, rel=1e-4), "one picture does not move"
    assert "Valid/self/jitter" not in found, "those are no consecutive frames"
    assert {"_valid_self", "_valid_clip_novel"} < validation.draw(perfect).keys() and len(asked) == 1


def test_a_row_of_the_picture_is_source_driving_ours_truth_depth(measured: Validation) -> None:
    drawn = measured.draw(perfect)
    assert drawn.keys() == {"_valid_self", "_valid_cross"}
    grid = drawn["_valid_self"]
    assert grid.shape == (3, 3 * SIDE, 5 * SIDE)
    row = grid[:, SIDE : 2 * SIDE].split(SIDE, dim=2)
    columns = (DATA.source_image, DATA.driving_image, DATA.target_image, DATA.target_image)
    assert all(torch.allclose(ours, column[1].clamp(-1, 1)) for ours, column in zip(row, columns, strict=False))
    assert row[4].unique().numel() > 2, "depths differ"


def test_head_and_shapes_are_compared_inside_the_mask() -> None:
    disturbed = torch.where(DATA.target_mask.repeat_interleave(4, 2).repeat_interleave(4, 3) > 0, 0.2, 5.0)
    full = replace(DATA, target_mask=DATA.target_mask.repeat_interleave(4, 2).repeat_interleave(4, 3))
    found = compare_pictures(full.target_image + disturbed, full)
    assert found["psnr_head"].tolist() == pytest.approx([20.0] * COUNT, rel=1e-4)
    assert bool((found["psnr"] < 10).all())
    shown = perfect(DATA)
    shown.depth = torch.where(DATA.target_mask > 0, DATA.depth + 0.3, DATA.depth + 9)
    assert compare_shapes(shown, DATA)["depth_error"].tolist() == pytest.approx([0.3] * COUNT, rel=1e-4)
    assert "depth_error" not in compare_shapes(shown, replace(DATA, depth=None))


def test_a_learned_distance_is_reported_if_there_is_one(measured: Validation) -> None:
    measured.perceptual = lambda first, second: (first - second).abs().mean(dim=(1, 2, 3))
    found = measured.measure(perfect)
    assert found["Valid/self/lpips"] == 0 and found["Valid/self/copy_lpips"] > 0
