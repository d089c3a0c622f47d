"""Names of the tensors of a published GenHead and of a published discriminator, translated to ours.

Published names: networks-stylegan.md §10. `deformer.*` is not covered here (`upstream_head.py`).
"""

from portrait4d.models.name_table import SHARED_MODULES, SHARED_TENSORS, NameTable

_SYNTHESIS = r"(backbone|background)\.synthesis\.b(\d+)"

_GENHEAD_MODULES = (
    (r"backbone\.mapping\.embed", r"mapping.embedding"),
    (r"backbone\.mapping\.fc(\d+)", r"mapping.layers.\1"),
    (r"background\.mapping\.fc(\d+)", r"background_mapping.layers.\1"),
    (_SYNTHESIS + r"\.(conv[01](?:\.affine)?)", r"\1.blocks.\2.\3"),
    (_SYNTHESIS + r"\.torgb(|\.affine)", r"\1.blocks.\2.to_rgb\3"),
    *SHARED_MODULES,
)

_GENHEAD_TENSORS = (
    (r"backbone\.mapping\.w_avg", r"mapping.average"),
    (r"background\.mapping\.w_avg", None),  # never updated, and the background is never truncated
    (_SYNTHESIS + r"\.const", r"\1.blocks.\2.const"),
    (_SYNTHESIS + r"\.(conv[01]\.noise_(?:const|strength))", r"\1.blocks.\2.\3"),
    (r"(?:backbone|background)\.synthesis\.b4\.resample_filter", None),  # the first block does not up-sample
    (r"(?:backbone|background)\.synthesis\.b\d+\.conv1\.resample_filter", None),  # this convolution does not resample
    (_SYNTHESIS + r"(|\.conv0)\.resample_filter", r"\1.blocks.\2\3.resample_filter"),
    *SHARED_TENSORS,
)

_DISCRIMINATOR_MODULES = (
    (r"b\d+\.fromrgb", r"from_rgb"),
    (r"b(\d+)\.(conv[01]|skip)", r"blocks.\1.\2"),
    (r"mapping\.embed", r"mapping.embedding"),
    (r"mapping\.fc(\d+)", r"mapping.layers.\1"),
    (r"b4\.conv", r"final.conv"),
    (r"b4\.fc", r"final.hidden"),
    (r"b4\.out", r"final.output"),
)

_DISCRIMINATOR_TENSORS = (
    (r"b(\d+)\.(conv1|skip)\.resample_filter", r"blocks.\1.\2.resample_filter"),
    (r"(?:b\d+\.)?(?:(?:conv0|fromrgb|conv)\.)?resample_filter", None),  # these do not resample
)

_GENHEAD = NameTable("GenHead", _GENHEAD_MODULES, _GENHEAD_TENSORS)
_DISCRIMINATOR = NameTable("discriminator", _DISCRIMINATOR_MODULES, _DISCRIMINATOR_TENSORS)


def rename_genhead(name: str) -> str | None:
    """Return our name of a published GenHead's tensor, or None if we have no use for it.

    Raises:
        KeyError: if the name is not that of a published tensor, or starts with `deformer.`.
    """
    return _GENHEAD.rename(name)


def rename_discriminator(name: str) -> str | None:
    """Return our name of a published discriminator's tensor, or None if we have no use for it.

    Raises:
        KeyError: if the name is not that of a published tensor.
    """
    return _DISCRIMINATOR.rename(name)
