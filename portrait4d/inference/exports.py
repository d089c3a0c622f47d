"""Meshes of a rendered head with its colours, for other programs: GLB and PLY.

GLB is in metres, y up, the face to +z, as glTF asks for: world units / `WORLD_PER_METRE`, axes unchanged. The colours
hold the portrait's light, so the material is unlit (`KHR_materials_unlit`). glTF's vertex colours are linear, a
picture's are not: they are converted, and stored in 16 bits, since 8 linear ones show steps in dark hair.
PLY keeps world units and the picture's 8-bit colours.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from portrait4d.files.atomic import atomic_path, write_bytes
from portrait4d.geometry.flame import WORLD_PER_METRE
from portrait4d.inference.reenact import Frame, Reenactor, View
from portrait4d.models.outputs import HeadRender
from portrait4d.rendering.compositing import march, sample_weights
from portrait4d.rendering.field import Field
from portrait4d.rendering.marching_cubes import Surface

_DEPTHS_WORLD = (-0.1, 0.4, 32)
"""Where along the inward normal a vertex's colour is gathered: first, last, samples. A field is a little transparent,
so the colour at the surface alone is not what a camera sees."""
_SMALLEST_PART = 0.05
_VERTICES_PER_CHUNK = 1 << 13
_UNLIT = "KHR_materials_unlit"


class ColouredSurface(NamedTuple):
    """A triangle mesh as `Surface`, with `colours` (V, 3) float32 in [0, 1], the values of a picture (sRGB)."""

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray


def head_surface(reenactor: Reenactor, source: Frame, render: HeadRender, view: View) -> ColouredSurface:
    """Extract the mesh of a head that `Reenactor.render` gave, posed as it was rendered, with its colours.

    Parts that hang in the air, of less than a twentieth of the largest part's triangles, are left out.

    Raises:
        UserError: if no surface crosses the density level.
    """
    surface = drop_small_parts(reenactor.surface(source, render, view))
    network = reenactor.network
    deformation = network.head_pose_field(view.params.with_shape(source.params.shape))
    return colour_surface(surface, network.radiance_field(render.planes.float(), deformation), reenactor.device)


def drop_small_parts(surface: Surface, smallest: float = _SMALLEST_PART) -> Surface:
    """Return the connected parts of a mesh with at least `smallest` times as many triangles as the largest of them."""
    import trimesh

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    part = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(surface.faces))
    sizes = np.bincount(part)
    faces = surface.faces[sizes[part] >= smallest * sizes.max()]
    used, renumbered = np.unique(faces, return_inverse=True)
    return Surface(surface.vertices[used], renumbered.reshape(faces.shape))


@torch.inference_mode()
def colour_surface(surface: Surface, field: Field, device: torch.device | str = "cpu") -> ColouredSurface:
    """Colour a mesh in world units by what a radiance field shows to an eye that looks straight at each vertex.

    Args:
        surface: of the field.
        field: points (1, N, 3) on `device` to features (1, N, C), the first three of them red, green and blue in
            [0, 1], and raw densities.
        device: where the field is.
    """
    import trimesh

    normals = trimesh.Trimesh(surface.vertices, surface.faces, process=False).vertex_normals
    chunks = (
        torch.from_numpy(array.astype(np.float32)).to(device).split(_VERTICES_PER_CHUNK)
        for array in (surface.vertices, normals)
    )
    colours = [_march_inwards(field, *part) for part in zip(*chunks, strict=True)]
    return ColouredSurface(*surface, torch.cat(colours).cpu().numpy())


def _march_inwards(field: Field, vertices: Tensor, normals: Tensor) -> Tensor:
    """Return the colours (V, 3) that rays against the normals (V, 3) meet around vertices (V, 3)."""
    first, last, count = _DEPTHS_WORLD
    distances = torch.linspace(first, last, count, device=vertices.device).expand(len(vertices), -1)
    points = vertices[:, None] - distances[..., None] * normals[:, None]
    features, densities = field(points.view(1, -1, 3))
    weights = sample_weights(march(densities.view(-1, count), distances).weights)
    colours = features[0, :, :3].float().unflatten(0, (-1, count))
    return ((weights[..., None] * colours).sum(1) / weights.sum(1, keepdim=True)).clamp(0, 1)


def save_glb(path: str | Path, surface: ColouredSurface) -> None:
    """Write a mesh as binary glTF 2.0 (module docstring), atomically."""
    import trimesh
    from trimesh.exchange.gltf import export_glb

    material = trimesh.visual.material.PBRMaterial(
        name="portrait", metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    visual = trimesh.visual.TextureVisuals(material=material)
    mesh = trimesh.Trimesh(surface.vertices / WORLD_PER_METRE, surface.faces, visual=visual, process=False)
    opaque = np.pad(_linear(surface.colours), ((0, 0), (0, 1)), constant_values=1)
    mesh.vertex_attributes["_color"] = (opaque * 65535).round().astype(np.uint16)
    scene = trimesh.Scene({"head": mesh})
    write_bytes(path, export_glb(scene, include_normals=True, tree_postprocessor=_finish_gltf))


def save_ply(path: str | Path, surface: ColouredSurface) -> None:
    """Write a mesh as binary PLY in world units with 8-bit colours, atomically; the path must end in .ply."""
    import trimesh

    colours = (surface.colours * 255).round().astype(np.uint8)
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, vertex_colors=colours, process=False)
    with atomic_path(path) as temporary:
        mesh.export(temporary, file_type="ply")


def _linear(colours: np.ndarray) -> np.ndarray:
    """Convert sRGB values in [0, 1] to linear ones (IEC 61966-2-1)."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def _finish_gltf(tree: dict) -> None:
    """Say what trimesh does not: that `_color` is the colour, that the material is unlit, and in which units it all is.

    trimesh writes colours of 8 bits only, and attributes of its caller in any type.
    """
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            colour = primitive["attributes"].pop("_color")
            primitive["attributes"]["COLOR_0"] = colour
            tree["accessors"][colour]["normalized"] = True
    for material in tree["materials"]:
        material["extensions"] = {_UNLIT: {}}
    tree["extensionsUsed"] = [_UNLIT]
    tree["asset"] |= {"generator": "Portrait4D", "extras": {"unit": "metre", "up": "+y", "front": "+z"}}
