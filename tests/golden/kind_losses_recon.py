"""losses-recon*.npz: both reconstructors' trainings with stubs for their networks (README-losses.md).

Here: R1, alignment, the teacher's box, schedules; `kind_recon_tasks` has what the tasks do, `kind_recon_optimisers`
their optimisers. Arrays of what is not built are named with the reason; any other that is not compared fails.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from portrait4d.geometry.face_alignment import identity_crop, motion_crop
from portrait4d.losses.adversarial import R1Weights, compute_r1, real_inputs
from portrait4d.losses.reconstruction import teacher_box_scale
from portrait4d.training.schedules import has_started, render_resolution
from tests.golden.comparison import Context, Criterion, Result, compare, everywhere
from tests.golden.kind_recon_optimisers import characters
from tests.golden.kind_recon_optimisers import computations as optimisers
from tests.golden.kind_recon_tasks import BATCH, SIZE, Arrays, pictures, target_mask
from tests.golden.kind_recon_tasks import computations as turns_of_tasks
from tests.helpers.loss_stubs import PICTURES, StubCritic, named_tensor, stub_motion
from tests.helpers.loss_stubs import pictures as stub_pictures

ADVERSARIAL_KIMG = 1000.0
D_GAIN = 16
R1_CASES = {"uv_seg": ("uv", "seg"), "uv": ("uv",), "seg": ("seg",), "none": ()}
SCHEDULES = {
    "v1": (64, 128, 1000.0),
    "v1_fade300_64_96": (64, 96, 300.0),
    "v2": (128, None, 1000.0),
    "v2_fade128_64": (128, 64, 1000.0),
}
INPUTS = ("_draws", "_draws0", "_draws1", "/settings", "schedule/nimg", "box_warp/landmarks")
NOT_BUILT = {
    r"motion_scale/.*_swap.*": "swapping source and driving, which no shipped configuration uses",
    r"motion_scale/B[35]_scale1_half1_none": "odd chunks of which half is still; they are refused",
    r"v1/Dmain/critic_update_emas": "moving averages in the discriminator; ours has none",
    r"v2/Dreg/multi_view_renders": "pseudo views in Dreg, which has no use for them",
    r"v2/Greg/no_motion_aug/camera": "its draws were not recorded",
    r"v2/switch/Greg_l1_backward_calls": "another kind of regularisation, with which v2 has none",
    r"optimizer/genhead_no_G_reg/phases": "the name Gboth of a generator's only phase; it is Gmain",
}
"""Names of arrays, as regular expressions, that are not checked, and why."""


def punish(case: str) -> Arrays:
    """R1 of a critic that takes only some of the pictures."""
    absent = {ours: None for name, ours in PICTURES.items() if name in ("uv", "seg") and name not in R1_CASES[case]}
    reals = real_inputs(pictures("real/target", SIZE), target_mask("v1"), pictures("real/uv", SIZE), 64)
    critic, weights = StubCritic(named_tensor("c_compose", (BATCH, 25), 1)), R1Weights(1.5, 7.0, 3.0, mask_alone=True)
    penalty = compute_r1(critic, replace(reals, **absent), weights)
    return {
        "image": penalty.image.detach().numpy(),
        "weighted": penalty.weighted.detach().numpy(),
        "backward": np.array([penalty.weighted.mean().item() * D_GAIN]),
    }


def box_scale(golden: Arrays) -> Arrays:
    """Teacher's box from landmarks 36 to 47."""
    landmarks = functional.pad(torch.from_numpy(golden["v2/box_warp/landmarks"]).flatten(0, 1), (0, 0, 36, 0))
    return {"scale": teacher_box_scale(landmarks).unflatten(0, (12, 2)).numpy()}


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


def computations(golden: Arrays) -> Iterator[tuple[str, Callable[[], Arrays]]]:
    """Yield each group's prefix and what computes its arrays."""
    yield from turns_of_tasks(golden)
    yield from optimisers(golden)
    yield "v1/identity", partial(align_identity, golden)
    yield from ((f"v1/R1/{case}", partial(punish, case)) for case in R1_CASES)
    yield "v2/box_warp", partial(box_scale, golden)
    yield "align", partial(align, golden)
    yield from ((f"schedule/{case}", partial(schedule, golden, case)) for case in SCHEDULES)


def criterion(array: str) -> Criterion:
    """Whole numbers, names: exactly; gradients 1e-3, cameras 5e-4, optimisers 1e-6, else 1e-4 of the largest value."""
    if re.search(r"/(resolution|discriminator_active|phases|intervals|tensors_elements|G_cross_names)$", array):
        return everywhere(0)
    if "/G/" in array and "/grad/" in array:
        return everywhere(1e-3)
    if array.endswith("camera"):
        return everywhere(5e-4)
    return everywhere(1e-6 if array.startswith("optimizer/") else 1e-4)


def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare every array that a group gives, and name those of what is not built."""
    del context
    golden = dict(np.load(path))
    left = {array for array in golden if not array.startswith("landmarks/") and not array.endswith(INPUTS)}
    for prefix, compute in computations(golden):
        found = {f"{prefix}/{name}": value for name, value in compute().items()}
        for array in (name for name in golden if name in found):
            left.discard(array)
            theirs = golden[array] if golden[array].dtype.kind != "U" else characters(golden[array])
            yield compare(path, array, found[array], theirs, criterion(array))
    for pattern, reason in NOT_BUILT.items():
        arrays = {array for array in left if re.fullmatch(pattern, array)}
        print(f"{path.name}: {len(arrays)} arrays {pattern} not checked: {reason}")  # noqa: T201
        left -= arrays
    for array in sorted(left):
        yield Result(path.name, array, np.inf, np.inf, False, "nothing of ours is compared with it")
