"""Published networks: from their stored constructor arguments and tensors to our configurations and names.

Constructor arguments: `networks-reconstructor.md` section 1, `training-genhead.md` section 3.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from portrait4d.config.gan_networks import (
    CAMERA_CONDITION,
    SHAPE_CONDITION,
    ConvPyramidConfig,
    DiscriminatorConfig,
    GenHeadConfig,
)
from portrait4d.config.networks import MOTION_DIMS, ReconstructorConfig, SuperResolutionConfig, VolumeConfig
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.flame import HeadModel
from portrait4d.models.upstream_gan_names import rename_discriminator, rename_genhead
from portrait4d.models.upstream_head import PREFIX as HEAD_PREFIX
from portrait4d.models.upstream_head import head_from_upstream
from portrait4d.models.upstream_names import rename_reconstructor
from portrait4d.models.upstream_pickles import NetworkRecord

NetworkConfig = ReconstructorConfig | GenHeadConfig | DiscriminatorConfig


@dataclass(frozen=True)
class NetworkContent:
    """What a network is built from: its sizes, its head model if it has one, its other tensors by our names."""

    config: NetworkConfig
    head: HeadModel | None
    tensors: dict[str, Tensor]


def content_from_upstream(record: NetworkRecord, path: str | Path) -> NetworkContent:
    """Translate a published network.

    Raises:
        InputFileError: if its class, an option or a tensor is not known here, or a tensor of the head is missing.
    """
    if record.class_name not in _CLASSES:
        known = ", ".join(sorted(_CLASSES))
        raise InputFileError(path, f"expected a network of class {known}, got {record.class_name}")
    read_config, rename = _CLASSES[record.class_name]
    try:
        config = read_config(record)
        head = None if isinstance(config, DiscriminatorConfig) else head_from_upstream(record.tensors)
        renamed = {rename(k): v for k, v in record.tensors.items() if not k.startswith(HEAD_PREFIX)}
    except (KeyError, ValueError, TypeError) as error:
        raise InputFileError(path, f"unexpected network content ({error.args[0]})") from None
    renamed.pop(None, None)
    return NetworkContent(config, head, renamed)


def reconstructor_config(record: NetworkRecord) -> ReconstructorConfig:
    """Read a published reconstructor's sizes.

    Raises:
        KeyError: if an argument is missing.
        ValueError: if one has a value this implementation does not know.
    """
    kwargs = record.init_kwargs
    motion_kinds = {dim: kind for kind, dim in MOTION_DIMS.items()}
    motion_dim = kwargs.get("mot_dims", 512)
    if motion_dim not in motion_kinds:
        raise ValueError(f"mot_dims: expected one of {sorted(motion_kinds)}, got {motion_dim}")
    return ReconstructorConfig(
        image_resolution=kwargs.get("img_resolution", 512),
        render_resolution=128,  # of the published inference program; the stored attribute is a training state
        motion_kind=motion_kinds[motion_dim],
        super_resolution=_super_resolution_config(record),
        volume=_volume_config(record),
    )


def genhead_config(record: NetworkRecord) -> GenHeadConfig:
    """Read a published GenHead's sizes.

    Raises:
        KeyError: if an argument is missing.
        ValueError: if one has a value this implementation does not know.
    """
    kwargs, default = record.init_kwargs, GenHeadConfig()
    conditions = (CAMERA_CONDITION, CAMERA_CONDITION + SHAPE_CONDITION)
    _expect(kwargs, "c_dim", conditions)
    for key, expected, default_value in (
        ("has_background", True, True),
        ("has_superresolution", True, False),
        ("flame_full", True, False),
        ("dynamic_texture", False, False),
        ("add_block", False, False),
        ("triplane_channels", 192, None),
    ):
        _expect(kwargs, key, (expected,), default_value)
    rendering = record.rendering_kwargs or kwargs["rendering_kwargs"]
    _expect(rendering, "c_scale", (1,), 1)
    _expect(rendering, "c_gen_conditioning_zero", (False,), False)
    mapping = replace(
        default.mapping,
        latent_dim=kwargs["z_dim"],
        style_dim=kwargs["w_dim"],
        condition_dim=kwargs["c_dim"],
        layers=kwargs.get("mapping_kwargs", {}).get("num_layers", 8),
    )
    return GenHeadConfig(
        image_resolution=kwargs["img_resolution"],
        mapping=mapping,
        backbone=ConvPyramidConfig(
            kwargs.get("triplane_resolution", 256),
            kwargs["channel_base"],
            kwargs["channel_max"],
            kwargs.get("conv_clamp"),
        ),
        background_mapping=replace(default.background_mapping, latent_dim=kwargs["z_dim"], style_dim=kwargs["w_dim"]),
        super_resolution=_super_resolution_config(record),
        volume=_volume_config(record),
    )


def discriminator_config(record: NetworkRecord) -> DiscriminatorConfig:
    """Read a published discriminator's sizes.

    Raises:
        KeyError: if an argument is missing.
        ValueError: if one has a value this implementation does not know.
    """
    kwargs, default = record.init_kwargs, DiscriminatorConfig()
    _expect(kwargs, "c_dim", (CAMERA_CONDITION,))
    return DiscriminatorConfig(
        pyramid=ConvPyramidConfig(
            kwargs["img_resolution"], kwargs["channel_base"], kwargs["channel_max"], kwargs.get("conv_clamp")
        ),
        image_channels=kwargs["img_channels"],
        with_raw_image=kwargs["has_superresolution"],
        with_correspondence=kwargs["has_uv"],
        with_mask=kwargs["has_seg"],
        group_size=kwargs.get("epilogue_kwargs", {}).get("mbstd_group_size", default.group_size),
        camera_noise=float(kwargs.get("disc_c_noise", 0)),
    )


def _super_resolution_config(record: NetworkRecord) -> SuperResolutionConfig:
    kwargs = record.init_kwargs
    rendering = record.rendering_kwargs or kwargs["rendering_kwargs"]
    return SuperResolutionConfig(
        style="ones" if kwargs.get("sr_kwargs", {}).get("use_ws_ones", False) else "average",
        conv_clamp=256.0 if kwargs.get("sr_num_fp16_res", 0) > 0 else None,
        antialias=rendering.get("sr_antialias", True),
    )


def _volume_config(record: NetworkRecord) -> VolumeConfig:
    rendering = record.rendering_kwargs or record.init_kwargs["rendering_kwargs"]
    for key in ("ray_start", "ray_end"):
        _expect(rendering, key, ("auto-plane",))
    return VolumeConfig(
        depth_samples=rendering["depth_resolution"],
        importance_samples=rendering["depth_resolution_importance"],
        box_warp=rendering["box_warp"],
    )


def _expect(options: dict, key: str, known: tuple, default: object = None) -> None:
    if options.get(key, default) not in known:
        raise ValueError(f"{key}: expected {' or '.join(map(repr, known))}, got {options.get(key, default)!r}")


_Rename = Callable[[str], str | None]
_CLASSES: dict[str, tuple[Callable[[NetworkRecord], NetworkConfig], _Rename]] = {
    "TriPlaneReconstructorNeutralize": (reconstructor_config, rename_reconstructor),
    "PartTriPlaneGeneratorDeform": (genhead_config, rename_genhead),
    "DualDiscriminatorDeform": (discriminator_config, rename_discriminator),
}
"""Published classes that we know."""
