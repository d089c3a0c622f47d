"""The network's work for one frame as an ONNX file: an encoded source, motion, head pose and camera to a picture.

One graph (opset 20) holds driving, tri-planes, two-pass volume rendering at fixed midpoints, and super-resolution. Its
inputs are those of `frame_inputs`; batch and sizes are fixed. It is exported from the PyTorch versions of all
operations, and differs from the network's own picture by rounding alone.

Not in it, and why:

* source and motion encoders: they run once per source, or belong to another network;
* building the head-pose field: which triangles are compared with a point depends on the data (`ops/nearest_triangle`),
  and the head model may be licensed. Its two small grids are inputs; zeros stand for an unturned neck;
* random sample positions: they would be inputs as large as the picture.

Needs the extra `export` (onnx, onnxscript, onnxruntime).
"""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import UserError
from portrait4d.geometry.deformation import HeadPoseField
from portrait4d.inference.plane_cache import CONVENTIONS
from portrait4d.inference.reenact import Frame, Reenactor, View
from portrait4d.models.outputs import SourceFeatures
from portrait4d.models.reconstructor import Reconstructor
from portrait4d.ops.backend import without_native
from portrait4d.rendering.field import FieldSample
from portrait4d.rendering.ray_sampling import midpoint_jitter
from portrait4d.rendering.rays import camera_rays
from portrait4d.rendering.volume_renderer import render_rays_reference

INPUTS = ("tokens", "detail", "background", "motion", "camera", "head_pose_fine", "head_pose_coarse")
OUTPUT = "image"
TOLERANCE = 1e-3
"""Largest difference of a pixel, of pictures in [-1, 1], at which an export counts as right."""

_OPSET = 20  # the first whose GridSample knows volumes
_PLANE_AXES = ((0, 1), (1, 2), (2, 0))


class FrameNetwork(nn.Module):
    """What a reconstructor does for a frame, in operations that ONNX has."""

    def __init__(self, network: Reconstructor, resolution: int) -> None:
        """Wrap a network; `resolution` is the number of rays per side."""
        super().__init__()
        self.network = network
        self.resolution = resolution

    def forward(
        self,
        tokens: Tensor,
        detail: Tensor,
        background: Tensor,
        motion: Tensor,
        camera: Tensor,
        head_pose_fine: Tensor,
        head_pose_coarse: Tensor,
    ) -> Tensor:
        """Return the picture (1, 3, S, S); the arguments are those of `frame_inputs`."""
        network, size = self.network, (self.resolution, self.resolution)
        volume = network.config.volume
        planes = network.generate_planes(SourceFeatures(tokens, detail, background), motion)
        deformation = HeadPoseField(head_pose_fine, head_pose_coarse, volume.box_warp, network.config.head_pose)
        jitter = midpoint_jitter(1, volume.depth_samples, volume.importance_samples, camera.device)
        rays = render_rays_reference(
            lambda points: self._sample(planes, deformation(points)),
            camera_rays(camera, self.resolution),
            jitter,
            volume,
        )
        features, transmittance = (
            value.transpose(1, 2).unflatten(2, size) for value in (rays.features, rays.transmittance[..., None])
        )
        behind = functional.interpolate(background, size, mode="bilinear")
        picture = 2 * (features + transmittance * behind) - 1
        return network.super_resolution(picture[:, :3], picture, network.average_style[None])

    def _sample(self, planes: Tensor, points: Tensor) -> FieldSample:
        """Do what `PlaneField` does at canonical points (1, N, 3), whose sums of fetched texels ONNX has not."""
        scaled = points * (2 / self.network.config.volume.box_warp)
        sampled = [
            functional.grid_sample(planes[:, plane], scaled[:, None, :, axes], align_corners=False)[:, :, 0]
            for plane, axes in enumerate(map(list, _PLANE_AXES))
        ]
        features, densities = self.network.decoder((sum(sampled) / len(sampled)).transpose(1, 2))
        return FieldSample(features, densities[..., 0])


@torch.no_grad()
def frame_inputs(
    reenactor: Reenactor, source: Frame, features: SourceFeatures, driver: Frame, view: View
) -> dict[str, Tensor]:
    """Return the inputs of the exported network for a frame, float32 on the CPU.

    Returns:
        tokens, detail, background: as in `SourceFeatures`, batch 1.
        motion: (1, D). camera: (1, 25).
        head_pose_fine, head_pose_coarse: (1, 4, r, r, r) and (1, 3, q, q, q) grids of `HeadPoseField`; zeros for an
            unturned neck.
    """
    network = reenactor.network
    field = network.head_pose_field(view.params.with_shape(source.params.shape))
    sizes = network.config.head_pose
    if field is None:
        grids = torch.zeros(1, 4, *(sizes.fine_resolution,) * 3), torch.zeros(1, 3, *(sizes.coarse_resolution,) * 3)
    else:
        grids = field.fine, field.coarse
    tensors = (features.tokens, features.detail, features.background, driver.motion, view.camera, *grids)
    return {
        name: tensor.detach().to("cpu", torch.float32).clone() for name, tensor in zip(INPUTS, tensors, strict=True)
    }


def save_frame_network(
    path: str | Path, network: Reconstructor, resolution: int, inputs: dict[str, Tensor], image: Tensor
) -> float:
    """Write the network for one frame as ONNX, atomically, after a trial with onnxruntime.

    Args:
        path: of the .onnx file.
        network: the reconstructor; it is not changed.
        resolution: rays per side.
        inputs: of a trial frame, from `frame_inputs`.
        image: (1, 3, S, S), PyTorch's picture for them.

    Returns:
        The largest difference between the pixels of both pictures.

    Raises:
        UserError: a package of the extra `export` is missing, or the difference exceeds `TOLERANCE`.
    """
    require_onnx()
    with atomic_path(path) as temporary:
        _export(temporary, FrameNetwork(copy.deepcopy(network).cpu(), resolution).eval(), inputs)
        difference = (run_frame_network(temporary, inputs) - image.detach().cpu()).abs().max().item()
        if not difference <= TOLERANCE:
            raise UserError(f"{path}: its picture differs from PyTorch's by {difference:.3g}; nothing was written")
    return difference


def run_frame_network(path: str | Path, inputs: dict[str, Tensor]) -> Tensor:
    """Render a frame (1, 3, S, S) by an exported file with onnxruntime on the CPU; the inputs are `frame_inputs`.

    Raises:
        UserError: a package of the extra `export` is missing.
    """
    require_onnx()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,) = session.run([OUTPUT], {name: tensor.numpy() for name, tensor in inputs.items()})
    return torch.from_numpy(image)


def _export(path: Path, network: FrameNetwork, inputs: dict[str, Tensor]) -> None:
    # With parameters that ask for gradients every layer takes PyTorch's own operations, not those of NNPACK.
    network.requires_grad_(True)
    with _quiet(), without_native():
        program = torch.onnx.export(
            network,
            tuple(inputs[name] for name in INPUTS),
            dynamo=True,
            input_names=INPUTS,
            output_names=[OUTPUT],
            opset_version=_OPSET,
            custom_translation_table=_translations(),
            verbose=False,
        )
    program.model.metadata_props["portrait4d"] = json.dumps(CONVENTIONS)
    program.save(str(path))


def _translations() -> dict[Callable, Callable]:
    """Return ONNX versions of what the volume renderer uses and PyTorch's exporter has no translation for."""
    from onnxscript import opset20 as onnx

    # without annotations, which onnxscript would read as types of ONNX
    def cumulative_product(values, dim):
        """Take the product by logarithms: all factors, shares of light that pass, are positive."""
        return onnx.Exp(onnx.CumSum(onnx.Log(values), onnx.Constant(value_int=dim)))

    def search_sorted(sorted_sequence, values, *, out_int32=False, right=False, side=None, sorter=None):
        """Count the numbers before each value, which is its place."""
        compare = onnx.LessOrEqual if right else onnx.Less
        ahead = compare(
            onnx.Unsqueeze(sorted_sequence, onnx.Constant(value_ints=[-2])),
            onnx.Unsqueeze(values, onnx.Constant(value_ints=[-1])),
        )
        return onnx.ReduceSum(onnx.Cast(ahead, to=7), onnx.Constant(value_ints=[-1]), keepdims=0)

    return {
        torch.ops.aten.cumprod.default: cumulative_product,
        torch.ops.aten.searchsorted.Tensor: search_sorted,
    }


def require_onnx() -> None:
    """Check that the packages of the extra `export` are there.

    Raises:
        UserError: naming the one that is missing, and how to get them.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs the package {error.name}: pip install 'portrait4d[export]'") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about PyTorch's own code, and about torchvision, from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
