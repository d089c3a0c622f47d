"""reconstructor-*.npz: the full-size network with weights made from names, on the stand-in head (README there)."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from portrait4d.config.networks import ReconstructorConfig
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.models.reconstructor import Reconstructor, RenderOptions
from portrait4d.models.upstream_names import rename_reconstructor
from portrait4d.rendering.mesh_maps import landmarks_2d, pose_vertices, render_correspondence
from tests.golden import weights
from tests.golden.cases import case_params, case_tensor, filled_network, standin_head
from tests.golden.comparison import (
    Context,
    Criterion,
    Result,
    compare,
    everywhere,
    nearly_all_pixels,
    nearly_everywhere,
    quantiles,
)

SUBSAMPLING = {
    "features_global": np.s_[::8, ::4, ::4],
    "canonical_low": np.s_[::8, ::4, ::4],
    "features_detail": np.s_[::8, ::16, ::16],
    "canonical_high": np.s_[::8, ::16, ::16],
    "planes": np.s_[::4, ::8, ::8],
    "background_logits": np.s_[::4, ::16, ::16],
    "image_feature": np.s_[:, ::4, ::4],
    "image_sr": np.s_[:, ::4, ::4],
    "uv": np.s_[:, ::2, ::2],
    "mesh_depth": np.s_[:, ::2, ::2],
}
NETWORK_ARRAYS = (
    "features_global",
    "features_detail",
    "canonical_low",
    "canonical_high",
    "planes",
    "background_logits",
    "landmarks",
)
MESH_MAPS = ("uv", "mask", "mesh_depth")
MESH_PIXELS = 256


@lru_cache(maxsize=1)
def golden_network(manifest: Path) -> Reconstructor:
    """Build the published-size network with the manifest's weights, through the published name table."""
    return filled_network(manifest, ReconstructorConfig(), standin_head(), rename_reconstructor)


def criterion(array: str, posed: bool) -> Criterion:
    """Strict with zero neck pose and for what no neck pose reaches, else `deformation.md` section 10."""
    if array in NETWORK_ARRAYS:
        return everywhere(1e-4)
    if array in MESH_MAPS:
        return nearly_all_pixels()
    if not posed:
        return everywhere(1e-4) if array == "deformed_points" else nearly_everywhere(1e-4, 0.01, 2e-3)
    if array == "deformed_points":
        return quantiles(1e-4, 1e-3)
    return quantiles(2e-3, 1.5e-2) if array == "depth" else quantiles(5e-3, 8e-2)


@torch.no_grad()
def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare every array of one file."""
    case = path.stem.split("-", 1)[1]
    golden = np.load(path)
    params = case_params(case)
    posed = bool(params.pose[:, :3].any())
    network = golden_network(context.find("manifest-reconstructor.json"))
    ours = compute(case, params, golden, network)
    ours |= compute_mesh_maps(network.head, params, torch.from_numpy(golden["camera"])[None])
    for array in golden.files:
        if array in ours:
            value = ours[array].numpy()[SUBSAMPLING.get(array, np.s_[:])]
            yield compare(path, array, value, golden[array], criterion(array, posed))


def compute(case: str, params: HeadParams, golden: dict[str, np.ndarray], network: Reconstructor) -> dict[str, Tensor]:
    """Run the network on a case and return its arrays without batch axis."""
    image = torch.from_numpy(weights.image(f"{case}/source", 512, 512))[None]
    source_motion = case_tensor(case, "motion_source", (1, 548), 1)
    driving_motion = case_tensor(case, "motion_driving", (1, 548), 1)
    camera = torch.from_numpy(golden["camera"])[None]
    seen = {}
    hook = network.canonical_encoder.upsampler.register_forward_pre_hook(
        lambda _, inputs: seen.update(canonical_low=inputs[0].clone())
    )
    features_global, features_detail = network.global_encoder(image), network.detail_encoder(image)
    source = network.encode_source(image, source_motion)
    canonical_high = network.canonical_encoder.reenact(source.tokens, driving_motion)
    hook.remove()
    planes = network.generate_planes(source, driving_motion)
    field = network.head_pose_field(params)
    render = network.render(
        planes, source.background, camera, field, RenderOptions(resolution=int(golden["render_resolution"]), chunk=4096)
    )
    points = case_tensor(case, "points", (1, 4096, 3), 0.3)
    return {
        "features_global": features_global[0],
        "features_detail": features_detail[0],
        "canonical_low": seen["canonical_low"][0],
        "canonical_high": canonical_high[0],
        "planes": planes[0].flatten(0, 1),
        "background_logits": network.background_encoder(image)[0],
        "image_feature": render.features[0],
        "image": render.image[0],
        "depth": render.depth[0],
        "transmittance": render.transmittance[0],
        "image_sr": render.image_sr[0],
        "deformed_points": (points if field is None else field(points))[0],
    }


def compute_mesh_maps(head: HeadModel, params: HeadParams, camera: Tensor) -> dict[str, Tensor]:
    """Render the correspondence map of a case and project its landmarks; arrays without batch axis."""
    vertices = pose_vertices(head, params)
    uv, mask, depth = render_correspondence(head, vertices, camera, MESH_PIXELS)
    landmarks = landmarks_2d(head, vertices, camera, MESH_PIXELS)
    return {"uv": uv[0], "mask": mask[0], "mesh_depth": depth[0], "landmarks": landmarks[0]}
