"""losses-recon*.npz, what the tasks do: turns of all phases, pseudo views, optimisers (README-losses.md).

The tasks run as in a training, with stubs for their networks; draws are the recorded ones.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from portrait4d.config.recon_training import PseudoViewConfig, ReconV1Training, ReconV2Training
from portrait4d.geometry.face_alignment import motion_crop
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.lookat_cameras import FRONTAL_DISTANCE, frontal_camera, random_camera_pose
from portrait4d.losses.adversarial import real_inputs
from portrait4d.losses.regularizers import pair_points
from portrait4d.models.discriminator import DiscriminatorInput
from portrait4d.training.pseudo_views import PseudoDraws, PseudoViews
from portrait4d.training.recon_task import ReconTask
from portrait4d.training.recon_v1_task import ReconV1Task
from portrait4d.training.recon_v2_task import ReconV2Task
from portrait4d.training.supervision import PlaneSamples, SupervisedBatch, count_still
from portrait4d.training.tasks import Phase, lazy_phases
from tests.helpers.loss_stubs import PICTURES, named_tensor, stub_motion, stub_planes
from tests.helpers.loss_stubs import pictures as stub_pictures
from tests.helpers.recon_stubs import StubReconstructor, Turn, stub_task

Arrays = dict[str, np.ndarray]

BATCH, SIZE = 2, 512
TERMS = {
    "lpips": "Loss/G/lrecon_lpips",
    "l1": "Loss/G/lrecon_l1",
    "identity": "Loss/G/l_id",
    "mask": "Loss/G/lrecon_seg",
    "depth": "Loss/G/lrecon_depth",
    "feature": "Loss/G/lrecon_feature",
    "triplane": "Loss/G/lrecon_triplane",
    "adversarial": "Loss/G/loss",
}
"""Recorded names of losses, and ours."""
PARTS = {
    "image_sr": "image_sr",
    "image": "image",
    "image_wobg": "image_without_background",
    "rgb_bg": "background_image",
    "seg": "mask",
    "image_depth": "depth",
    "image_feature_wobg": "features_without_background",
    "background_feature": "background",
    "planes": "planes",
}
"""Recorded names of what the generator gives, and ours."""
WIDE = ("image_feature_wobg", "background_feature")
MEANS = ("l1", "identity", "mask", "depth", "feature", "triplane")


@dataclass(frozen=True)
class Case:
    """One Gmain: of which version, images seen, rays per side, whether synthetic extras are there."""

    version: str
    images_seen: int
    resolution: int
    extras: bool = False


G_CASES = {
    "v1/G/warmup": Case("v1", 100_000, 64, True),
    "v1/G/identity": Case("v1", 500_000, 64, True),
    "v1/G/adversarial": Case("v1", 1_200_000, 77, True),
    "v1/G/final": Case("v1", 3_000_000, 128, True),
    "v1/G/no_extras": Case("v1", 100_000, 64),
    "v2/G/main": Case("v2", 10_000_000, 128),
    "v2/G/warm": Case("v2", 100_000, 128),
}
JUDGED = {"v1": Case("v1", 1_000_000, 64, True), "v2": Case("v2", 10_000_000, 128)}
TEACHING = {"shipped": {}, "no_scale": {"scale_by_eyes": False}, "no_motion_aug": {"motion_probability": 0.0}}


def pictures(name: str, size: int, channels: int = 3) -> Tensor:
    """Return I(name, size, channels) of two samples."""
    return stub_pictures(name, size, channels, BATCH)


def cut(name: str, picture: Tensor, raw_step: int = 4) -> np.ndarray:
    """Return the stored part of a picture; planes are whole."""
    if name == "planes":
        return picture.detach().numpy()
    step = 16 if name in ("image_sr", "uv") else raw_step
    channels = 8 if name in WIDE else 1
    return picture.detach()[:, ::channels, ::step, ::step].numpy()


def prediction(resolution: int) -> dict[str, Tensor]:
    """Return what the generator stub gives, as leaves, by our names."""
    r = resolution
    parts = {
        "image_sr": pictures("pred/image_sr", SIZE),
        "image": pictures("pred/image", r),
        "image_without_background": pictures("pred/image_wobg", r),
        "background_image": pictures("pred/rgb_bg", r),
        "mask": pictures("pred/seg", r, 1),
        "depth": 4 + 0.3 * pictures("pred/depth", r, 1),
        "features_without_background": pictures("pred/feature_wobg", r, 32),
        "background": pictures("pred/background_feature", r, 32),
        "planes": stub_planes(BATCH),
    }
    return {name: tensor.clone().requires_grad_() for name, tensor in parts.items()}


def target_mask(version: str) -> Tensor:
    """Return the mask of the target view."""
    if version == "v1":
        return pictures("real/seg", 64, 1)
    return torch.where(pictures("real/seg512", SIZE) >= 0, 1.0, -1.0)


def supervised(case: Case) -> SupervisedBatch:
    """Return what a case learns from."""
    still = torch.arange(BATCH) >= BATCH - count_still(BATCH, False, case.version == "v1")
    batch = SupervisedBatch(
        *(pictures(f"real/{name}", SIZE) for name in ("source", "driving", "target")),
        target_mask(case.version),
        pictures("pred/uv", SIZE),
        *(named_tensor(name, (BATCH, 25), 1) for name in ("c", "c_compose")),
        HeadParams(*(torch.zeros(BATCH, width) for width in (300, 100, 6, 6))),
        *(named_tensor(name, (BATCH, 548), 1) for name in ("motion_source", "motion_driving")),
        still,
    )
    if not case.extras:
        return batch
    samples = named_tensor("real/points", (BATCH, 500, 3), 0.3), named_tensor("real/triplane", (BATCH, 500, 32), 0.5)
    return replace(
        batch,
        depth=4 + 0.3 * pictures("real/depth", 64, 1),
        features=pictures("real/feature", 64, 32),
        background=pictures("real/background", 64, 32),
        plane_samples=PlaneSamples(*samples),
    )


class RecordedViews(PseudoViews):
    """Pseudo views of recorded draws by a stub; `crops` are what motion was read from."""

    def __init__(self, golden: Arrays, draws: str, **changes: object) -> None:
        self.crops = torch.empty(0)
        self.draws = PseudoDraws(
            torch.from_numpy(golden["v2/aug/uniform_draws"]).T, torch.from_numpy(golden[f"{draws}/keep_draws"])
        )
        shown = {"image_sr": pictures("fix/image_sr", SIZE), "mask": pictures("fix/seg", 128, 1)}
        super().__init__(StubReconstructor(shown), replace(PseudoViewConfig(share=False), **changes), self._read)

    def augment_motion(self, batch: SupervisedBatch, resolution: int, generator: torch.Generator) -> SupervisedBatch:
        return self.read_motion(batch, resolution, self.draws)

    def _read(self, images: Tensor, landmarks_pixels: Tensor, params: HeadParams) -> Tensor:
        self.crops, _ = motion_crop(images, landmarks_pixels, reverse_y=True)
        return stub_motion(self.crops)


@contextmanager
def recorded_landmarks(golden: Arrays) -> Iterator[None]:
    """Let the head model's landmarks be the recorded ones: of the view, of random cameras, of the frontal one."""
    view, augmented, frontal = (
        torch.from_numpy(golden[f"landmarks/{name}"][:BATCH]) for name in ("view", "augmented", "frontal")
    )

    def pseudo(head: None, params: HeadParams, camera: Tensor, size: int) -> Tensor:
        return frontal if bool((camera[:, 11] == FRONTAL_DISTANCE).all()) else augmented

    with (
        patch("portrait4d.training.recon_task.landmarks_2d", lambda *_: view),
        patch("portrait4d.training.pseudo_views.landmarks_2d", pseudo),
    ):
        yield


def build(case: Case, golden: Arrays, draws: str = "v2/aug", **pseudo: object) -> ReconTask:
    """Return the stubbed task of a case; `draws` and `pseudo` are for v2's pseudo views."""
    parts = prediction(case.resolution)
    if case.version == "v1":
        return stub_task(ReconV1Task, ReconV1Training(), parts)
    views = RecordedViews(golden, draws, **pseudo)
    task = stub_task(ReconV2Task, ReconV2Training(pseudo=views.config), parts)
    task.pseudo = views
    return task


def take_turn(golden: Arrays, case: Case, phase: Phase, **build_options: object) -> tuple[Turn, ReconTask]:
    """Let a case's task do a phase; reals have a correspondence map of their own, as was recorded."""
    task = build(case, golden, **build_options)

    def prepare_reals(image: Tensor, mask: Tensor, _: Tensor, resolution: int) -> DiscriminatorInput:
        return real_inputs(image, mask, pictures("real/uv", SIZE), resolution)

    with recorded_landmarks(golden), patch("portrait4d.training.recon_task.real_inputs", prepare_reals):
        return Turn().take(task, supervised(case), phase, case.images_seen), task


def reconstruct(golden: Arrays, name: str) -> Arrays:
    """Gmain: terms, the weighted total, its gradients on the prediction, what networks and critic get."""
    case = G_CASES[name]
    turn, task = take_turn(golden, case, Phase("Gmain", "G"), motion_probability=0.9 if name == "v2/G/main" else 0.0)
    generator = task.networks["G"]
    found = {term: turn.statistics[ours] for term, ours in TERMS.items() if ours in turn.statistics}
    found = {term: (value.mean() if term in MEANS else value).detach().numpy() for term, value in found.items()}
    found["lpips"] = found["lpips"].reshape(BATCH, 1, 1, 1)
    gradients = {part: generator.parts[ours].grad for part, ours in PARTS.items()}
    found |= {f"grad/{part}": cut(part, gradient) for part, gradient in gradients.items() if gradient is not None}
    return found | {
        "backward": np.array(turn.losses),
        "resolution": np.int64(generator.options[0].resolution),
        "motion_scale": generator.scales[0].numpy(),
        "motion_driving_used": generator.motions[0][:, ::4].numpy(),
    }


def augment(golden: Arrays) -> Arrays:
    """Return what the static model is asked for when a driving motion is read from its picture."""
    _, task = take_turn(golden, G_CASES["v2/G/main"], Phase("Gmain", "G"))
    teacher = task.pseudo.network
    return {
        "camera": teacher.cameras[0].numpy(),
        "motion_input": task.pseudo.crops[..., ::8, ::8].numpy(),
        "motion_scale": teacher.scales[0].max().numpy(),
        "resolution": np.int64(teacher.options[0].resolution),
    }


def judge(golden: Arrays, version: str) -> Arrays:
    """Dmain and Dreg, and what the critic sees."""
    main, lazy = lazy_phases("D", ReconV1Training().adversarial.interval)
    (main_turn, main_task), (lazy_turn, lazy_task) = (take_turn(golden, JUDGED[version], p) for p in (main, lazy))
    critic, punished = main_task.networks["D"], lazy_task.networks["D"]
    after = "/after" if version == "v1" else ""
    found = {
        f"Dmain{after}/backward": np.array(main_turn.losses),
        "Dmain/gain_grad": critic.gains.grad.numpy(),
        "Dmain/scores_fake": critic.verdicts[0].numpy(),
        "Dmain/scores_real": critic.verdicts[1].numpy(),
        "Dmain/loss_per_sample": main_turn.statistics["Loss/D/loss"].detach().numpy(),
        f"Dreg{after}/backward": np.array(lazy_turn.losses),
        "Dreg/gain_grad": punished.gains.grad.numpy(),
        "Dreg/scores_real": punished.verdicts[0].numpy(),
        "Dreg/r1_image": lazy_turn.statistics["Loss/r1_penalty"].detach().numpy(),
        "Dreg/r1_weighted": lazy_turn.statistics["Loss/D/reg"].detach().numpy(),
    }
    fakes, reals, raw_step = *critic.seen, 4
    if version == "v1":
        fakes = take_turn(golden, G_CASES["v1/G/adversarial"], main)[1].networks["D"].seen[0]
        for phase in (main, lazy):
            before, _ = take_turn(golden, replace(JUDGED["v1"], images_seen=999_999), phase)
            found[f"{phase.name}/before/backward"] = np.array(before.losses)
    else:
        found["Dmain/multi_view_renders"] = np.int64(len(main_task.pseudo.network.cameras))
        raw_step = 8
    for kind, inputs in (("fake", fakes), ("real", reals)):
        found |= {f"D/{kind}_in/{name}": cut(name, getattr(inputs, ours), raw_step) for name, ours in PICTURES.items()}
    return found


def smooth(golden: Arrays) -> Arrays:
    """Greg of v1."""
    draws = [torch.from_numpy(golden[f"v1/Greg/{kind}_draws"]) for kind in ("uniform", "normal")]
    config, points = ReconV1Training(), []

    def sample(_: int, spread: float, **__: object) -> Tensor:
        points.append(pair_points(*draws, spread))
        return points[0]

    _, phase = lazy_phases("G", config.density.interval)
    with patch("portrait4d.training.recon_v1_task.sample_point_pairs", sample):
        turn, task = take_turn(golden, G_CASES["v1/G/warmup"], phase)
    return {
        "points_sub": points[0][:, ::10].numpy(),
        "loss": turn.statistics["Loss/G/TVloss"].detach().numpy(),
        "backward": np.array(turn.losses),
        "scale_grad": task.networks["G"].density_scale.grad.numpy(),
        "motion_scale": task.networks["G"].scales[0].numpy(),
    }


def teach(golden: Arrays, case: str) -> Arrays:
    """Greg of v2."""
    draws = torch.from_numpy(golden["v2/Greg/shipped/uniform_draws"]).T
    _, phase = lazy_phases("G", PseudoViewConfig().interval)
    with patch("portrait4d.training.recon_v2_task.sample_camera_poses", lambda *_: random_camera_pose(draws)):
        turn, task = take_turn(golden, G_CASES["v2/G/main"], phase, draws="v2/Greg/shipped", **TEACHING[case])
    student, teacher = task.networks["G"], task.pseudo.network
    # Before the views that teach, the teacher may have shown those that motion is read from.
    scales = np.array([options.box_scale for options in teacher.options[-BATCH:]], np.float32)
    return {
        "loss": turn.statistics["Loss/G/Regloss_G_fix_img"].detach().numpy(),
        "backward": np.array(turn.losses),
        "grad/image_sr": cut("image_sr", student.parts["image_sr"].grad),
        "grad/seg": cut("seg", student.parts["mask"].grad),
        "box_warp_scale": scales if task.pseudo.config.scale_by_eyes else np.unique(scales),
        **({} if case == "no_motion_aug" else {"camera": student.cameras[0].numpy()}),
        "student_motion_scale": student.scales[0].numpy(),
        "teacher_motion_scale": teacher.scales[-1].max().numpy(),
        "teacher_motion": teacher.motions[-1][:, ::4].numpy(),
        "frontal_camera": frontal_camera(supervised(G_CASES["v2/G/main"]).camera).numpy(),
    }


def teach_without_teacher(golden: Arrays) -> Arrays:
    """Count the losses of v2's Greg where there is no static model."""
    task = build(G_CASES["v2/G/main"], golden)
    task.pseudo = None
    turn = Turn().take(task, supervised(G_CASES["v2/G/main"]), Phase("Greg", "G"), 10_000_000)
    return {"Greg_without_fixed_model_backward_calls": np.int64(len(turn.losses))}


def scale_motion(golden: Arrays) -> Arrays:
    """Return the motion scales of chunks of even size, of all where everything is still."""
    found = {}
    for name in golden:
        match = re.fullmatch(r"motion_scale/(B(\d)_scale(\d)_half(\d)_none)", name)
        if match is None:
            continue
        count, scale, half_static = (int(number) for number in match.groups()[1:])
        if scale and half_static and count % 2:
            continue  # refused
        still = torch.arange(count) >= count - count_still(count, scale == 0, bool(half_static))
        batch = replace(supervised(JUDGED["v2"]), is_still=still, target_image=torch.zeros(count))
        found[match[1]] = batch.motion_scale(float(scale)).flatten().numpy()
    return found


def computations(golden: Arrays) -> Iterator[tuple[str, Callable[[], Arrays]]]:
    """Yield each group's prefix and what computes its arrays."""
    yield from ((name, partial(reconstruct, golden, name)) for name in G_CASES)
    yield "v2/aug", partial(augment, golden)
    yield from ((version, partial(judge, golden, version)) for version in JUDGED)
    yield "v1/Greg", partial(smooth, golden)
    yield from ((f"v2/Greg/{case}", partial(teach, golden, case)) for case in TEACHING)
    yield "v2/switch", partial(teach_without_teacher, golden)
    yield "motion_scale", partial(scale_motion, golden)
