"""losses-genhead*.npz: every term of GenHead's training with stubs for its networks (README-losses.md).

Each group of arrays has a function here that puts our pieces together in the order of training-genhead.md §5 and §7.
Arrays that no function gives are failures, but for the recorded inputs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from portrait4d.losses.adversarial import (
    R1Weights,
    blur_fakes,
    compute_r1,
    fake_verdict_loss,
    real_inputs,
    real_verdict_loss,
)
from portrait4d.losses.regularizers import (
    PartPenalties,
    density_roughness,
    eye_and_mouth_penalties,
    pair_points,
)
from portrait4d.models.discriminator import DiscriminatorInput
from portrait4d.rendering.part_renderer import PartRays
from portrait4d.training.conditioning import swap_conditioning
from portrait4d.training.schedules import (
    average_beta,
    blur_sigma,
    lazy_interval,
    render_resolution,
    scale_kimg,
    swap_probability,
)
from portrait4d.training.weight_average import update_weight_average
from tests.golden.comparison import Context, Criterion, Result, compare, everywhere
from tests.helpers.loss_stubs import PICTURES, StubCritic, named_tensor, pictures, stub_densities

Arrays = dict[str, np.ndarray]

BATCH, SIZE, RESOLUTION = 3, 512, 64
BLUR_KIMG, SWAP_FINAL, SWAP_KIMG = 200.0, 0.5, 1000.0
D_GAIN, G_GAIN = 16, 4
DENSITY_WEIGHT, DENSITY_SPREAD = 0.25, 0.004 * 1.3
WEIGHTS = R1Weights(1.0, 10.0, 1.0)
D_CASES = {"sigma10": 0, "sigma5": 100_000, "sigma0.5": 190_000, "sigma0": 250_000, "r96": 500_000}
G_CASES = {"early": (0, 1), "mid": (500_000, 1), "late": (1_500_000, 2), "uncond": (1_500_000, 1)}
"""Images seen and gain."""
R1_CASES = {"uv_seg": ("uv", "seg"), "uv": ("uv",), "seg": ("seg",), "none": ()}
SCHEDULES = {
    "shipped": (200.0, 1000.0, None, 0.0),
    "resumed": (0.0, 0.0, None, 0.0),
    "toy": (scale_kimg(200.0, 4), 1000.0, None, 0.0),
    "fade64_128": (200.0, 1000.0, 128, 1000.0),
    "fade64_96_300": (200.0, 1000.0, 96, 300.0),
}
"""Blur's and swapping's fade, final resolution and its fade."""
EMA_CASES = {"shipped": (32, 0.05), "toy": (4, 0.05), "resumed": (32, None)}
INPUTS = ("rays/", "G/early/swap_draws", "G/mid/swap_draws", "G/late/swap_draws",
          "Greg/coin", "Greg/late_coin", "Greg/uniform_draws", "Greg/normal_draws", "schedule/nimg")  # fmt: skip


def cut(name: str, picture: Tensor) -> np.ndarray:
    """Return the stored part of a 512-pixel or raw picture."""
    step = 16 if name in ("image_sr", "uv") else 4
    return picture.detach()[..., ::step, ::step].numpy()


def seen_resolution(case: str) -> int:
    """Return the raw resolution of a case of D."""
    return render_resolution(D_CASES[case], RESOLUTION, 128) if case == "r96" else RESOLUTION


def reals_at(images_seen: int, resolution: int = RESOLUTION) -> DiscriminatorInput:
    """Prepare the real pictures as the discriminator sees them."""
    mask = torch.where(pictures("real/seg", SIZE) >= 0, 1.0, -1.0)
    sigma = blur_sigma(images_seen, BLUR_KIMG)
    return real_inputs(pictures("real/image", SIZE), mask, pictures("real/uv", SIZE), resolution, sigma)


def raw_fakes(resolution: int = RESOLUTION) -> DiscriminatorInput:
    """Return what the generator stub gives."""
    return DiscriminatorInput(
        pictures("fake/image_sr", SIZE),
        pictures("fake/image", resolution),
        pictures("fake/uv", SIZE),
        pictures("fake/seg", resolution, 1),
    )


def fake_critic() -> StubCritic:
    """Build a critic told the fakes' camera."""
    return StubCritic(named_tensor("c_compose", (BATCH, 25), 1))


def real_critic(like: StubCritic | None = None) -> StubCritic:
    """Build a critic told the reals' camera, with the gains of another."""
    critic = StubCritic(named_tensor("real_c", (BATCH, 25), 1))
    if like is not None:
        critic.gains = like.gains
    return critic


def values(*losses: Tensor) -> np.ndarray:
    """Return what was handed to back-propagation."""
    return np.array([loss.item() for loss in losses])


def judge(case: str) -> Arrays:
    """Dmain and Dreg of a case, and what the critic sees."""
    images_seen, resolution = D_CASES[case], seen_resolution(case)
    critic, reals = fake_critic(), reals_at(images_seen, resolution)
    fakes = blur_fakes(raw_fakes(resolution), blur_sigma(images_seen, BLUR_KIMG))
    scores = critic(fakes), real_critic(critic)(reals)
    losses = fake_verdict_loss(scores[0]), real_verdict_loss(scores[1])
    backward = [loss.mean() for loss in losses]
    for loss in backward:
        loss.backward()
    regularised = real_critic()
    penalty = compute_r1(regularised, reals, WEIGHTS)
    lazy = penalty.weighted.mean() * D_GAIN
    lazy.backward()
    seen = {
        f"{kind}_in/{name}": cut(name, getattr(inputs, ours))
        for kind, inputs in (("fake", fakes), ("real", reals))
        for name, ours in PICTURES.items()
    }
    return seen | {
        "scores_fake": scores[0].detach().numpy(),
        "scores_real": scores[1].detach().numpy(),
        "loss_per_sample": sum(losses).detach().numpy(),
        "main_backward": values(*backward),
        "main_gain_grad": critic.gains.grad.numpy(),
        "r1_image": penalty.image.detach().numpy(),
        "r1_weighted": penalty.weighted.detach().numpy(),
        "reg_backward": values(lazy),
        "reg_gain_grad": regularised.gains.grad.numpy(),
    }


def judge_at_once() -> Arrays:
    """Phase Dboth: the penalty and the verdict on reals from one evaluation."""
    critic, images_seen = fake_critic(), D_CASES["sigma0"]
    fake = fake_verdict_loss(critic(blur_fakes(raw_fakes(), blur_sigma(images_seen, BLUR_KIMG)))).mean()
    fake.backward()
    penalty = compute_r1(real_critic(critic), reals_at(images_seen), WEIGHTS)
    real = (real_verdict_loss(penalty.logits)[:, 0] + penalty.weighted).mean()
    real.backward()
    return {"backward": values(fake, real), "gain_grad": critic.gains.grad.numpy()}


def punish(case: str) -> Arrays:
    """R1 of a critic that takes only some of the pictures."""
    absent = {ours: None for name, ours in PICTURES.items() if name in ("uv", "seg") and name not in R1_CASES[case]}
    penalty = compute_r1(real_critic(), replace(reals_at(D_CASES["sigma0"]), **absent), R1Weights(1.5, 7.0, 3.0))
    return {
        "image": penalty.image.detach().numpy(),
        "weighted": penalty.weighted.detach().numpy(),
        "backward": values(penalty.weighted.mean() * D_GAIN),
    }


def recorded_rays(golden: Arrays) -> dict[str, Tensor]:
    """Return the recorded rays as leaves that gradients are wanted of."""
    names = ("interval", "T_bg", "densities_face_ineye", "densities_face_inmouth", "all_weights")
    return {name: torch.from_numpy(golden[f"rays/{name}"]).requires_grad_() for name in names}


def part_terms(golden: Arrays, rays: dict[str, Tensor]) -> tuple[PartPenalties, PartPenalties]:
    """Compute the terms of eyes and mouth of the recorded rays."""
    unused = torch.empty(0)
    part_rays = PartRays(
        features=unused,
        depth=unused,
        transmittance=rays["T_bg"].flatten(1),
        distances=rays["interval"],
        weights=rays["all_weights"],
        surface_distances=unused,
        face_densities_in_eyes=rays["densities_face_ineye"][..., 0],
        face_densities_in_mouth=rays["densities_face_inmouth"][..., 0],
        coarse_eye_weights=unused,
        coarse_points=unused,
        coarse_face_features=unused,
    )
    masks = (torch.from_numpy(golden[f"rays/{part}_mask"]) for part in ("eye", "mouth"))
    return eye_and_mouth_penalties(part_rays, *masks)


def generate(golden: Arrays, case: str) -> Arrays:
    """Gmain of a case, its gradients on the prediction, and the conditioning of the mapping network."""
    images_seen, gain = G_CASES[case]
    rays, fakes = recorded_rays(golden), raw_fakes()
    leaves = {name: getattr(fakes, name).clone().requires_grad_() for name in ("image_sr", "image", "mask")}
    critic = fake_critic()
    scores = critic(blur_fakes(replace(fakes, **leaves), blur_sigma(images_seen, BLUR_KIMG)))
    adversarial = real_verdict_loss(scores)
    eye, mouth = part_terms(golden, rays)
    total = gain * (adversarial.mean() + sum(term.mean() for term in (*eye, *mouth)))
    total.backward()
    final = None if case == "uncond" else SWAP_FINAL
    conditioning = swap_conditioning(
        torch.cat([critic.camera, named_tensor("shape", (BATCH, 300), 0.6)], dim=1),
        torch.from_numpy(golden["G/late/swap_draws" if final is None else f"G/{case}/swap_draws"]),
        swap_probability(images_seen, final, SWAP_KIMG),
    )
    terms = {"adversarial": adversarial}
    for part, penalties in (("eye", eye), ("mouth", mouth)):
        terms |= {f"{name}_{part}": term[:, None] for name, term in penalties._asdict().items()}
    gradients = {f"grad/{name}": tensor.grad.numpy() for name, tensor in rays.items()}
    for name, ours in (("image_sr", "image_sr"), ("image", "image"), ("seg", "mask")):
        gradients[f"grad/{name}"] = cut(name, leaves[ours].grad)
    return {name: term.detach().numpy() for name, term in (terms | {"scores": scores}).items()} | gradients | {
        "backward": values(total),
        "condition": conditioning.numpy(),
    }  # fmt: skip


def regularise(golden: Arrays) -> Arrays:
    """Greg: points, roughness of three fields and of one, and the conditioning with one coin for all."""
    draws = (torch.from_numpy(golden[f"Greg/{kind}_draws"]) for kind in ("uniform", "normal"))
    points = pair_points(*draws, DENSITY_SPREAD)
    found = {"points": points.numpy()}
    for name, fields in (("three", 3), ("one", 1)):
        scales = torch.ones(3, requires_grad=True)
        loss = DENSITY_WEIGHT * density_roughness(stub_densities(points, scales)[:fields])
        (loss * G_GAIN).backward()
        found[f"{name}/loss"] = loss.detach().numpy()
        found[f"{name}/backward"] = values(loss * G_GAIN)
        found[f"{name}/scale_grad"] = scales.grad.numpy()
    conditioning = torch.cat(
        [named_tensor("c_compose", (BATCH, 25), 1), named_tensor("shape", (BATCH, 300), 0.6)], dim=1
    )
    coin = torch.from_numpy(golden["Greg/late_coin"]).reshape(1, 1)
    probability = swap_probability(2_000_000, SWAP_FINAL, SWAP_KIMG)
    return found | {"late_condition": swap_conditioning(conditioning[:2], coin, probability).numpy()}


def switch_off() -> Arrays:
    """Count the back-propagations of regularisations without weight."""
    return {
        "Dreg_without_gamma_backward_calls": np.int64(R1Weights(image=0.0).active),
        "Greg_without_density_reg_backward_calls": np.int64(lazy_interval(0.0, G_GAIN) is not None),
    }


def schedule(golden: Arrays, case: str) -> Arrays:
    """Blur, swapping and resolution over time."""
    blur_kimg, swap_kimg, final, fade_kimg = SCHEDULES[case]
    seen = golden["schedule/nimg"].tolist()
    return {
        "sigma": np.array([blur_sigma(n, blur_kimg) for n in seen]),
        "swap": np.array([swap_probability(n, SWAP_FINAL, swap_kimg) for n in seen]),
        "resolution": np.array([render_resolution(n, RESOLUTION, final, fade_kimg) for n in seen]),
    }


def average(golden: Arrays, case: str) -> Arrays:
    """Weight average: its beta over time, and a step of it."""
    batch, ramp_up = EMA_CASES[case]
    half_life = scale_kimg(10.0, batch)
    modules = [nn.Module(), nn.Module()]
    for module, weight, buffer in zip(modules, ([-1.0, 0, 5], [1.0, 2, 3]), ([0.0, 0, 0], [4.0, 5, 6]), strict=True):
        module.register_parameter("weight", nn.Parameter(torch.tensor(weight)))
        module.register_buffer("buffer", torch.tensor(buffer))
    update_weight_average(*modules, average_beta(1000, batch, half_life, ramp_up))
    return {
        "beta": np.array([average_beta(n, batch, half_life, ramp_up) for n in golden["schedule/nimg"].tolist()]),
        "weight_after": modules[0].weight.detach().numpy(),
        "buffer_after": modules[0].buffer.numpy(),
    }


def computations(golden: Arrays) -> Iterator[tuple[str, Callable[[], Arrays]]]:
    """Yield each group's prefix and what computes its arrays."""
    yield from ((f"D/{case}", partial(judge, case)) for case in D_CASES)
    yield "D/both", judge_at_once
    yield from ((f"R1/{case}", partial(punish, case)) for case in R1_CASES)
    yield from ((f"G/{case}", partial(generate, golden, case)) for case in G_CASES)
    yield "Greg", partial(regularise, golden)
    yield "switch", switch_off
    yield from ((f"schedule/{case}", partial(schedule, golden, case)) for case in SCHEDULES)
    yield from ((f"ema/{case}", partial(average, golden, case)) for case in EMA_CASES)


def criterion(array: str) -> Criterion:
    """Schedules to 1e-9, whole numbers and copies exactly, else 1e-4 of the largest value."""
    if array.endswith(("/resolution", "_calls", "/buffer_after")):
        return everywhere(0)
    return everywhere(1e-9 if array.startswith("schedule/") or array.endswith("/beta") else 1e-4)


def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare every array; one that nothing here computes is a failure."""
    del context
    golden = dict(np.load(path))
    left = {array for array in golden if not array.startswith(INPUTS)}
    for prefix, compute in computations(golden):
        found = {f"{prefix}/{name}": value for name, value in compute().items()}
        for array in (name for name in golden if name in found):
            left.discard(array)
            yield compare(path, array, found[array], golden[array], criterion(array))
        yield from unstored_inputs(path, found, golden, prefix)
    for array in sorted(left):
        yield Result(path.name, array, np.inf, np.inf, False, "nothing computes it")


def unstored_inputs(path: Path, found: Arrays, golden: Arrays, prefix: str) -> Iterator[Result]:
    """Compare what critics see where it is not stored because it equals that of the first case."""
    for array, ours in found.items():
        twin = array.replace(prefix, "D/sigma10")
        if array not in golden and "_in/" in array:
            yield compare(path, array, ours, golden[twin], criterion(array))
