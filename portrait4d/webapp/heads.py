"""Heads as the sliders pose them: pictures, depth, normals, the head model's mesh, and the surface to download."""

from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from portrait4d.files.errors import UserError
from portrait4d.inference.exports import head_surface, save_glb, save_ply
from portrait4d.inference.reenact import Frame, Reenactor, View
from portrait4d.models.outputs import HeadRender
from portrait4d.rendering.mesh_maps import render_normals
from portrait4d.rendering.normal_pictures import normal_picture
from portrait4d.synthetic_heads.head_template import NAME as OPEN_HEAD
from portrait4d.synthetic_heads.motions import motion_vector
from portrait4d.training.grids import depth_picture
from portrait4d.webapp.poses import HeadPose, motion_params, pose_camera, pose_motion
from portrait4d.webapp.state import AppState, EncodedSource

LOOKS = ("Depth", "Normals", "Mesh")
"""What can be shown beside the picture."""
_SURFACE_LEVELS = (25.0, 10.0, 4.0)
"""Raw densities of a mesh's surface, tried in turn: small networks do not reach the published ones' 25."""


@dataclass(frozen=True)
class PosedHead:
    """A head that was rendered as the sliders say."""

    source: EncodedSource
    view: View
    render: HeadRender


def pose_head(state: AppState, key: str, pose: HeadPose) -> PosedHead:
    """Render a source as the sliders say.

    Raises:
        UserError: there is no such source, or the network cannot be loaded.
    """
    reenactor, source = state.reenactor(), state.encoded(key)
    motion = pose_motion(pose)
    params = motion_params(motion, source.frame.params.shape)
    camera = pose_camera(pose).to(reenactor.device)
    if reenactor.network.config.motion_kind == "flame":
        vector = params.flame_motion()
    elif knows_sliders(reenactor):
        vector = torch.from_numpy(motion_vector(motion))[None].to(reenactor.device)
    else:
        vector = source.frame.motion
    driver = Frame(source.frame.image, camera, params, vector)
    view = View(camera, params)
    return PosedHead(source, view, reenactor.render(source.frame, source.features, driver, view))


def knows_sliders(reenactor: Reenactor) -> bool:
    """Tell whether a network was made for the open head, whose expressions the sliders name."""
    head = reenactor.network.head.open_head
    return head is not None and head.name == OPEN_HEAD


def look_pictures(state: AppState, head: PosedHead, looks: list[str]) -> dict[str, Tensor]:
    """Return the picture, then those of the wanted `LOOKS`: each (3, H, W) in [-1, 1] on the CPU, by name."""
    render, reenactor = head.render, state.reenactor()
    size = render.image_sr.shape[-1]
    pictures = {"Picture": render.image_sr[0]}
    if "Depth" in looks:
        pictures["Depth"] = depth_picture(render.depth, render.transmittance)[0].expand(3, -1, -1)
    if "Normals" in looks:
        pictures["Normals"] = normal_picture(head.view.camera, render.depth, render.transmittance)[0]
    if "Mesh" in looks:
        pictures["Mesh"] = _mesh_picture(reenactor, head, size)
    return {name: picture.float().clamp(-1, 1).cpu() for name, picture in pictures.items()}


def _mesh_picture(reenactor: Reenactor, head: PosedHead, size: int) -> Tensor:
    """Return the head model's mesh (3, S, S) over black, in the colours of its normals.

    Mesh maps look with their own field of view (`rendering/mesh_maps.py`), so the slider's is passed on.
    """
    focal = head.view.camera[0, 16]
    fov_deg = float(torch.rad2deg(2 * torch.atan(0.5 / focal)))
    mesh = render_normals(reenactor.network.head, head.view.params, head.view.camera, size, fov_deg)
    return torch.where(mesh.mask[0] > 0, mesh.image[0], -1.0)


def write_meshes(state: AppState, head: PosedHead, resolution: int, folder: Path) -> tuple[Path, Path]:
    """Write a head's surface with its colours as `head.glb` and `head.ply`, and return their paths.

    Args:
        state: holds the network.
        head: what to write.
        resolution: grid points per side.
        folder: where.

    Raises:
        UserError: there is no surface.
    """
    reenactor = copy(state.reenactor())
    for level in _SURFACE_LEVELS:
        reenactor.config = replace(reenactor.config, shape_res=resolution, shape_level=level)
        try:
            surface = head_surface(reenactor, head.source.frame, head.render, head.view)
            break
        except UserError:
            if level == _SURFACE_LEVELS[-1]:
                raise UserError("This network shows no solid surface here; there is no mesh.") from None
    save_glb(folder / "head.glb", surface)
    save_ply(folder / "head.ply", surface)
    return folder / "head.glb", folder / "head.ply"
