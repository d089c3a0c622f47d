"""V2's training on a small database: batches of clips, pseudo views once or for every phase, gradients, refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from portrait4d.data.clip_dataset import ClipItem
from portrait4d.data.image_io import from_uint8
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.rendering.mesh_maps import render_correspondence
from portrait4d.training.distributed import Ranks
from portrait4d.training.pseudo_views import PseudoViews
from portrait4d.training.recon_v2_task import ReconV2Task
from portrait4d.training.supervision import SupervisedBatch
from portrait4d.training.tasks import Moment
from tests.helpers.recon_runs import v2_config, write_static_model
from tests.helpers.recon_stubs import Turn, phase_gradients


@pytest.fixture(scope="module")
def static_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_static_model(tmp_path_factory.mktemp("static") / "static.safetensors")


@pytest.fixture(scope="module")
def task(clip_database: Path, static_model: Path) -> ReconV2Task:
    """A task that has not begun. Do not let it step."""
    torch.manual_seed(0)
    task = ReconV2Task(v2_config(f"data.path={clip_database}", f"pseudo.network={static_model}"), Ranks())
    task.skip_batches(0)
    return task


@pytest.fixture
def augmented(monkeypatch: pytest.MonkeyPatch) -> list[SupervisedBatch]:
    """Batches whose motion was read from pseudo views, in order."""
    batches, augment = [], PseudoViews.augment_motion

    def note(views: PseudoViews, batch: SupervisedBatch, *rest: object) -> SupervisedBatch:
        batches.append(batch)
        return augment(views, batch, *rest)

    monkeypatch.setattr(PseudoViews, "augment_motion", note)
    return batches


def test_frames_become_a_batch(task: ReconV2Task) -> None:
    item = ClipItem(*(value[None] for value in task.dataset.load(1, torch.Generator().manual_seed(2))))
    batch, head = task.prepare(item), task.generator.head
    assert torch.equal(batch.source_image, from_uint8(item.source_image))
    assert (
        torch.equal(batch.driving_image, from_uint8(item.driving_image)) and batch.target_image is batch.driving_image
    )
    assert batch.target_mask.shape == (1, 3, 64, 64) and not batch.is_still.any()
    assert torch.equal(batch.camera_upright, item.camera) and torch.equal(batch.params.shape, item.shape)
    assert torch.equal(batch.params.pose, item.pose) and item.pose[0, :3].any(), "the neck stays turned"
    camera = camera_for_posed_neck(head, batch.params, item.camera)
    assert torch.equal(batch.camera, camera)
    expected = render_correspondence(head, batch.params, camera, 64).image
    assert torch.equal(batch.target_correspondence, expected)
    assert batch.depth is batch.features is batch.background is batch.plane_samples is None


def test_phases_and_how_often_they_come(task: ReconV2Task, clip_database: Path) -> None:
    assert [(phase.name, phase.interval) for phase in task.phases] == [
        ("Gmain", 1),
        ("Greg", 2),
        ("Dmain", 1),
        ("Dreg", 16),
    ]
    assert [group["scale"] for group in task.optimisers["G"].param_groups] == [2.5, 1.0]
    plain = v2_config(f"data.path={clip_database}", "pseudo.motion_probability=0", "pseudo.novel_view_weight=0")
    assert [phase.name for phase in ReconV2Task(plain, Ranks()).phases] == ["Gmain", "Dmain", "Dreg"]


def test_every_phase_gives_its_network_finite_gradients_and_the_other_none(task: ReconV2Task) -> None:
    chunk = task.load_chunks(Moment())[0]
    for phase in task.phases:
        found = phase_gradients(task, chunk, phase, 10_000)
        other = "D" if phase.network == "G" else "G"
        assert found[phase.network] and not found[other], phase.name
        assert all(bool(gradient.isfinite().all()) for gradient in found[phase.network].values())


def test_shared_pseudo_views_are_made_once(task: ReconV2Task, augmented: list[SupervisedBatch]) -> None:
    chunks = task.load_chunks(Moment())
    assert len(chunks) == len(augmented) == 2
    for phase in task.phases:
        phase_gradients(task, chunks[0], phase, 10_000)
    assert len(augmented) == 2


def test_else_every_phase_has_its_own_but_dreg(
    task: ReconV2Task, augmented: list[SupervisedBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "config", replace(task.config, pseudo=replace(task.config.pseudo, share=False)))
    chunk = task.load_chunks(Moment())[0]
    assert not augmented
    for count, phase in enumerate(task.phases[:3], start=1):
        phase_gradients(task, chunk, phase, 10_000)
        assert len(augmented) == count, phase.name
    phase_gradients(task, chunk, task.phases[3], 10_000)
    assert len(augmented) == 3


def test_novel_views_are_of_the_unposed_head(task: ReconV2Task, monkeypatch: pytest.MonkeyPatch) -> None:
    fields, render = [], task.generator.render

    def note(planes: object, background: object, camera: object, deformation: object, options: object) -> object:
        fields.append(deformation)
        return render(planes, background, camera, deformation, options)

    monkeypatch.setattr(task.generator, "render", note)
    chunk = task.load_chunks(Moment())[0]
    found = phase_gradients(task, chunk, task.phases[1], 0)["G"]
    assert fields == [None] and found


def test_without_a_static_model_nothing_is_regularised(task: ReconV2Task, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = task.load_chunks(Moment())[0]
    monkeypatch.setattr(task, "pseudo", None)
    assert Turn().take(task, chunk, task.phases[1], 0).losses == []


def test_the_grid_is_the_same_at_every_call(task: ReconV2Task, clip_database: Path) -> None:
    again = ReconV2Task(v2_config(f"data.path={clip_database}", "pseudo.motion_probability=0"), Ranks())
    first, second = task.grid_batch(), again.grid_batch()
    assert first is task.grid_batch() and torch.equal(first.source_image, second.source_image)


def test_batches_go_on_behind_those_consumed(task: ReconV2Task) -> None:
    task.skip_batches(0)
    batches = [task.load_chunks(Moment(4 * k, k))[0] for k in range(3)]
    task.skip_batches(2)
    again = task.load_chunks(Moment(8, 2))[0]
    assert torch.equal(again.source_image, batches[2].source_image)
    assert torch.equal(again.driving_motion, batches[2].driving_motion)
    task.skip_batches(0)


def test_what_cannot_be(task: ReconV2Task, clip_database: Path, tmp_path: Path) -> None:
    config = task.config
    with pytest.raises(UserError, match="data.path: no data"):
        ReconV2Task(replace(config, data=replace(config.data, path=None)), Ranks())
    small = write_static_model(tmp_path / "small.safetensors", image_resolution=32)
    with pytest.raises(InputFileError, match="makes pictures of 32 pixels; give a static model of the network's size"):
        ReconV2Task(replace(config, pseudo=replace(config.pseudo, network=small)), Ranks())
    with pytest.raises(InputFileError, match="has pictures of 64 pixels, the network makes 128"):
        ReconV2Task(replace(config, network=replace(config.network, image_resolution=128)), Ranks())
