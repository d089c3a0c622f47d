"""Heads for metrics: random latents, with cameras and parameters of random portraits of a database.

As in metrics.md section 4: no truncation, neck upright, random noise and sample positions; but seeded. Heads come in
groups of four whose random numbers depend on the seed and the group's number alone, so that several processes together
make the same heads as one.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from portrait4d.config.experiments import SampleHeadsConfig
from portrait4d.config.measuring import MeasureConfig
from portrait4d.data.image_io import to_uint8
from portrait4d.geometry.head_params import HeadParams, split_label
from portrait4d.inference.sample_heads import HeadSampler
from portrait4d.metrics.evaluate import NumberedImages
from portrait4d.metrics.image_sets import ImageSet
from portrait4d.models.genhead import GenHeadOptions
from portrait4d.rendering.ray_sampling import Jitter, sample_jitter

GROUP = 4
_MIX = 1_000_003


class FakeHeads:
    """A loaded GenHead that makes up heads for metrics.

    Args:
        config: network, precision, seed.

    Raises:
        AssetMissingError, InputFileError, UserError: as `HeadSampler`.
    """

    def __init__(self, config: MeasureConfig) -> None:
        self.seed = config.seed
        self.sampler = HeadSampler(
            SampleHeadsConfig(
                network=config.network,
                outdir=Path(),
                seeds=(),
                render_size=config.render_size,
                chunk=config.chunk,
                device=config.device,
                dtype=config.dtype,
            )
        )

    def batches(self, labelled: ImageSet, count: int, rank: int = 0, ranks: int = 1) -> Iterator[NumberedImages]:
        """Yield the heads of one of several processes, a group at a time.

        Args:
            labelled: portraits with labels; each head draws one, with replacement.
            count: heads of all processes together.
            rank, ranks: this process and their number.
        """
        for group, numbers in _groups(count, rank, ranks):
            images = self.make_group(labelled, group)
            yield NumberedImages(images[: len(numbers)], torch.tensor(numbers))

    @torch.inference_mode()
    def make_group(self, labelled: ImageSet, group: int) -> Tensor:
        """Return the four heads (4, 3, S, S) uint8 of a group, for labels of `labelled`."""
        sampler, network = self.sampler, self.sampler.network
        seed = (self.seed * _MIX + group) % 2**63
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(labelled), (GROUP,), generator=generator).tolist()
        camera, params = split_label(torch.stack([labelled.label(row) for row in rows]).to(sampler.device))
        params = params.without_neck_rotation()
        latent = torch.randn(GROUP, network.config.mapping.latent_dim, generator=generator).to(sampler.device)
        noise = torch.Generator(sampler.device).manual_seed(seed)
        jitter = self._jitter(generator)
        options = replace(sampler.options, noise_mode="random", generator=noise, jitter=jitter)
        return self._render(latent, camera, params, options)

    def _render(self, latent: Tensor, camera: Tensor, params: HeadParams, options: GenHeadOptions) -> Tensor:
        network = self.sampler.network
        with self.sampler.precision():
            styles = network.map_styles(latent, network.conditioning(camera, params.shape))
            render = network(latent, styles, params, camera, options)
        return to_uint8(render.image_sr)

    def _jitter(self, generator: torch.Generator) -> Jitter:
        volume, rays = self.sampler.network.config.volume, self.sampler.options.resolution**2
        drawn = sample_jitter(GROUP, rays, volume.depth_samples, volume.importance_samples, generator)
        return Jitter(*(numbers.to(self.sampler.device) for numbers in drawn))


def share_size(count: int, rank: int, ranks: int) -> int:
    """Return how many of `count` heads one of several processes makes."""
    return sum(len(numbers) for _, numbers in _groups(count, rank, ranks))


def _groups(count: int, rank: int, ranks: int) -> Iterator[tuple[int, range]]:
    """Yield the groups of a process, with the numbers of their heads."""
    for group in range(rank, -(-count // GROUP), ranks):
        yield group, range(group * GROUP, min((group + 1) * GROUP, count))
