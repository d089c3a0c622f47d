"""Weights and names of the published reconstructor for conformance tests: manifest, fills, and our name table."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from torch import nn

from portrait4d.models.upstream_names import rename_reconstructor
from portrait4d.ops.upfirdn2d import build_filter

_MANIFEST = Path(__file__).parents[1] / "golden" / "manifest-reconstructor.json"

Fill = Callable[[Mapping[str, tuple[int, ...]]], dict[str, torch.Tensor]]


@cache
def published_shapes() -> dict[str, tuple[int, ...]]:
    """Return {published name: shape} of every tensor of the reconstructor but the deformer's."""
    manifest = json.loads(_MANIFEST.read_text())
    rows = manifest["filled"] + manifest["derived"]
    return {row[0]: tuple(row[1]) for row in rows if not row[0].startswith("deformer.")}


def filled_module(build: Callable[[], nn.Module], published: str, fill: Fill) -> nn.Module:
    """Build a module and give it the fill of the published sub-network of that name; FIR filters keep their values."""
    shapes = {name.split(".", 1)[1]: s for name, s in published_shapes().items() if name.startswith(f"{published}.")}
    state = {}
    for name, value in fill(shapes).items():
        ours = rename_reconstructor(f"{published}.{name}")
        if ours is not None:
            state[ours.split(".", 1)[1]] = value
    with torch.device("meta"):
        module = build()
    state |= {name: build_filter() for name in module.state_dict() if name.endswith("resample_filter")}
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def summarise(output: torch.Tensor) -> list[float]:
    """Return mean, unbiased std and the flat elements 0, n/3, n/2, n - 1 (networks-reconstructor.md §12)."""
    flat = output.double().flatten()
    n = flat.numel()
    return [flat.mean().item(), flat.std().item(), *(flat[i].item() for i in (0, n // 3, n // 2, n - 1))]
