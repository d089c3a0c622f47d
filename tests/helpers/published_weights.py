"""Weights and names of the published networks for conformance tests: manifests, fills, and our name tables."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from torch import nn

from portrait4d.models.upstream_names import rename_reconstructor
from portrait4d.ops.upfirdn2d import build_filter

_GOLDEN = Path(__file__).parents[1] / "golden"

Fill = Callable[[Mapping[str, tuple[int, ...]]], dict[str, torch.Tensor]]


@cache
def published_shapes(network: str = "reconstructor") -> dict[str, tuple[int, ...]]:
    """Return {published name: shape} of every tensor of a network ("reconstructor", ...) but the deformer's."""
    manifest = json.loads((_GOLDEN / f"manifest-{network}.json").read_text())
    rows = manifest["filled"] + manifest["derived"]
    return {row[0]: tuple(row[1]) for row in rows if not row[0].startswith("deformer.")}


def filled_module(build: Callable[[], nn.Module], published: str, fill: Fill) -> nn.Module:
    """Build a module and give it the fill of the published sub-network of that name; FIR filters keep their values."""
    state = filled_state("reconstructor", f"{published}.", fill, rename_reconstructor)
    return load_filled(build, {name.split(".", 1)[1]: value for name, value in state.items()})


def filled_state(network: str, prefix: str, fill: Fill, rename: Callable[[str], str | None]) -> dict[str, torch.Tensor]:
    """Return the fill of the published sub-network whose names start with `prefix`, by our names."""
    shapes = published_shapes(network)
    own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    state = {rename(prefix + name): value for name, value in fill(own).items()}
    state.pop(None, None)
    return state


def load_filled(build: Callable[[], nn.Module], state: dict[str, torch.Tensor]) -> nn.Module:
    """Build a module with these tensors, strictly; FIR filters keep their values."""
    with torch.device("meta"):
        module = build()
    state = state | {name: build_filter() for name in module.state_dict() if name.endswith("resample_filter")}
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def summarise(output: torch.Tensor) -> list[float]:
    """Return mean, unbiased std and the flat elements 0, n/3, n/2, n - 1 (networks-reconstructor.md §12)."""
    flat = output.double().flatten()
    n = flat.numel()
    return [flat.mean().item(), flat.std().item(), *(flat[i].item() for i in (0, n // 3, n // 2, n - 1))]
