"""Whether gradients are wanted."""

import torch
from torch import Tensor


def is_tracked(*tensors: Tensor | None) -> bool:
    """Tell whether gradients with respect to any of these are wanted."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
