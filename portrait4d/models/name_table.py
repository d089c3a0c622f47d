"""Tables that translate the names of published tensors to ours, and the entries that several networks share."""

import re
from collections.abc import Sequence

Rule = tuple[str, str | None]

SHARED_MODULES: tuple[Rule, ...] = (
    (r"superresolution\.(block[01])\.(conv[01](?:\.affine)?)", r"super_resolution.\1.\2"),
    (r"superresolution\.(block[01])\.torgb(|\.affine)", r"super_resolution.\1.to_rgb\2"),
    (r"decoder\.net\.0", r"decoder.hidden"),
    (r"decoder\.out_sigma", r"decoder.density"),
    (r"decoder\.out_rgb", r"decoder.features"),
)
"""Layers of super-resolution and decoder, networks-stylegan.md §10.2 and §10.3."""

SHARED_TENSORS: tuple[Rule, ...] = (
    (r"superresolution\.(block[01](?:\.conv0)?)\.resample_filter", r"super_resolution.\1.resample_filter"),
    (r"superresolution\.block[01]\.conv1\.resample_filter", None),  # this convolution does not resample
    (r"superresolution\.block[01]\.conv[01]\.noise_(const|strength)", None),  # super-resolution adds no noise
    (r"dataset_label_std", None),  # left behind by the published training loop
)
"""Other tensors of the same."""


class NameTable:
    """Names of a published network's tensors as regular expressions, each with our name or None if we need none."""

    def __init__(self, network: str, modules: Sequence[Rule], tensors: Sequence[Rule]) -> None:
        """Compile a table.

        Args:
            network: what to call the network in errors.
            modules: layers, each with a weight and perhaps a bias: published name, ours.
            tensors: other tensors.
        """
        self.network = network
        rules = ((rf"{published}(\.weight|\.bias)", ours) for published, ours in modules)
        self._rules = tuple((re.compile(published), ours) for published, ours in (*rules, *tensors))

    def rename(self, name: str) -> str | None:
        """Return our name of a published tensor, or None if we have no use for it.

        Raises:
            KeyError: if the name is not that of a published tensor.
        """
        for published, ours in self._rules:
            match = published.fullmatch(name)
            if match is None:
                continue
            if ours is None:
                return None
            kind = match.groups()[-1] if name.endswith((".weight", ".bias")) else ""
            return match.expand(ours) + kind
        raise KeyError(f"{name}: not the name of a tensor of a published {self.network}")
