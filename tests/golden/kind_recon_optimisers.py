"""losses-recon*.npz, optimisers: which groups the shipped networks have, with which settings (README-losses.md)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch
from torch import nn

from portrait4d.config.gan_networks import DiscriminatorConfig, GenHeadConfig
from portrait4d.config.load import load_config
from portrait4d.config.networks import ReconstructorConfig
from portrait4d.config.recon_training import ReconV1Training, ReconV2Training
from portrait4d.config.training import DensityConfig, GenHeadTraining
from portrait4d.models.discriminator import Discriminator
from portrait4d.models.genhead import GenHead
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.models.upstream_names import rename_reconstructor
from portrait4d.training.recon_task import parameter_groups
from portrait4d.training.schedules import lazy_interval
from portrait4d.training.tasks import build_adam, lazy_phases
from tests.golden.cases import standin_head

Arrays = dict[str, np.ndarray]

WITHOUT_EFFECT = [3, 6, 1, 1, 1, 1]
"""Sizes of published parameters that nothing depends on and that ours lack: the head model's own neck and eye pose,
four strengths of noise that super-resolution does not add."""
OPTIMISED = {
    "genhead": ("genhead-ffhq512.yaml", GenHeadTraining, {}),
    "genhead_no_G_reg": ("genhead-ffhq512.yaml", GenHeadTraining, {"density": DensityConfig(weight=0.0)}),
    "v1": ("portrait4d-genhead512.yaml", ReconV1Training, {}),
    "v2": ("portrait4d-v2-vfhq512.yaml", ReconV2Training, {}),
}


@lru_cache(maxsize=1)
def shipped_networks() -> dict[str, nn.Module]:
    """Build the networks in the shipped sizes, without memory for their weights."""
    head = standin_head()
    with torch.device("meta"):
        return {
            "reconstructor": Reconstructor(ReconstructorConfig(), head),
            "genhead": GenHead(GenHeadConfig(), head),
            "D": Discriminator(DiscriminatorConfig()),
        }


def optimise(case: str) -> Arrays:
    """Phases and optimisers of a shipped configuration: Adam's settings of each group, how much is in it."""
    file, kind, changes = OPTIMISED[case]
    config = replace(load_config(kind, file), **changes)
    if kind is ReconV2Training:
        lazy = lazy_interval(config.pseudo.novel_view_weight, config.pseudo.interval)
    else:
        lazy = lazy_interval(config.density.weight, config.density.interval)
    networks, d_lazy = shipped_networks(), config.adversarial.interval
    phases = [*lazy_phases("G", lazy), *lazy_phases("D", d_lazy)]
    groups = [{"name": "G", "params": list(networks["genhead"].parameters())}]
    if kind is not GenHeadTraining:
        groups = parameter_groups(networks["reconstructor"], config.cross_lr_scale)
    found = {"intervals": np.array([phase.interval for phase in phases])}
    if lazy:
        found["phases"] = characters([phase.name for phase in phases])
    sides = (
        (groups, config.optim.generator_lr, lazy),
        (
            [{"name": "D", "params": list(networks["D"].parameters())}],
            config.optim.discriminator_lr,
            d_lazy,
        ),
    )
    for own, rate, interval in sides:
        stand_ins = [group | {"params": [nn.Parameter(torch.zeros(1))]} for group in own]
        adam = build_adam(stand_ins, config.optim, rate, interval)
        for group, settings in zip(own, adam.param_groups, strict=True):
            name, sizes = group["name"], [parameter.numel() for parameter in group["params"]]
            sizes += WITHOUT_EFFECT if name in ("G", "G_base") else []
            found[f"{name}/tensors_elements"] = np.array([len(sizes), sum(sizes)])
            found[f"{name}/lr_beta1_beta2_eps"] = np.array([settings["lr"], *settings["betas"], settings["eps"]])
    return found


def name_cross_layers(golden: Arrays) -> Arrays:
    """Return the published names of group G_cross, as far as those of our parameters that translate to ours."""
    network = shipped_networks()["reconstructor"]
    group = {id(parameter) for parameter in parameter_groups(network, 1.0)[0]["params"]}
    ours = {name for name, parameter in network.named_parameters() if id(parameter) in group}
    recorded = golden["optimizer/G_cross_names"].tolist()
    translated = {rename_reconstructor(name) for name in recorded}
    left = sorted(ours - translated)
    return {"G_cross_names": characters([name for name in recorded if rename_reconstructor(name) in ours] + left)}


def characters(names: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return names as numbers, which can be compared: (N, 64)."""
    return np.asarray(names, "<U64").view(np.uint32).reshape(len(names), 64)


def computations(golden: Arrays) -> Iterator[tuple[str, Callable[[], Arrays]]]:
    """Yield each group's prefix and what computes its arrays."""
    yield from ((f"optimizer/{case}", partial(optimise, case)) for case in OPTIMISED)
    yield "optimizer", partial(name_cross_layers, golden)
