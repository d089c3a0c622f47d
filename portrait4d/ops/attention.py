"""Multi-head attention by the fastest route that PyTorch has on the device at hand.

Contract: softmax(q k^T d^(-1/2)) v for every head, d the width of a head. `attend_reference` says it in one line;
PyTorch's `scaled_dot_product_attention` serves wherever gradients, GPUs, tracing or few tokens are involved. On a CPU
without gradients it is slow: its matrix products run at half of the speed of the dense layers' in bfloat16. There,
blocks of queries go through the dense layers' products, one head at a time; the scores of a block stay in the cache.
"""

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.ops.backend import fast_routes_serve
from portrait4d.ops.dense import is_plain_cpu, linear

_MIN_TOKENS = 512
_BLOCK = 2048


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend to values.

    Args:
        query: (B, heads, N, d).
        key: (B, heads, M, d).
        value: (B, heads, M, d).

    Returns:
        (B, heads, N, d).
    """
    if not fast_routes_serve():
        return attend_reference(query, key, value)
    if min(query.shape[2], key.shape[2]) >= _MIN_TOKENS and is_plain_cpu(query, key, value):
        return _attend_in_blocks(query, key, value)
    return functional.scaled_dot_product_attention(query, key, value)


def attend_reference(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Do the same in one line, with all scores in memory."""
    return torch.softmax(query @ key.transpose(2, 3) * query.shape[3] ** -0.5, dim=3) @ value


def _attend_in_blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    batch, heads, count, width = query.shape
    result = torch.empty(batch, count, heads, width, dtype=query.dtype).transpose(1, 2)
    scaled = query * width**-0.5
    for sample in range(batch):
        for head in range(heads):
            keys, values = key[sample, head].contiguous(), value[sample, head].T.contiguous()
            for block, target in zip(
                scaled[sample, head].split(_BLOCK), result[sample, head].split(_BLOCK), strict=True
            ):
                shares = torch.softmax(linear(block.contiguous()[None], keys), dim=2)
                target.copy_(linear(shares, values)[0])
    return result
