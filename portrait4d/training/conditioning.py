"""What the generator's mapping network is told: sometimes another head's camera and identity (training-genhead.md §7).

A generator that always knew the camera would paint the face for it; told a wrong one with a certain probability, it
must be right from everywhere.
"""

import torch
from torch import Tensor


def swap_conditioning(conditioning: Tensor, draws: Tensor, probability: float | None) -> Tensor:
    """Replace the conditioning of samples by that of their predecessor in the chunk (the last one's for the first).

    Args:
        conditioning: (B, C).
        draws: (B, 1), or (1, 1) to decide for all at once, in [0, 1); below `probability` means replaced.
        probability: of `swap_probability`; None: no conditioning, zeros.

    Returns:
        (B, C).

    Raises:
        ValueError: on another number of draws.
    """
    if draws.shape not in ((len(conditioning), 1), (1, 1)):
        raise ValueError(f"draws: expected shape ({len(conditioning)}, 1) or (1, 1), got {tuple(draws.shape)}")
    if probability is None:
        return torch.zeros_like(conditioning)
    return torch.where(draws < probability, conditioning.roll(1, dims=0), conditioning)


def sample_conditioning(
    conditioning: Tensor,
    probability: float | None,
    one_coin: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Swap conditionings (B, C) at random, see `swap_conditioning`.

    Args:
        conditioning: (B, C).
        probability: of a swap; None: zeros.
        one_coin: decide once for the whole chunk, as the density regularisation does.
        generator: source of the draws, on the conditioning's device.
    """
    if probability is None:
        return torch.zeros_like(conditioning)
    count = 1 if one_coin else len(conditioning)
    draws = torch.rand((count, 1), generator=generator, device=conditioning.device)
    return swap_conditioning(conditioning, draws, probability)
