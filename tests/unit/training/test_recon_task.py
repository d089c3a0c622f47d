"""What all trainings of reconstructors do: terms and their factors, when they count, parameter groups, grids."""

from dataclasses import replace

import pytest
import torch

from portrait4d.config.recon_training import ReconLossConfig, ReconV1Training
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.training.recon_task import ReconTask, absolute_distance, is_cross_layer, parameter_groups
from portrait4d.training.recon_v1_task import ReconV1Task
from portrait4d.training.tasks import Moment, Phase
from tests.helpers.recon_stubs import Turn, stub_task
from tests.helpers.supervised_batches import wavy_batch
from tests.helpers.waves import wave

SIDE, RAYS = 32, 8
MAIN, JUDGING = Phase("Gmain", "G"), Phase("Dmain", "D")
LOSS = ReconLossConfig(
    perceptual_weight=0.7,
    absolute_weight=1.3,
    identity_weight=0.6,
    mask_weight=0.4,
    depth_weight=0.8,
    feature_weight=0.9,
    triplane_weight=0.2,
    adversarial_weight=0.05,
)
WEIGHTS = {
    "Loss/G/lrecon_lpips": LOSS.perceptual_weight,
    "Loss/G/lrecon_l1": LOSS.absolute_weight,
    "Loss/G/lrecon_seg": LOSS.mask_weight,
    "Loss/G/l_id": LOSS.identity_weight,
    "Loss/G/lrecon_depth": LOSS.depth_weight,
    "Loss/G/lrecon_feature": LOSS.feature_weight,
    "Loss/G/lrecon_triplane": LOSS.triplane_weight,
    "Loss/G/loss": LOSS.adversarial_weight,
}
EXTRAS = {"Loss/G/lrecon_depth", "Loss/G/lrecon_feature", "Loss/G/lrecon_triplane"}
ALWAYS = {"Loss/G/lrecon_lpips", "Loss/G/lrecon_l1", "Loss/G/lrecon_seg"}


def build(head: HeadModel, config: ReconV1Training | None = None, rays: int = RAYS) -> ReconTask:
    """Build a task with stubs that show waves; resolutions of the schedule play no part in what they show."""
    parts = {
        "image_sr": wave(2, 3, SIDE, SIDE, frequency=0.11),
        "image": wave(2, 3, rays, rays, frequency=0.12),
        "image_without_background": wave(2, 3, rays, rays, frequency=0.13),
        "background_image": wave(2, 3, rays, rays, frequency=0.14),
        "mask": wave(2, 1, rays, rays, frequency=0.15),
        "depth": 4 + 0.3 * wave(2, 1, rays, rays, frequency=0.16),
        "features_without_background": wave(2, 8, rays, rays, frequency=0.17),
        "background": wave(2, 8, rays, rays, frequency=0.18),
        "planes": wave(2, 3, 8, 16, 16, frequency=0.19),
    }
    parts = {name: part.clone().requires_grad_() for name, part in parts.items()}
    task = stub_task(ReconV1Task, config or ReconV1Training(loss=LOSS), parts)
    task.generator.head = head
    return task


@pytest.mark.parametrize(
    ("images_seen", "terms", "counted"),
    [
        (0, ALWAYS | EXTRAS | {"Loss/G/l_id"}, ALWAYS | EXTRAS),
        (399_999, ALWAYS | EXTRAS | {"Loss/G/l_id"}, ALWAYS | EXTRAS),
        (400_000, ALWAYS | {"Loss/G/l_id"}, ALWAYS | {"Loss/G/l_id"}),
        (999_999, ALWAYS | {"Loss/G/l_id"}, ALWAYS | {"Loss/G/l_id"}),
        (1_000_000, ALWAYS | {"Loss/G/l_id", "Loss/G/loss"}, ALWAYS | {"Loss/G/l_id", "Loss/G/loss"}),
    ],
)
def test_which_terms_are_recorded_and_which_count(
    ellipsoid: HeadModel, images_seen: int, terms: set[str], counted: set[str]
) -> None:
    turn = Turn().take(build(ellipsoid), wavy_batch(2, SIDE, RAYS), replace(MAIN, gain=3.0), images_seen)
    assert {name for name in turn.statistics if name.startswith("Loss/G/")} == terms
    total = sum(WEIGHTS[name] * turn.statistics[name].mean().item() for name in counted)
    assert turn.losses == [pytest.approx(3 * total, rel=1e-5)]


def test_terms_without_a_network_or_without_the_truth_are_left_out(ellipsoid: HeadModel) -> None:
    task = build(ellipsoid)
    task.perceptual = task.identity = None
    turn = Turn().take(task, wavy_batch(2, SIDE, RAYS, extras=False), MAIN, 0)
    assert turn.statistics.keys() == {"Loss/G/lrecon_l1", "Loss/G/lrecon_seg"}


def test_depth_and_features_of_another_size_are_left_out(ellipsoid: HeadModel) -> None:
    turn = Turn().take(build(ellipsoid, rays=12), wavy_batch(2, SIDE, RAYS), MAIN, 0)
    assert turn.statistics.keys() & EXTRAS == {"Loss/G/lrecon_triplane"}


def test_a_mask_of_full_size_weighs_the_depth_by_its_mean_in_each_cell(ellipsoid: HeadModel) -> None:
    batch = wavy_batch(2, SIDE, RAYS)
    full = batch.target_mask.repeat_interleave(SIDE // RAYS, 2).repeat_interleave(SIDE // RAYS, 3)
    found = [
        Turn().take(build(ellipsoid), one, MAIN, 0).statistics["Loss/G/lrecon_depth"].item()
        for one in (batch, replace(batch, target_mask=full))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0] > 0


def test_the_discriminator_rests_until_its_time(ellipsoid: HeadModel) -> None:
    batch = wavy_batch(2, SIDE, RAYS)
    for phase, count in ((JUDGING, 2), (Phase("Dreg", "D", 16, 16.0), 1)):
        config = ReconV1Training(resolution=replace(ReconV1Training().resolution, initial=RAYS))
        assert Turn().take(build(ellipsoid, config), batch, phase, 999_999).losses == []
        turn = Turn().take(build(ellipsoid, config), batch, phase, 1_000_000)
        assert len(turn.losses) == count
    assert turn.losses[0] == pytest.approx(16 * turn.statistics["Loss/D/reg"].mean().item(), rel=1e-5)


def test_without_gammas_there_is_no_penalty(ellipsoid: HeadModel) -> None:
    task = build(ellipsoid)
    task.r1 = replace(task.r1, image=0.0, correspondence=0.0, mask=0.0)
    assert Turn().take(task, wavy_batch(2, SIDE, RAYS), Phase("Dreg", "D"), 10**7).losses == []


def test_reals_are_judged_without_the_generator(ellipsoid: HeadModel) -> None:
    task = build(ellipsoid)
    turn = Turn().take(task, wavy_batch(2, SIDE, RAYS), JUDGING, 10**7)
    assert all(part.grad is None for part in task.generator.parts.values())
    fake, real = (turn.statistics[f"Loss/scores/{name}"] for name in ("fake", "real"))
    expected = [torch.nn.functional.softplus(fake).mean(), torch.nn.functional.softplus(-real).mean()]
    assert turn.losses == pytest.approx([value.item() for value in expected], rel=1e-5)


@pytest.mark.parametrize(("static", "scales"), [(False, [1, 0]), (True, [0, 0])])
def test_motion_is_switched_off_in_still_subjects_and_in_the_static_model(
    ellipsoid: HeadModel, static: bool, scales: list[int]
) -> None:
    task = build(ellipsoid, ReconV1Training(static=static))
    Turn().take(task, wavy_batch(2, SIDE, RAYS), MAIN, 0)
    assert task.generator.scales[0].flatten().tolist() == scales


def test_rays_follow_the_schedule(ellipsoid: HeadModel) -> None:
    task = build(ellipsoid)
    assert [task.resolution(Moment(n)) for n in (0, 10**6, 15 * 10**5, 2 * 10**6)] == [64, 64, 96, 128]
    Turn().take(task, wavy_batch(2, SIDE, RAYS), MAIN, 15 * 10**5)
    options = task.generator.options[0]
    assert options.resolution == 96 and options.jitter.importance.shape[:2] == (2, 96**2)


def test_groups_of_parameters(tiny: Reconstructor) -> None:
    cross, base = parameter_groups(tiny, 2.5)
    assert (cross["name"], cross["scale"], base["name"], base["scale"]) == ("G_cross", 2.5, "G_base", 1.0)
    names = {id(parameter): name for name, parameter in tiny.named_parameters()}
    ours = {names[id(parameter)] for parameter in cross["params"]}
    assert ours == {name for name in names.values() if is_cross_layer(name)}
    assert len(cross["params"]) + len(base["params"]) == len(names)
    assert any("cross_attention" in name for name in ours) and any("source_motion" in name for name in ours)
    assert not any("self_attention" in name or not name.startswith("canonical_encoder.") for name in ours)
    *others, planes = parameter_groups(tiny, 2.5, 0.1)
    assert (planes["name"], planes["scale"]) == ("G_planes", 0.1)
    last = tiny.plane_generator.output_conv
    assert {id(parameter) for parameter in planes["params"]} == {id(last.weight), id(last.bias)}
    assert sum(len(group["params"]) for group in (*others, planes)) == len(names)


def test_the_grid_of_reals_shows_source_driving_target_of_each_subject(ellipsoid: HeadModel) -> None:
    task, batch = build(ellipsoid), wavy_batch(2, SIDE, RAYS)
    task.grid_batch = lambda: batch
    grid = task.draw_reals()
    row = [batch.source_image[1], batch.driving_image[1], batch.target_image[1]]
    assert torch.allclose(grid[:, :SIDE, 3 * SIDE : 6 * SIDE], torch.cat(row, dim=2).clamp(-1, 1))


def test_the_distance_without_a_network_is_the_mean_difference() -> None:
    first = torch.zeros(2, 3, 4, 4)
    second = torch.tensor([0.5, -2.0])[:, None, None, None].expand(2, 3, 4, 4)
    assert absolute_distance(first, second).tolist() == [0.5, 2.0]
