"""Transformer blocks on picture grids (networks-reconstructor.md §5).

Tokens (B, N, C) run row by row over a grid (rows, columns), so a channels_last picture and its tokens are the same
memory.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from portrait4d.ops.attention import attend
from portrait4d.ops.dense import DepthwiseConv3x3, Linear

Grid = tuple[int, int]
"""Rows and columns of a token grid; their product is the number of tokens."""


def tokens_from_picture(picture: torch.Tensor) -> torch.Tensor:
    """Return the tokens (B, H * W, C) of a picture (B, C, H, W); a view if the picture is channels_last."""
    return picture.permute(0, 2, 3, 1).flatten(1, 2)


def picture_from_tokens(tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return tokens (B, N, C) as a picture (B, C, rows, columns), a channels_last view."""
    # Not transpose + unflatten: for B = 1 that leaves a batch stride from which convolutions conclude NCHW (6x slower).
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def initialise_weights(module: nn.Module) -> None:
    """Initialise one linear, convolution or normalisation layer (§5); to be given to `Module.apply`.

    Linear: truncated normal, std 0.02, bounds ±2. Convolution: normal, std √(2 / (k² out / groups)). Biases 0.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def is_motionless(motion_scale: float | torch.Tensor) -> bool:
    """Return whether the motion scale is the number 0, which leaves out all cross-attention. A tensor never is."""
    return not isinstance(motion_scale, torch.Tensor) and motion_scale == 0


def _add_residual(update: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return tokens + update in the memory of `update`, a linear layer's result, which autograd does not keep."""
    return update.add_(tokens) if update.dtype == tokens.dtype else tokens + update


class PatchEmbedding(nn.Module):
    """Overlapping patches: convolution 3×3 of stride 2, then layer normalisation, §5."""

    def __init__(self, in_channels: int, token_dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, token_dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Return tokens (B, N, token_dim) and their grid (⌈H/2⌉, ⌈W/2⌉) of a picture (B, in_channels, H, W)."""
        patches = self.projection(picture.contiguous(memory_format=torch.channels_last))
        return self.norm(tokens_from_picture(patches)), tuple(patches.shape[-2:])


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to a context, §5: softmax(q kᵀ d^(−1/2)) v with d = dim / heads."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads != 0:
            raise ValueError(f"dim: expected a multiple of {heads} heads, got {dim}")
        self.heads = heads
        self.query = Linear(dim, dim)
        self.key_value = Linear(dim, 2 * dim)
        self.output = Linear(dim, dim)

    def forward(self, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return (B, N, dim) of tokens (B, N, dim) and a context (B, M, dim)."""
        query = self._split_heads(self.query(tokens))
        key, value = (self._split_heads(half) for half in self.key_value(context).chunk(2, dim=-1))
        attended = attend(query, key, value)
        return self.output(attended.transpose(1, 2).flatten(2))

    def _split_heads(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class SelfAttention(CrossAttention):
    """Multi-head attention of tokens to themselves, §5.

    With `key_reduction` r > 1 keys and values come from a grid r times coarser: convolution r×r of stride r, then
    layer normalisation.
    """

    def __init__(self, dim: int, heads: int, key_reduction: int = 1) -> None:
        super().__init__(dim, heads)
        self.key_reduction = key_reduction
        if key_reduction > 1:
            self.reduction = nn.Conv2d(dim, dim, key_reduction, stride=key_reduction)
            self.reduction_norm = nn.LayerNorm(dim)

    def forward(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return (B, N, dim) of tokens (B, N, dim) on `grid`, whose sides are at least `key_reduction`."""
        context = tokens
        if self.key_reduction > 1:
            context = self.reduction_norm(tokens_from_picture(self.reduction(picture_from_tokens(tokens, grid))))
        return super().forward(tokens, context)


class MixMLP(nn.Module):
    """Perceptron with a depth-wise 3×3 convolution before its GELU, §5."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.widen = Linear(dim, hidden)
        self.depthwise = DepthwiseConv3x3(hidden)
        self.narrow = Linear(hidden, dim)

    def forward(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return (B, N, dim) of tokens (B, N, dim) on `grid`."""
        mixed = self.depthwise(picture_from_tokens(self.widen(tokens), grid))
        return self.narrow(F.gelu(tokens_from_picture(mixed)))


class Block(nn.Module):
    """Transformer block with self-attention and MixMLP, each after a normalisation, §5."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, key_reduction: int = 1) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(dim)
        self.self_attention = SelfAttention(dim, heads, key_reduction)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MixMLP(dim, dim * mlp_ratio)

    def forward(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return (B, N, dim) of tokens (B, N, dim) on `grid`."""
        tokens = _add_residual(self.self_attention(self.self_norm(tokens), grid), tokens)
        return _add_residual(self.mlp(self.mlp_norm(tokens), grid), tokens)


class CrossBlock(Block):
    """Transformer block that first attends to a motion context, then to itself, §5."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__(dim, heads, mlp_ratio)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_attention = CrossAttention(dim, heads)

    def forward(
        self, tokens: torch.Tensor, grid: Grid, context: torch.Tensor | None, motion_scale: float | torch.Tensor = 1.0
    ) -> torch.Tensor:
        """Return (B, N, dim) of tokens (B, N, dim) on `grid`.

        Args:
            tokens: (B, N, dim).
            grid: rows and columns, N together.
            context: motion tokens (B, M, dim); may be None if `motion_scale` is the number 0.
            motion_scale: σ, a number or a tensor that broadcasts to (B, N, dim), normally (B, 1, 1). The number 0
                leaves the cross-attention out.
        """
        if not is_motionless(motion_scale):
            tokens = tokens + motion_scale * self.cross_attention(self.cross_norm(tokens), context)
        return super().forward(tokens, grid)
