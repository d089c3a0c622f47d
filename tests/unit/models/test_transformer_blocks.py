"""Transformer blocks: formulas written out, order of execution, layouts, initial values, gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from portrait4d.models.transformer_blocks import (
    Block,
    CrossAttention,
    CrossBlock,
    MixMLP,
    PatchEmbedding,
    SelfAttention,
    initialise_weights,
    picture_from_tokens,
    tokens_from_picture,
)
from tests.helpers.waves import wave

GRID = (4, 6)


def randomise(module: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def written_out_attention(layer: CrossAttention, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    dim = tokens.shape[-1]
    size = dim // layer.heads
    query, key_value = layer.query(tokens), layer.key_value(context)
    key, value = key_value[..., :dim], key_value[..., dim:]
    heads = []
    for h in range(layer.heads):
        part = slice(h * size, (h + 1) * size)
        weights = (query[..., part] @ key[..., part].mT / math.sqrt(size)).softmax(-1)
        heads.append(weights @ value[..., part])
    return layer.output(torch.cat(heads, -1))


def test_tokens_and_channels_last_pictures_share_memory():
    tokens = wave(1, 24, 8)
    picture = picture_from_tokens(tokens, GRID)
    assert picture.shape == (1, 8, *GRID)
    assert picture.stride() == tokens.view(1, *GRID, 8).permute(0, 3, 1, 2).stride()
    assert picture.data_ptr() == tokens.data_ptr()
    assert tokens_from_picture(picture).data_ptr() == tokens.data_ptr()
    assert torch.equal(tokens_from_picture(picture), tokens)
    assert torch.equal(picture[0, :, 1, 2], tokens[0, 8])


def test_patch_embedding():
    layer = randomise(PatchEmbedding(3, 8))
    picture = wave(3, 3, 7, 10)
    tokens, grid = layer(picture)
    assert grid == (4, 5)
    patches = F.conv2d(picture, layer.projection.weight, layer.projection.bias, stride=2, padding=1)
    centred = patches - patches.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(tokens, normal.flatten(2).mT * layer.norm.weight + layer.norm.bias)


def test_cross_attention_equals_its_formula():
    layer = randomise(CrossAttention(12, 3))
    tokens, context = wave(3, 24, 12), wave(3, 5, 12, frequency=0.9)
    torch.testing.assert_close(layer(tokens, context), written_out_attention(layer, tokens, context))


def test_self_attention_equals_its_formula():
    layer = randomise(SelfAttention(12, 2))
    tokens = wave(3, 24, 12)
    torch.testing.assert_close(layer(tokens, GRID), written_out_attention(layer, tokens, tokens))


def test_reduced_keys_come_from_a_coarser_grid():
    layer = randomise(SelfAttention(12, 2, key_reduction=2))
    tokens = wave(3, 24, 12)
    picture = tokens.mT.reshape(3, 12, *GRID)
    coarse = F.conv2d(picture, layer.reduction.weight, layer.reduction.bias, stride=2).flatten(2).mT
    context = F.layer_norm(coarse, (12,), layer.reduction_norm.weight, layer.reduction_norm.bias)
    assert context.shape == (3, 6, 12)
    torch.testing.assert_close(layer(tokens, GRID), written_out_attention(layer, tokens, context))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim: expected a multiple of 5 heads, got 12"):
        CrossAttention(12, 5)


def test_mix_mlp_equals_its_formula():
    layer = randomise(MixMLP(6, 10))
    tokens = wave(3, 24, 6)
    picture = layer.widen(tokens).mT.reshape(3, 10, *GRID)
    mixed = F.conv2d(picture, layer.depthwise.weight, layer.depthwise.bias, padding=1, groups=10).flatten(2).mT
    gelu = mixed * 0.5 * (1 + torch.erf(mixed / math.sqrt(2)))
    torch.testing.assert_close(layer(tokens, GRID), layer.narrow(gelu))


def test_block_order():
    block = randomise(Block(8, 2, 2, key_reduction=2))
    tokens = wave(3, 24, 8)
    after_attention = tokens + block.self_attention(block.self_norm(tokens), GRID)
    expected = after_attention + block.mlp(block.mlp_norm(after_attention), GRID)
    torch.testing.assert_close(block(tokens, GRID), expected)


def test_cross_block_attends_to_motion_first():
    block = randomise(CrossBlock(8, 2, 2))
    tokens, context = wave(3, 24, 8), wave(3, 5, 8, frequency=0.9)
    scale = torch.tensor([0.0, 0.5, 2.0])[:, None, None]
    driven = tokens + scale * block.cross_attention(block.cross_norm(tokens), context)
    torch.testing.assert_close(block(tokens, GRID, context, scale), Block.forward(block, driven, GRID))
    torch.testing.assert_close(block(tokens[1:2], GRID, context[1:2], 0.5), block(tokens, GRID, context, scale)[1:2])


def test_motion_scale_zero_needs_no_context():
    block = randomise(CrossBlock(8, 2, 2))
    tokens, context = wave(3, 24, 8), wave(3, 5, 8)
    torch.testing.assert_close(block(tokens, GRID, None, 0), block(tokens, GRID, context, torch.zeros(3, 1, 1)))


def test_blocks_leave_their_input_alone():
    block = randomise(CrossBlock(8, 2, 2))
    tokens = wave(1, 24, 8)
    with torch.no_grad():
        block(tokens, GRID, None, 0)
    assert torch.equal(tokens, wave(1, 24, 8))


def test_autocast_keeps_the_residual_stream_in_float32():
    block = randomise(Block(8, 2, 2))
    tokens = wave(1, 24, 8)
    with torch.autocast("cpu", torch.bfloat16):
        result = block(tokens, GRID)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, block(tokens, GRID), atol=0.05, rtol=0.05)


def test_initial_values():
    torch.manual_seed(0)
    block = Block(64, 2, 2, key_reduction=2).apply(initialise_weights)
    assert block.mlp.widen.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.1)
    assert block.self_attention.reduction.weight.std().item() == pytest.approx(math.sqrt(2 / (4 * 64)), rel=0.05)
    assert torch.equal(block.self_norm.weight, torch.ones(64))
    assert all(not p.any() for name, p in block.named_parameters() if name.endswith("bias"))


def test_gradients_reach_every_parameter():
    block = randomise(CrossBlock(8, 2, 2))
    inputs = (wave(3, 24, 8).requires_grad_(), wave(3, 5, 8, frequency=0.9).requires_grad_())
    block(inputs[0], GRID, inputs[1], 1.0).square().sum().backward()
    for tensor in (*inputs, *block.parameters()):
        assert tensor.grad is not None


def test_derivatives():
    block = randomise(CrossBlock(4, 2, 2)).double()
    inputs = (wave(2, 6, 4).double().requires_grad_(), wave(2, 3, 4, frequency=0.9).double().requires_grad_())
    assert torch.autograd.gradcheck(lambda t, c: block(t, (2, 3), c, 0.7), inputs, fast_mode=True)
