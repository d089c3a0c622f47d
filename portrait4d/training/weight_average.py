"""The averaged twin of a network under training (training-genhead.md §5, last paragraph)."""

import torch
from torch import nn


@torch.no_grad()
def update_weight_average(average: nn.Module, network: nn.Module, beta: float) -> None:
    """Let the averaged network follow the trained one: parameters p_avg <- p + beta (p_avg - p), buffers are copied.

    Args:
        average: changed in place.
        network: of the same architecture.
        beta: share of the old average that is kept, see `average_beta`; 0 copies.

    Raises:
        ValueError: if the two have different parameters or buffers.
    """
    for kind in ("parameters", "buffers"):
        ours, theirs = (dict(getattr(module, f"named_{kind}")()) for module in (average, network))
        if ours.keys() != theirs.keys():
            different = sorted(ours.keys() ^ theirs.keys())
            raise ValueError(f"average: expected the {kind} of the network, got a difference in {different[:3]}")
        if ours and kind == "parameters":
            torch._foreach_lerp_(list(ours.values()), [theirs[name] for name in ours], 1 - beta)
        elif ours:
            torch._foreach_copy_(list(ours.values()), [theirs[name] for name in ours])
