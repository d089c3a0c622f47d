"""genhead-*.npz: the part-based generator and its discriminator on the stand-in head (README there).

`COMPUTATIONS` lists what is checked, a function for each group of arrays; arrays that no function gives are named.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from portrait4d.config.gan_networks import DiscriminatorConfig, GenHeadConfig
from portrait4d.config.networks import HeadPoseConfig, VolumeConfig
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.part_deformation import build_part_field
from portrait4d.models.discriminator import Discriminator, DiscriminatorInput
from portrait4d.models.genhead import GenHead, GenHeadOptions
from portrait4d.models.stylegan_mapping import Truncation
from portrait4d.models.upstream_gan_names import rename_discriminator, rename_genhead
from portrait4d.rendering.mesh_maps import (
    landmarks_2d,
    pose_vertices,
    render_coarse_correspondence,
    render_correspondence,
    render_region_mask,
)
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

INPUTS = ("camera", "render_resolution", "truncation")
SUBSAMPLING = {
    "ws": np.s_[:2],
    "planes": np.s_[::6, ::16, ::16],
    "uv": np.s_[:, ::2, ::2],
    "mesh_depth": np.s_[:, ::2, ::2],
    "image_feature": np.s_[:, ::2, ::2],
    "background": np.s_[:3, ::4, ::4],
    "image_sr": np.s_[:, ::4, ::4],
    "uv512": np.s_[:, ::4, ::4],
}
"""How the stored array was cut out of the whole one, where it was."""
POINT_ARRAYS = ("canonical_eye", "canonical_face", "canonical_mouth", "distance_face")
RENDERED_ARRAYS = ("image", "image_feature", "depth", "image_sr", "logits")
"""Behind the deformation, compared as GenHead's image is."""
MESH_MAPS = (
    "uv", "uv512", "mesh_depth",
    "face_mask", "eye_mask", "face_without_eyes_mask", "head_mask", "head_without_mouth_mask",
)  # fmt: skip
MESH_PIXELS = 256


@dataclass(frozen=True)
class Case:
    """Inputs of one file: its name, camera vector (1, 25), truncation, rays per side, head, parameters, networks."""

    name: str
    camera: Tensor
    truncation: float
    resolution: int
    params: HeadParams
    generator: GenHead
    discriminator: Discriminator

    @property
    def head(self) -> HeadModel:
        """The generator's head model."""
        return self.generator.head


@lru_cache(maxsize=1)
def golden_genhead(manifest: Path) -> GenHead:
    """Build the published-size generator with the manifest's weights, through the published name table."""
    return filled_network(manifest, GenHeadConfig(), standin_head(), rename_genhead)


@lru_cache(maxsize=1)
def golden_discriminator(manifest: Path) -> Discriminator:
    """Build the published-size discriminator with the manifest's weights, through the published name table."""
    return filled_network(manifest, DiscriminatorConfig(), None, rename_discriminator)


def deform_points(case: Case) -> dict[str, Tensor]:
    """Carry the 4096 points of a case to the canonical head, the mouth part on."""
    field = build_part_field(case.head, case.params, VolumeConfig().box_warp, HeadPoseConfig(), mouth=True)
    points = field(case_tensor(case.name, "points", (1, 4096, 3), 0.3))
    return {
        "canonical_eye": points.eye[0],
        "canonical_face": points.face[0],
        "canonical_mouth": points.mouth[0],
        "distance_face": points.face_distance[0],
        "inside_eye_box": points.inside_eye_box[0],
    }


def draw_mesh(case: Case) -> dict[str, Tensor]:
    """Draw the head's mesh: correspondence map, region masks, landmarks."""
    view = case.head, pose_vertices(case.head, case.params), case.camera, MESH_PIXELS
    face = render_correspondence(*view)
    return {
        "uv": face.image[0],
        "face_mask": face.mask[0],
        "mesh_depth": face.depth[0],
        "landmarks": landmarks_2d(*view)[0],
        "eye_mask": render_region_mask(*view, "eyes")[0],
        "face_without_eyes_mask": render_region_mask(*view, "face_without_eyes")[0],
        "head_mask": render_coarse_correspondence(*view, cull_backfaces=False).mask[0],
        "head_without_mouth_mask": render_region_mask(*view, "outer_mouth")[0],
    }


def generate(case: Case) -> dict[str, Tensor]:
    """Generate and render the head, and judge the picture."""
    latent, background_latent = (case_tensor(case.name, n, (1, 512), 1) for n in ("z", "z_background"))
    generator = case.generator
    conditioning = generator.conditioning(case.camera, case.params.shape)
    styles = generator.map_styles(latent, conditioning, Truncation(case.truncation))
    options = GenHeadOptions(resolution=case.resolution, chunk=2048)
    render = generator(background_latent, styles, case.params, case.camera, options)
    inputs = DiscriminatorInput(render.image_sr, render.image, render.correspondence, render.mask)
    return {
        "ws": styles[0],
        "planes": render.planes[0].flatten(0, 1),
        "image": render.image[0],
        "image_feature": render.features[0],
        "depth": render.depth[0],
        "seg": render.mask[0],
        "background": render.background[0],
        "image_sr": render.image_sr[0],
        "uv512": render.correspondence[0],
        "logits": case.discriminator(inputs, case.camera)[0],
    }


COMPUTATIONS: tuple[Callable[[Case], dict[str, Tensor]], ...] = (deform_points, draw_mesh, generate)
"""Case -> whole arrays without batch axis."""


def criterion(array: str, posed: bool) -> Criterion:
    """Strict with zero neck pose and for what no neck pose reaches, else `deformation.md` section 10."""
    if array == "inside_eye_box":
        return everywhere(0)
    if array in MESH_MAPS:
        return nearly_all_pixels()
    if posed and array in (*POINT_ARRAYS, *RENDERED_ARRAYS):
        return quantiles(1e-4, 1e-3)
    if posed and array == "seg":
        return quantiles(3e-4, 3e-3)
    if array in (*RENDERED_ARRAYS, "seg") and array != "logits":
        return nearly_everywhere(1e-4, 0.01, 2e-3)
    return everywhere(1e-4)


@torch.no_grad()
def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare every array that a function of COMPUTATIONS gives, and name the others."""
    name = path.stem.split("-", 1)[1]
    golden = np.load(path)
    params = case_params(name, pose_std=0.1, jaw_rad=0.25)
    posed = bool(params.pose[:, :3].any())
    case = Case(
        name,
        torch.from_numpy(golden["camera"])[None],
        float(golden["truncation"]),
        int(golden["render_resolution"]),
        params,
        golden_genhead(context.find("manifest-genhead.json")),
        golden_discriminator(context.find("manifest-discriminator.json")),
    )
    checked = set(INPUTS)
    for computation in COMPUTATIONS:
        for array, ours in computation(case).items():
            value = ours.numpy()[SUBSAMPLING.get(array, np.s_[:])]
            checked.add(array)
            yield compare(path, array, value, golden[array], criterion(array, posed))
    left = [array for array in golden.files if array not in checked]
    if left:
        print(f"{path.name}: not checked yet: {', '.join(left)}")  # noqa: T201
