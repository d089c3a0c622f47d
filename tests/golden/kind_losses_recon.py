"""losses-recon*.npz: terms of both reconstructors' trainings with stubs for their networks (README-losses.md).

Covers what the loss and schedule modules give: terms, totals, gradients, what critics see, alignment, schedules. What
needs a training task (sampled cameras, motion scales, parameter groups of networks) is named as not checked.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.geometry.face_alignment import identity_crop, motion_crop
from portrait4d.losses.adversarial import R1Weights, compute_r1, fake_verdict_loss, real_inputs, real_verdict_loss
from portrait4d.losses.reconstruction import (
    HeadPictures,
    ReconstructionTarget,
    ReconstructionWeights,
    absolute_loss,
    build_target,
    depth_loss,
    feature_loss,
    identity_loss,
    mask_loss,
    novel_view_loss,
    perceptual_loss,
    teacher_box_scale,
)
from portrait4d.losses.regularizers import density_roughness, pair_points
from portrait4d.models.discriminator import DiscriminatorInput
from portrait4d.rendering.triplanes import TriPlanes
from portrait4d.training.schedules import AdamSettings, has_started, lazy_settings, render_resolution
from tests.golden.comparison import Context, Criterion, Result, compare, everywhere
from tests.helpers.loss_stubs import (
    PICTURES,
    StubCritic,
    named_tensor,
    stub_deform,
    stub_densities,
    stub_identity,
    stub_motion,
    stub_perceptual,
    stub_planes,
)
from tests.helpers.loss_stubs import pictures as stub_pictures

Arrays = dict[str, np.ndarray]

BATCH, SIZE, BOX_WARP = 2, 512, 1.3
IDENTITY_KIMG, ADVERSARIAL_KIMG = 400.0, 1000.0
D_GAIN, V1_G_GAIN, V2_G_GAIN = 16, 16, 4
DENSITY_WEIGHT, DENSITY_SPREAD = 0.25, 0.004 * 1.3
R1_CASES = {"uv_seg": ("uv", "seg"), "uv": ("uv",), "seg": ("seg",), "none": ()}
SCHEDULES = {
    "v1": (64, 128, 1000.0),
    "v1_fade300_64_96": (64, 96, 300.0),
    "v2": (128, None, 1000.0),
    "v2_fade128_64": (128, 64, 1000.0),
}
OPTIMIZERS = {"genhead": ("G",), "genhead_no_G_reg": ("G",), "v1": ("G_cross", "G_base"), "v2": ("G_cross", "G_base")}
INPUTS = ("_draws", "_draws0", "_draws1", "/settings", "schedule/nimg", "box_warp/landmarks")
WIDE = ("image_feature_wobg", "background_feature")


@dataclass(frozen=True)
class Case:
    """One Gmain: of which version, images seen, rays per side, whether synthetic extras are there."""

    version: str
    images_seen: int
    resolution: int
    extras: bool


G_CASES = {
    "v1/G/warmup": Case("v1", 100_000, 64, True),
    "v1/G/identity": Case("v1", 500_000, 64, True),
    "v1/G/adversarial": Case("v1", 1_200_000, 77, True),
    "v1/G/final": Case("v1", 3_000_000, 128, True),
    "v1/G/no_extras": Case("v1", 100_000, 64, False),
    "v2/G/main": Case("v2", 10_000_000, 128, False),
    "v2/G/warm": Case("v2", 100_000, 128, False),
}


def pictures(name: str, size: int, channels: int = 3) -> Tensor:
    """Return I(name, size, channels) of two samples."""
    return stub_pictures(name, size, channels, BATCH)


def values(*losses: Tensor) -> np.ndarray:
    """Return what was handed to back-propagation."""
    return np.array([loss.item() for loss in losses])


def cut(name: str, picture: Tensor, raw_step: int = 4) -> np.ndarray:
    """Return the stored part of a picture; planes are whole."""
    if name == "planes":
        return picture.detach().numpy()
    step = 16 if name in ("image_sr", "uv") else raw_step
    channels = 8 if name in WIDE else 1
    return picture.detach()[:, ::channels, ::step, ::step].numpy()


def prediction(resolution: int) -> dict[str, Tensor]:
    """Return what the generator stub gives, as leaves."""
    r = resolution
    leaves = {
        "image_sr": pictures("pred/image_sr", SIZE),
        "image": pictures("pred/image", r),
        "image_wobg": pictures("pred/image_wobg", r),
        "rgb_bg": pictures("pred/rgb_bg", r),
        "seg": pictures("pred/seg", r, 1),
        "image_depth": 4 + 0.3 * pictures("pred/depth", r, 1),
        "image_feature_wobg": pictures("pred/feature_wobg", r, 32),
        "background_feature": pictures("pred/background_feature", r, 32),
        "planes": stub_planes(BATCH),
    }
    return {name: tensor.clone().requires_grad_() for name, tensor in leaves.items()}


def target_mask(version: str) -> Tensor:
    """Return the mask of the target view."""
    if version == "v1":
        return pictures("real/seg", 64, 1)
    return torch.where(pictures("real/seg512", SIZE) >= 0, 1.0, -1.0)


def target_of(case: Case) -> ReconstructionTarget:
    """Prepare the target of a case."""
    background = pictures("real/background", 64, 32) if case.extras else None
    return build_target(pictures("real/target", SIZE), target_mask(case.version), case.resolution, background)


def build_critic() -> StubCritic:
    """Build a critic told the composed camera, as both versions do for fakes and reals."""
    return StubCritic(named_tensor("c_compose", (BATCH, 25), 1))


def judged(predicted: dict[str, Tensor]) -> DiscriminatorInput:
    """Return what the critic sees of a prediction."""
    return DiscriminatorInput(predicted["image_sr"], predicted["image"], pictures("pred/uv", SIZE), predicted["seg"])


def triplane_loss(planes: Tensor) -> Tensor:
    """Compare features at deformed points with sampled ones."""
    points = stub_deform(named_tensor("real/points", (BATCH, 500, 3), 0.3))
    wanted = named_tensor("real/triplane", (BATCH, 500, 32), 0.5)
    return functional.l1_loss(TriPlanes(planes, BOX_WARP).sample(points), wanted)


def generate(golden: Arrays, name: str) -> Arrays:
    """Gmain: terms as reported, the weighted total, and its gradients on the prediction."""
    case, weights = G_CASES[name], ReconstructionWeights()
    leaves, target = prediction(case.resolution), target_of(case)
    four = HeadPictures(*(leaves[part] for part in ("image_sr", "image", "image_wobg", "rgb_bg")))
    landmarks = torch.from_numpy(golden["landmarks/view"][:BATCH])
    terms = {
        "lpips": perceptual_loss(four, target, stub_perceptual),
        "l1": absolute_loss(four, target),
        "identity": identity_loss(leaves["image_sr"], target.pictures.full, landmarks, stub_identity).mean(),
        "mask": mask_loss(leaves["seg"], target),
    }
    total = weights.perceptual * terms["lpips"].mean() + weights.absolute * terms["l1"] + weights.mask * terms["mask"]
    if has_started(case.images_seen, IDENTITY_KIMG):
        total = total + weights.identity * terms["identity"]
    elif case.extras:
        depth = 4 + 0.3 * pictures("real/depth", 64, 1)
        terms["depth"] = depth_loss(leaves["image_depth"], depth, (target_mask("v1") + 1) / 2)
        features = leaves["image_feature_wobg"], leaves["background_feature"]
        terms["feature"] = feature_loss(*features, pictures("real/feature", 64, 32), target)
        terms["triplane"] = triplane_loss(leaves["planes"])
        total = total + weights.depth * terms["depth"] + weights.feature * terms["feature"]
        total = total + weights.triplane * terms["triplane"]
    if has_started(case.images_seen, ADVERSARIAL_KIMG):
        terms["adversarial"] = real_verdict_loss(build_critic()(judged(leaves)))
        total = total + weights.adversarial * terms["adversarial"].mean()
    total.backward()
    found = {term: value.detach().numpy() for term, value in terms.items()}
    found["lpips"] = found["lpips"].reshape(BATCH, 1, 1, 1)
    gradients = {f"grad/{leaf}": cut(leaf, t.grad) for leaf, t in leaves.items() if t.grad is not None}
    return found | gradients | {"backward": values(total), "resolution": np.int64(scheduled_resolution(case))}


def scheduled_resolution(case: Case) -> int:
    """Return the rays per side that the version's schedule gives."""
    if case.version == "v2":
        return render_resolution(case.images_seen, 128)
    return render_resolution(case.images_seen, 64, 128, 1000.0, ADVERSARIAL_KIMG)


def reals_at(version: str, resolution: int) -> DiscriminatorInput:
    """Prepare the target as the critic sees it, unblurred."""
    return real_inputs(pictures("real/target", SIZE), target_mask(version), pictures("real/uv", SIZE), resolution)


def judge(version: str) -> Arrays:
    """Dmain and Dreg, and what the critic sees."""
    resolution, raw_step = (64, 4) if version == "v1" else (128, 8)
    seen_fakes = judged(prediction(77 if version == "v1" else 128))
    fakes, reals, critic = judged(prediction(resolution)), reals_at(version, resolution), build_critic()
    scores = critic(fakes), critic(reals)
    losses = fake_verdict_loss(scores[0]), real_verdict_loss(scores[1])
    for loss in losses:
        loss.mean().backward()
    regularised = build_critic()
    penalty = compute_r1(regularised, reals, R1Weights(mask_alone=True))
    lazy = penalty.weighted.mean() * D_GAIN
    lazy.backward()
    after = "/after" if version == "v1" else ""
    found = {
        f"Dmain{after}/backward": values(*(loss.mean() for loss in losses)),
        "Dmain/gain_grad": critic.gains.grad.numpy(),
        "Dmain/scores_fake": scores[0].detach().numpy(),
        "Dmain/scores_real": scores[1].detach().numpy(),
        "Dmain/loss_per_sample": sum(losses).detach().numpy(),
        f"Dreg{after}/backward": values(lazy),
        "Dreg/gain_grad": regularised.gains.grad.numpy(),
        "Dreg/scores_real": penalty.logits.detach().numpy(),
        "Dreg/r1_image": penalty.image.detach().numpy(),
        "Dreg/r1_weighted": penalty.weighted.detach().numpy(),
    }
    for kind, inputs in (("fake", seen_fakes), ("real", reals)):
        for name, ours in PICTURES.items():
            found[f"D/{kind}_in/{name}"] = cut(name, getattr(inputs, ours), raw_step)
    for phase in ("Dmain", "Dreg") if version == "v1" else ():
        found[f"{phase}/before/backward"] = np.zeros(2 * has_started(999_999, ADVERSARIAL_KIMG))
    return found


def punish(case: str) -> Arrays:
    """R1 of a critic that takes only some of the pictures."""
    absent = {ours: None for name, ours in PICTURES.items() if name in ("uv", "seg") and name not in R1_CASES[case]}
    weights = R1Weights(1.5, 7.0, 3.0, mask_alone=True)
    penalty = compute_r1(build_critic(), replace(reals_at("v1", 64), **absent), weights)
    return {
        "image": penalty.image.detach().numpy(),
        "weighted": penalty.weighted.detach().numpy(),
        "backward": values(penalty.weighted.mean() * D_GAIN),
    }


def smooth_densities(golden: Arrays) -> Arrays:
    """Greg of v1."""
    draws = (torch.from_numpy(golden[f"v1/Greg/{kind}_draws"]) for kind in ("uniform", "normal"))
    points, scale = pair_points(*draws, DENSITY_SPREAD), torch.ones(1, requires_grad=True)
    loss = DENSITY_WEIGHT * density_roughness(stub_densities(points, scale))
    (V1_G_GAIN * loss).backward()
    return {
        "points_sub": points[:, ::10].numpy(),
        "loss": loss.detach().numpy(),
        "backward": values(V1_G_GAIN * loss),
        "scale_grad": scale.grad.numpy(),
    }


def teach(case: str) -> Arrays:
    """Greg of v2: student and teacher see the head from somewhere else."""
    del case
    leaves = prediction(128)
    teacher = pictures("fix/image_sr", SIZE), pictures("fix/seg", 128, 1)
    loss = novel_view_loss(leaves["image_sr"], leaves["seg"], *teacher, stub_perceptual).mean()
    (V2_G_GAIN * loss).backward()
    gradients = {f"grad/{name}": cut(name, leaves[name].grad) for name in ("image_sr", "seg")}
    return gradients | {"loss": loss.detach().numpy(), "backward": values(V2_G_GAIN * loss)}


def box_scale(golden: Arrays) -> Arrays:
    """Teacher's box from landmarks 36 to 47."""
    landmarks = functional.pad(torch.from_numpy(golden["v2/box_warp/landmarks"]).flatten(0, 1), (0, 0, 36, 0))
    return {"scale": teacher_box_scale(landmarks).unflatten(0, (12, 2)).numpy()}


def teacher_boxes(golden: Arrays, case: str) -> Arrays:
    """Teacher's boxes of two samples, from the landmarks seen from the front."""
    frontal = torch.from_numpy(golden["landmarks/frontal"][:BATCH])
    return teach(case) | ({} if case == "no_scale" else {"box_warp_scale": teacher_box_scale(frontal).numpy()})


def align(golden: Arrays) -> Arrays:
    """Crops of motion encoder and identity network, and the motion embedding."""
    images, landmarks = stub_pictures("align/image", SIZE, 3, 4), torch.from_numpy(golden["landmarks/view"])
    crops, transforms = motion_crop(images, landmarks, reverse_y=True)
    return {
        "motion_matrices": transforms.numpy(),
        "motion_matrices_y_down": motion_crop(images, landmarks)[1].numpy(),
        "identity_matrices": identity_crop(images, landmarks, reverse_y=True)[1].numpy(),
        "motion_input": crops[..., ::8, ::8].numpy(),
        "embedding": stub_motion(crops).numpy(),
    }


def align_identity(golden: Arrays) -> Arrays:
    """Crops whose identities are compared."""
    landmarks = torch.from_numpy(golden["landmarks/view"][:BATCH])
    images = {"pred": pictures("pred/image_sr", SIZE), "target": pictures("real/target", SIZE)}
    return {
        f"aligned_{name}": identity_crop(image, landmarks, reverse_y=True)[0][..., ::4, ::4].numpy()
        for name, image in images.items()
    }


def schedule(golden: Arrays, case: str) -> Arrays:
    """Rays per side, and whether the discriminator takes part, over time."""
    initial, final, fade_kimg = SCHEDULES[case]
    seen = golden["schedule/nimg"].tolist()
    return {
        "resolution": np.array([render_resolution(n, initial, final, fade_kimg, ADVERSARIAL_KIMG) for n in seen]),
        "discriminator_active": np.array([has_started(n, ADVERSARIAL_KIMG) for n in seen]),
    }


def optimise(golden: Arrays, case: str) -> Arrays:
    """Adam's settings of each parameter group."""
    settings = golden[f"optimizer/{case}/settings"].tolist()
    momenta, (g_interval, d_interval, cross_scale) = settings[2:5], settings[5:]
    found = {}
    for group in (*OPTIMIZERS[case], "D"):
        rate, interval = (settings[1], d_interval) if group == "D" else (settings[0], g_interval)
        adam = lazy_settings(AdamSettings(rate, *momenta), int(interval) or None)
        scale = cross_scale if group == "G_cross" else 1.0
        found[f"{group}/lr_beta1_beta2_eps"] = np.array([adam.learning_rate * scale, adam.beta1, adam.beta2, adam.eps])
    return found


def computations(golden: Arrays) -> Iterator[tuple[str, Callable[[], Arrays]]]:
    """Yield each group's prefix and what computes its arrays."""
    yield from ((name, partial(generate, golden, name)) for name in G_CASES)
    yield "v1/identity", partial(align_identity, golden)
    yield from ((version, partial(judge, version)) for version in ("v1", "v2"))
    yield from ((f"v1/R1/{case}", partial(punish, case)) for case in R1_CASES)
    yield "v1/Greg", partial(smooth_densities, golden)
    yield from ((f"v2/Greg/{case}", partial(teacher_boxes, golden, case)) for case in ("shipped", "no_scale"))
    yield "v2/Greg/no_motion_aug", partial(teacher_boxes, golden, "no_motion_aug")
    yield "v2/box_warp", partial(box_scale, golden)
    yield "align", partial(align, golden)
    yield from ((f"schedule/{case}", partial(schedule, golden, case)) for case in SCHEDULES)
    yield from ((f"optimizer/{case}", partial(optimise, golden, case)) for case in OPTIMIZERS)


def criterion(array: str) -> Criterion:
    """Whole numbers exactly, gradients 1e-3, optimisers 1e-6, else 1e-4 of the largest value."""
    if array.endswith(("/resolution", "/discriminator_active")):
        return everywhere(0)
    if "/G/" in array and "/grad/" in array:
        return everywhere(1e-3)
    return everywhere(1e-6 if array.startswith("optimizer/") else 1e-4)


def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare every array that a group gives, and name the others."""
    del context
    golden = dict(np.load(path))
    left = {array for array in golden if not array.startswith("landmarks/") and not array.endswith(INPUTS)}
    for prefix, compute in computations(golden):
        found = {f"{prefix}/{name}": value for name, value in compute().items()}
        for array in (name for name in golden if name in found):
            left.discard(array)
            yield compare(path, array, found[array], golden[array], criterion(array))
    if left:
        print(f"{path.name}: not checked yet: {', '.join(a for a in golden if a in left)}")  # noqa: T201
