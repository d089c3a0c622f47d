"""Canonicalisation and re-enactment of global features by motion (networks-reconstructor.md §6)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from portrait4d.config.networks import CanonicalEncoderConfig, ReconstructorConfig
from portrait4d.models.transformer_blocks import (
    CrossBlock,
    Grid,
    PatchEmbedding,
    initialise_weights,
    is_motionless,
    picture_from_tokens,
)
from portrait4d.ops.dense import Conv3x3

_LEAKY_SLOPE = 0.01


class MotionTokens(nn.Module):
    """Expand a motion vector into tokens, §6 steps 1 and 2: (B, motion_dim) to (B, motion_tokens, token_dim)."""

    def __init__(self, motion_dim: int, hidden: int, tokens: int, token_dim: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.hidden = nn.Sequential(
            nn.Linear(motion_dim, hidden),
            nn.LeakyReLU(_LEAKY_SLOPE),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(_LEAKY_SLOPE),
        )
        self.expansion = nn.Linear(hidden, tokens * token_dim)

    def forward(self, motion: torch.Tensor) -> torch.Tensor:
        """Return tokens (B, tokens, token_dim) of motion vectors (B, motion_dim)."""
        return self.expansion(self.hidden(motion)).unflatten(1, (self.tokens, -1))


class CanonicalEncoder(nn.Module):
    """Take the source's expression out of its features and put the driver's in, §6.

    `canonicalise` depends on the source alone and `reenact` on the frame, so a clip runs the former once.
    """

    def __init__(self, config: ReconstructorConfig) -> None:
        super().__init__()
        sizes = config.canonical_encoder
        dim = sizes.token_dim
        self.source_motion = MotionTokens(config.motion_dim, sizes.motion_hidden, sizes.motion_tokens, dim)
        self.driving_motion = MotionTokens(config.motion_dim, sizes.motion_hidden, sizes.motion_tokens, dim)
        self.patch_embedding = PatchEmbedding(config.global_encoder.out_channels, dim)
        self.neutral_blocks = _build_blocks(sizes, sizes.neutral_blocks)
        self.motion_blocks = _build_blocks(sizes, sizes.motion_blocks)
        self.upsampler = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            Conv3x3(dim // 4, sizes.conv_channels),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            Conv3x3(sizes.conv_channels, sizes.conv_channels),
            nn.ReLU(inplace=True),
            Conv3x3(sizes.conv_channels, config.plane_channels),
        )
        self.apply(initialise_weights)

    def canonicalise(
        self, global_features: torch.Tensor, source_motion: torch.Tensor, motion_scale: float | torch.Tensor = 1.0
    ) -> torch.Tensor:
        """Return neutral tokens (B, N, token_dim), §6 steps 3 and 4.

        Args:
            global_features: (B, C, h, h) of the global encoder; N = ⌈h/2⌉².
            source_motion: (B, motion_dim), the motion seen in the source image.
            motion_scale: σ, a number or a tensor that broadcasts to (B, N, token_dim), normally (B, 1, 1).
        """
        tokens, grid = self.patch_embedding(global_features)
        return _run_blocks(self.neutral_blocks, tokens, grid, (self.source_motion, source_motion), motion_scale)

    def reenact(
        self, tokens: torch.Tensor, driving_motion: torch.Tensor, motion_scale: float | torch.Tensor = 1.0
    ) -> torch.Tensor:
        """Return features (B, plane_channels, 8n, 8n) of tokens on an n×n grid, §6 steps 5 to 7.

        Args:
            tokens: (B, N, token_dim) of `canonicalise`, N = n².
            driving_motion: (B, motion_dim), the motion to show.
            motion_scale: as in `canonicalise`.
        """
        side = math.isqrt(tokens.shape[1])
        if side * side != tokens.shape[1]:
            raise ValueError(f"tokens: expected a square number of them, got {tokens.shape[1]}")
        grid = (side, side)
        tokens = _run_blocks(self.motion_blocks, tokens, grid, (self.driving_motion, driving_motion), motion_scale)
        return self.upsampler(F.pixel_shuffle(picture_from_tokens(tokens, grid), 2))

    def forward(
        self,
        global_features: torch.Tensor,
        source_motion: torch.Tensor,
        driving_motion: torch.Tensor,
        motion_scale: float | torch.Tensor = 1.0,
    ) -> torch.Tensor:
        """Return `reenact` of `canonicalise`: (B, C, h, h) to (B, plane_channels, 4h, 4h)."""
        return self.reenact(
            self.canonicalise(global_features, source_motion, motion_scale), driving_motion, motion_scale
        )


def _build_blocks(sizes: CanonicalEncoderConfig, count: int) -> nn.ModuleList:
    return nn.ModuleList(CrossBlock(sizes.token_dim, sizes.heads, sizes.mlp_ratio) for _ in range(count))


def _run_blocks(
    blocks: nn.ModuleList,
    tokens: torch.Tensor,
    grid: Grid,
    motion: tuple[MotionTokens, torch.Tensor],
    motion_scale: float | torch.Tensor,
) -> torch.Tensor:
    """Run cross blocks with the context made by `motion` = (network, vector), if there is any motion to show."""
    network, vector = motion
    context = None if is_motionless(motion_scale) else network(vector)
    for block in blocks:
        tokens = block(tokens, grid, context, motion_scale)
    return tokens
