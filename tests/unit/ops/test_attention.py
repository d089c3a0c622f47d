"""Attention by blocks gives the textbook's results, and stands aside for gradients and few tokens."""

import pytest
import torch
from torch import Tensor

from portrait4d.ops import attention
from portrait4d.ops.attention import attend, attend_reference
from portrait4d.ops.backend import textbook_forms
from tests.helpers.native import DEVICES


def random_tokens(batch: int, heads: int, queries: int, keys: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value, the query with strides as a projection leaves them."""
    generator = torch.Generator().manual_seed(queries)
    query = torch.randn(batch, queries, heads, width, generator=generator).transpose(1, 2)
    return query, *(torch.randn(batch, heads, keys, width, generator=generator) for _ in range(2))


@pytest.mark.parametrize("sizes", [(1, 1, 512, 512, 32), (2, 2, 700, 513, 16), (1, 2, 1025, 600, 24), (2, 1, 5, 3, 8)])
def test_attention_equals_the_textbook(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_BLOCK_BYTES", 2**20)
    query, key, value = random_tokens(*sizes)
    expected = attend_reference(query.double(), key.double(), value.double())
    with torch.no_grad():
        torch.testing.assert_close(attend(query, key, value).double(), expected, atol=1e-5, rtol=0)
        half = attend(query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.double() - expected).square().mean().sqrt() < 0.02 * expected.std()


@pytest.mark.parametrize("device", DEVICES)
def test_wide_heads_hold_all_scores(device: str) -> None:
    tokens = [tensor.to(device) for tensor in random_tokens(2, 2, 70, 40, 264)]
    expected = attend_reference(*(tensor.cpu().double() for tensor in tokens))
    with torch.no_grad():
        for result in (attention._attend_at_once(*tokens), attend(*tokens)):
            torch.testing.assert_close(result.cpu().double(), expected, atol=1e-5, rtol=0)
        half = attention._attend_at_once(*(tensor.bfloat16() for tensor in tokens))
    assert half.dtype == torch.bfloat16 and half.transpose(1, 2).is_contiguous()
    assert (half.cpu().double() - expected).square().mean().sqrt() < 0.02 * expected.std()


def test_one_key_gives_its_value() -> None:
    query, key, value = random_tokens(1, 2, 6, 1, 4)
    torch.testing.assert_close(attend(query, key, value), value.expand(-1, -1, 6, -1))


def test_attention_has_gradients() -> None:
    query, key, value = (tensor.requires_grad_() for tensor in random_tokens(1, 1, 600, 600, 8))
    attend(query, key, value).square().sum().backward()
    ours = query.grad.clone()
    query.grad = None
    with textbook_forms():
        attend(query, key, value).square().sum().backward()
    torch.testing.assert_close(ours, query.grad, atol=1e-5, rtol=1e-4)
