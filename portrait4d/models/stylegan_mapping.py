"""Mapping network: latent and condition to style vectors, with truncation (networks-stylegan.md §2)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from portrait4d.config.gan_networks import MappingConfig
from portrait4d.models.stylegan_layers import FullyConnected

LEARNING_RATE_MULTIPLIER = 0.01


class Truncation(NamedTuple):
    """Pull styles towards their average: average + `psi` (style - average), for the first `cutoff` rows (None: all)."""

    psi: float = 1.0
    cutoff: int | None = None


NO_TRUNCATION = Truncation()


def normalise_second_moment(x: Tensor) -> Tensor:
    """Return x / sqrt(mean(x²) + 1e-8) over the last axis, §1.6."""
    return x * (x.square().mean(dim=-1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(nn.Module):
    """Perceptron from a latent and an embedded condition, both normalised, to one style, repeated for every layer, §2.

    With `config.average_decay` the buffer `average` (style_dim,) holds the running average of styles. `num_styles` is
    the number of rows returned.
    """

    def __init__(self, config: MappingConfig, num_styles: int = 1) -> None:
        super().__init__()
        self.config = config
        self.num_styles = num_styles
        if config.condition_dim:
            self.embedding = FullyConnected(config.condition_dim, config.style_dim)
        width = config.latent_dim + (config.style_dim if config.condition_dim else 0)
        self.layers = nn.ModuleList(
            FullyConnected(
                config.style_dim if number else width,
                config.style_dim,
                activation="leaky_relu",
                learning_rate_multiplier=LEARNING_RATE_MULTIPLIER,
            )
            for number in range(config.layers)
        )
        self.register_buffer("average", None if config.average_decay is None else torch.zeros(config.style_dim))

    def forward(
        self,
        latent: Tensor | None,
        condition: Tensor | None = None,
        truncation: Truncation = NO_TRUNCATION,
        update_average: bool = False,
    ) -> Tensor:
        """Return styles (B, num_styles, style_dim).

        Args:
            latent: (B, latent_dim); None if the network takes none.
            condition: (B, condition_dim); None if the network takes none.
            truncation: applied to the result.
            update_average: fold the batch's mean into the running average (during training).

        Raises:
            ValueError: on an input that is missing, not taken or of another length, or if there is no average to
                truncate to or to update.
        """
        _check_input("latent", latent, self.config.latent_dim)
        _check_input("condition", condition, self.config.condition_dim)
        given = latent if condition is None else condition
        with torch.autocast(given.device.type, enabled=False):
            style = self._map(latent, condition)
        if update_average:
            self._update_average(style)
        return self._truncate(style[:, None].expand(-1, self.num_styles, -1), truncation)

    def _map(self, latent: Tensor | None, condition: Tensor | None) -> Tensor:
        parts = []
        if latent is not None:
            parts.append(normalise_second_moment(latent.float()))
        if condition is not None:
            parts.append(normalise_second_moment(self.embedding(condition.float())))
        style = torch.cat(parts, dim=1)
        for layer in self.layers:
            style = layer(style)
        return style

    def _update_average(self, style: Tensor) -> None:
        mean = style.detach().mean(dim=0)
        self._require_average("update_average").copy_(mean.lerp(self.average, self.config.average_decay))

    def _truncate(self, styles: Tensor, truncation: Truncation) -> Tensor:
        if truncation.psi == 1:
            return styles
        average = self._require_average("truncation")
        count = self.num_styles if truncation.cutoff is None else truncation.cutoff
        return torch.cat([average.lerp(styles[:, :count], truncation.psi), styles[:, count:]], dim=1)

    def _require_average(self, name: str) -> Tensor:
        if self.average is None:
            raise ValueError(f"{name}: expected none for a network that keeps no average of its styles, got one")
        return self.average


def _check_input(name: str, value: Tensor | None, length: int) -> None:
    if (value is None) != (length == 0) or (value is not None and value.shape[1:] != (length,)):
        expected = f"shape (B, {length})" if length else "None"
        raise ValueError(f"{name}: expected {expected}, got {None if value is None else tuple(value.shape)}")
