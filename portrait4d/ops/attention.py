"""Multi-head attention by the fastest route that PyTorch has on the device at hand.

Contract: softmax(q k^T d^(-1/2)) v for every head, d the width of a head. `attend_reference` says it in one line;
PyTorch's `scaled_dot_product_attention` serves wherever gradients, GPUs, tracing or few tokens are involved. On a CPU
without gradients it is slow: its matrix products run at half of the speed of the dense layers' in bfloat16. There,
blocks of queries go through the dense layers' products, one head at a time; a block's scores take 32 MB at most.
Scores of bfloat16 are rounded as all else: errors are 4e-3 of the result where they reach 5, 1.5e-2 where they reach
30, against 2e-3 of PyTorch's function.
On a GPU without gradients, heads wider than the flash kernels take (`_MAX_FLASH_WIDTH`) would go to kernels that
multiply slowly; there all scores of a sample are held, and both products are plain ones.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.ops.backend import fast_routes_serve, native_is_there
from portrait4d.ops.dense import is_plain_cpu, linear
from portrait4d.ops.gradients import is_tracked

_MIN_TOKENS = 512
_BLOCK_BYTES = 2**25
_LANES = 16
_MAX_FLASH_WIDTH = 256


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
    if query.device.type == "cuda" and query.shape[3] > _MAX_FLASH_WIDTH and not is_tracked(query, key, value):
        return _attend_at_once(query, key, value)
    return functional.scaled_dot_product_attention(query, key, value)


def attend_reference(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Do the same in one line, with all scores in memory."""
    return torch.softmax(query @ key.transpose(2, 3) * query.shape[3] ** -0.5, dim=3) @ value


def _attend_at_once(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Hold all scores of a sample, in the type of the tensors."""
    batch, heads, count, width = query.shape
    result = query.new_empty(batch, count, heads, width).transpose(1, 2)
    unused = query.new_empty(1, 1, 1)
    with torch.autocast(query.device.type, enabled=False):  # it would hold the scores in float32
        for sample in range(batch):
            scores = torch.baddbmm(unused, query[sample], key[sample].mT, beta=0, alpha=width**-0.5)
            result[sample] = torch.softmax(scores, dim=2) @ value[sample]
    return result


def _attend_in_blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    batch, heads, count, width = query.shape
    result = torch.empty(batch, count, heads, width, dtype=query.dtype).transpose(1, 2)
    block = _BLOCK_BYTES // query.dtype.itemsize // key.shape[2]
    for sample in range(batch):
        for head in range(heads):
            blocks = query[sample, head].split(block), result[sample, head].split(block)
            _attend_head(zip(*blocks, strict=True), key[sample, head], value[sample, head])
    return result


def _attend_head(blocks: Iterable[tuple[Tensor, Tensor]], keys: Tensor, values: Tensor) -> None:
    """Fill the results of one head's blocks of (queries, results) by the products of dense layers."""
    keys, values, scale = keys.contiguous(), values.T.contiguous(), keys.shape[1] ** -0.5
    for queries, result in blocks:
        shares = _soften(linear(queries.contiguous()[None], keys)[0], scale)
        result.copy_(linear(shares[None], values)[0])


def _soften(scores: Tensor, scale: float) -> Tensor:
    """Return the softmax of scaled scores (N, M), in their memory where that is faster."""
    if scores.shape[1] % _LANES == 0 and scores.is_contiguous() and native_is_there():
        return torch.ops.portrait4d.softmax_rows_(scores, scale)
    return torch.softmax(scores.mul_(scale), dim=1)
