"""A rendered head as one .safetensors file: it is seen from any camera without encoders, head model or network file.

The file holds, of one frame: `planes` (1, 3, F, S/2, S/2); `background` (1, F, S, S); if the neck is turned, the grids
of the head-pose field `head_pose.fine` and `head_pose.coarse` (`geometry/deformation.py`; no head model travels along);
and what renders them, `renderer.*`: decoder, super-resolution, average style. Metadata: sizes, camera, conventions.

A float32 file renders bit for bit what the network does. float16 halves it: planes, background and super-resolution are
rounded, the decoder and the grids are not.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from portrait4d.config.load import config_from_dict
from portrait4d.config.networks import ReconstructorConfig
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError
from portrait4d.geometry.cameras import CAMERA_DIM
from portrait4d.geometry.deformation import HeadPoseField
from portrait4d.geometry.flame import WORLD_PER_METRE
from portrait4d.inference.reenact import Frame, Reenactor, View
from portrait4d.models.checkpoints import FORMAT, read_safetensors
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.models.radiance_decoder import RadianceDecoder
from portrait4d.models.reconstructor import Reconstructor, RenderOptions
from portrait4d.models.super_resolution import SuperResolution
from portrait4d.ops.backend import exact_convolutions

KIND = "planes"
MAX_RENDER_SIZE = 1024
_CPU_RAYS_PER_CHUNK = 2048
_RENDERER, _FINE, _COARSE = "renderer.", "head_pose.fine", "head_pose.coarse"
_ROUNDED = ("planes", "background", _RENDERER + "super_resolution.")
_REMEDY = "make it again with export_head.py --format planes"

CONVENTIONS = {
    "world": f"right-handed, x image right, y up, face to +z, origin at the neck, {WORLD_PER_METRE} units per metre",
    "camera": "25 numbers: cam2world 4x4 row-major (OpenGL axes, looks along -z), intrinsics 3x3 / image size",
    "planes": "(x, y), (y, z), (z, x) over a cube of side box_warp around the origin; first number along the columns",
    "pictures": "RGB, nominally in [-1, 1]",
}


class PlaneRenderer(Reconstructor):
    """The part of a reconstructor that renders planes; it can neither encode nor drive. `render` is the network's."""

    def __init__(self, config: ReconstructorConfig) -> None:
        nn.Module.__init__(self)  # not Reconstructor's, which builds what is left out here
        self.config = config
        self.register_buffer("average_style", torch.zeros(config.super_resolution.style_dim))
        self.super_resolution = SuperResolution(config.super_resolution, config.plane_features, config.image_resolution)
        self.decoder = RadianceDecoder(config.plane_features, config.volume.decoder_hidden)


@dataclass(frozen=True)
class PlaneCache:
    """A head that is ready to be rendered.

    Attributes:
        renderer: decoder and super-resolution with their sizes.
        planes: (1, 3, F, S/2, S/2) float32.
        background: (1, F, S, S) float32 in (0, 1).
        deformation: head-pose field of the frame; None for an unrotated neck.
        camera: (1, 25), by which it was rendered.
        options: how it was rendered.
    """

    renderer: PlaneRenderer
    planes: Tensor
    background: Tensor
    deformation: HeadPoseField | None
    camera: Tensor
    options: RenderOptions

    @torch.inference_mode()
    def render(self, camera: Tensor | None = None, resolution: int | None = None) -> HeadRender:
        """Render the head.

        Args:
            camera: (1, 25) camera vector; None for the one by which it was rendered.
            resolution: rays per side; None for as many as it was rendered with.
        """
        camera = self.camera if camera is None else camera.to(self.planes.device)
        options = self.options if resolution is None else replace(self.options, resolution=resolution)
        with exact_convolutions(self.planes.device):
            return self.renderer.render(self.planes, self.background, camera, self.deformation, options)


def build_plane_cache(
    reenactor: Reenactor, source: Frame, features: SourceFeatures, render: HeadRender, view: View
) -> PlaneCache:
    """Gather what `Reenactor.render` has rendered; later changes of the network do not change it.

    Args:
        reenactor: that rendered; its precision must be float32 for equal results.
        source, features: the source and what `encode_source` gave for it.
        render, view: what was rendered, and from where.
    """
    network = reenactor.network
    weights = network.state_dict()
    renderer = _build_renderer(network.config, lambda name, _: weights[name].clone())
    return PlaneCache(
        renderer,
        render.planes.float(),
        features.background.float(),
        network.head_pose_field(view.params.with_shape(source.params.shape)),
        view.camera,
        _options(renderer, reenactor.options.resolution or network.config.render_resolution, reenactor.device),
    )


def save_plane_cache(path: str | Path, cache: PlaneCache, dtype: Literal["float32", "float16"] = "float32") -> None:
    """Write a head atomically.

    Args:
        path: of the .safetensors file.
        cache: the head.
        dtype: how planes, background and super-resolution are stored.

    Raises:
        ValueError: a number is too large for float16.
    """
    tensors = {"planes": cache.planes, "background": cache.background}
    tensors |= {_RENDERER + name: tensor for name, tensor in cache.renderer.state_dict().items()}
    if cache.deformation is not None:
        tensors |= {_FINE: cache.deformation.fine, _COARSE: cache.deformation.coarse}
    stored = {name: _stored(name, tensor, getattr(torch, dtype)) for name, tensor in tensors.items()}
    description = {
        "format": FORMAT,
        "network": KIND,
        "config": asdict(cache.renderer.config),
        "camera": cache.camera[0].tolist(),
        "render_size": cache.options.resolution,
        "conventions": CONVENTIONS,
    }
    with atomic_path(path) as temporary:
        save_file(stored, temporary, metadata={"portrait4d": json.dumps(description)})


def load_plane_cache(path: str | Path, device: torch.device | str = "cpu") -> PlaneCache:
    """Load a head that `save_plane_cache` wrote, float16 as float32.

    Raises:
        InputFileError: the file is missing, damaged, of another kind, or its parts do not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError(path, "no such file", "give a .safetensors file of export_head.py --format planes")
    description, tensors = read_safetensors(path)
    if description.get("network") != KIND:
        raise InputFileError(path, f"expected planes, got {description.get('network')!r}", _REMEDY)
    try:
        config = config_from_dict(ReconstructorConfig, description["config"])
        camera, resolution = _read_view(description)
        renderer = _build_renderer(config, lambda name, shape: _take(tensors, _RENDERER + name, shape))
        deformation = _load_deformation(config, tensors)
        size, features = config.image_resolution, config.plane_features
        planes = _take(tensors, "planes", (1, 3, features, size // 2, size // 2))
        background = _take(tensors, "background", (1, features, size, size))
        if tensors:
            raise ValueError(f"unexpected {', '.join(sorted(tensors)[:4])}")
    except (KeyError, ValueError, TypeError, OverflowError, RuntimeError) as error:
        # RuntimeError: what PyTorch raises for sizes that no tensor can have
        raise InputFileError(path, f"damaged or not complete ({error})", _REMEDY) from None
    if deformation is not None:
        deformation = replace(deformation, fine=deformation.fine.to(device), coarse=deformation.coarse.to(device))
    options = _options(renderer.to(device), resolution, torch.device(device))
    return PlaneCache(renderer, planes.to(device), background.to(device), deformation, camera.to(device), options)


def _build_renderer(config: ReconstructorConfig, weight: Callable[[str, tuple[int, ...]], Tensor]) -> PlaneRenderer:
    """Build a renderer of the weights that a function gives for their names and shapes."""
    with torch.device("meta"):
        renderer = PlaneRenderer(config)
    weights = {name: weight(name, tuple(empty.shape)) for name, empty in renderer.state_dict().items()}
    renderer.load_state_dict(weights, assign=True)
    renderer.to(memory_format=torch.channels_last)  # as Reenactor's network: sums over weights are rounded in its order
    return renderer.eval().requires_grad_(False)


def _options(renderer: PlaneRenderer, resolution: int, device: torch.device) -> RenderOptions:
    return RenderOptions(
        resolution=resolution,
        chunk=_CPU_RAYS_PER_CHUNK if device.type == "cpu" else None,
        super_resolution=renderer.super_resolution.fold(renderer.average_style),
        keep_samples=False,
    )


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    stored = tensor.detach().to("cpu", dtype if name.startswith(_ROUNDED) else torch.float32).contiguous()
    if not stored.isfinite().all():
        raise ValueError(f"{name}: expected numbers that {dtype} can hold, got up to {tensor.abs().max():.3g}")
    return stored


def _read_view(description: dict) -> tuple[Tensor, int]:
    camera = torch.tensor([description["camera"]], dtype=torch.float32)
    if camera.shape != (1, CAMERA_DIM) or not camera.isfinite().all():
        raise ValueError(f"camera: expected {CAMERA_DIM} finite numbers, got shape {tuple(camera.shape)}")
    resolution = description["render_size"]
    if not isinstance(resolution, int) or not 1 <= resolution <= MAX_RENDER_SIZE:
        raise ValueError(f"render_size: expected 1 to {MAX_RENDER_SIZE}, got {resolution!r}")
    return camera, resolution


def _load_deformation(config: ReconstructorConfig, tensors: dict[str, Tensor]) -> HeadPoseField | None:
    if _FINE not in tensors:
        return None
    sides = config.head_pose.fine_resolution, config.head_pose.coarse_resolution
    fine = _take(tensors, _FINE, (1, 4, *(sides[0],) * 3))
    coarse = _take(tensors, _COARSE, (1, 3, *(sides[1],) * 3))
    return HeadPoseField(fine, coarse, config.volume.box_warp, config.head_pose)


def _take(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """Remove a tensor of a known shape from those that were read, and return it as float32."""
    tensor = tensors.pop(name)
    if tensor.shape != shape or not tensor.is_floating_point():
        raise ValueError(f"{name}: expected numbers of shape {shape}, got {tensor.dtype} {tuple(tensor.shape)}")
    if not tensor.isfinite().all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinite ones")
    return tensor.float()
