"""Pictures of the head mesh: correspondence maps, region masks, vertex features, normals, projected landmarks.

The mesh is always seen with a field of view of 12 degrees; of a camera's intrinsics only the landmarks take notice
(`cameras-and-rasterisation.md` sections 1 and 5). Pictures are S x S pixels, row 0 on top, background 0.

Every function takes the head either as parameters or as posed vertices (B, V, 3) in world units: call `pose_vertices`
once and pass its result where several maps of one frame are wanted. Only the features of `render_features` and the
landmarks carry gradients.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from portrait4d.geometry.cameras import FOV_DEG, points_to_camera, project_points, split_camera
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.meshes import submesh_faces, vertex_normals
from portrait4d.ops.rasterize import Fragments, interpolate_vertices, rasterize_perspective

MESH_FOV_DEG = FOV_DEG
"""Field of view of every mesh map, whatever the camera's intrinsics say."""
CANONICAL_SCALE = 0.6
"""World units of the canonical head that correspondence maps show as 1."""
EYEBALL_SHIFT = 0.5
"""What correspondence maps subtract from the z channel of eyeballs, to tell them from lids."""

PosedHead = HeadParams | Tensor
"""Head parameters, or vertices (B, V, 3) in world units that a head model made of them."""


class MeshMap(NamedTuple):
    """A rendered mesh.

    Attributes:
        image: (B, C, S, S) interpolated vertex features, 0 in the background.
        mask: (B, 1, S, S), 1 where the mesh is seen, else 0.
        depth: (B, 1, S, S) distance along the view axis in world units, 0 in the background.
    """

    image: Tensor
    mask: Tensor
    depth: Tensor


class PartMasks(NamedTuple):
    """Where a picture shows the parts of a head: `eye`, `mouth`, `head`, each (B, 1, S, S), 0 or 1."""

    eye: Tensor
    mouth: Tensor
    head: Tensor


def pose_vertices(head: HeadModel, params: HeadParams, eyelid_expression: Tensor | None = None) -> Tensor:
    """Evaluate the head model, with the lids of another expression if one is given (blinking).

    Args:
        head: the head model.
        params: B heads; the neck's rotation counts.
        eyelid_expression: (B, 100) coefficients that the vertices of the region "eyelids" follow instead.

    Returns:
        (B, V, 3) in world units.
    """
    with torch.autocast(params.pose.device.type, enabled=False):
        vertices = head(params)
        if eyelid_expression is None:
            return vertices
        blinking = head(HeadParams(params.shape, eyelid_expression, params.pose, params.eye_pose))
    lids = head.region("eyelids")
    return vertices.index_copy(1, lids, blinking[:, lids])


def landmarks_2d(head: HeadModel, posed: PosedHead, camera: Tensor, size: int) -> Tensor:
    """Project the landmarks with the camera's own intrinsics, x right and **y up**, in pixels of an S x S picture.

    Args:
        head: the head model.
        posed: B heads; not blinking ones, as in the reference.
        camera: (B, 25) camera vectors.
        size: S.

    Returns:
        (B, 70, 2); picture rows are S - y. Differentiable.
    """
    vertices = _vertices(head, posed)
    with torch.autocast(vertices.device.type, enabled=False):
        return project_points(head.landmarks(vertices), camera) * size


@torch.no_grad()
def render_correspondence(
    head: HeadModel,
    posed: PosedHead,
    camera: Tensor,
    size: int,
    eyeball_shift: float = EYEBALL_SHIFT,
    fov_deg: float = MESH_FOV_DEG,
) -> MeshMap:
    """Render face and eyeballs in canonical coordinates: the "uv" map that says which point of the head a pixel shows.

    Channels are x, y, z of the canonical head / CANONICAL_SCALE, z of eyeballs less `eyeball_shift` (the reference's
    fitting preview has none). Back faces are culled.

    Args:
        head: the head model.
        posed: B heads.
        camera: (B, 25) camera vectors.
        size: pixels per side.
        eyeball_shift: subtracted from the z channel of eyeballs.
        fov_deg: full field of view in degrees.
    """
    colours = head.canonical_vertices / CANONICAL_SCALE
    colours[head.region("eyeballs"), 2] -= eyeball_shift
    region = head.region("face")
    faces = submesh_faces(head.faces, region, len(colours))
    vertices = _vertices(head, posed)[:, region]
    return _mesh_map(_rasterize(vertices, faces, camera, size, True, fov_deg), faces, colours[region])


@torch.no_grad()
def render_coarse_correspondence(
    head: HeadModel,
    posed: PosedHead,
    camera: Tensor,
    size: int,
    cull_backfaces: bool = True,
    fov_deg: float = MESH_FOV_DEG,
) -> MeshMap:
    """Render the whole simplified head in canonical coordinates / CANONICAL_SCALE, eyeballs not shifted.

    Arguments as in `render_region_mask`.
    """
    vertices = head.coarse_vertices(_vertices(head, posed))
    colours = head.coarse_vertices(head.canonical_vertices[None])[0] / CANONICAL_SCALE
    fragments = _rasterize(vertices, head.coarse_faces, camera, size, cull_backfaces, fov_deg)
    return _mesh_map(fragments, head.coarse_faces, colours)


@torch.no_grad()
def render_region_mask(
    head: HeadModel,
    posed: PosedHead,
    camera: Tensor,
    size: int,
    region: str,
    cull_backfaces: bool = True,
    fov_deg: float = MESH_FOV_DEG,
) -> Tensor:
    """Render where the faces of one region alone would be seen, nothing else hiding them.

    Args:
        head: the head model.
        posed: B heads.
        camera: (B, 25) camera vectors.
        size: pixels per side.
        region: name of a vertex region, see `HeadModel.region`; faces with all corners in it are drawn.
        cull_backfaces: whether faces turned away are left out.
        fov_deg: full field of view in degrees.

    Returns:
        (B, 1, S, S), 1 or 0.
    """
    indices = head.region(region)
    faces = submesh_faces(head.faces, indices, len(head.canonical_vertices))
    return _rasterize(_vertices(head, posed)[:, indices], faces, camera, size, cull_backfaces, fov_deg).mask


@torch.no_grad()
def render_part_masks(
    head: HeadModel, posed: PosedHead, camera: Tensor, size: int, fov_deg: float = MESH_FOV_DEG
) -> PartMasks:
    """Render the masks of the part-wise generator, before any blur (`networks-stylegan.md` section 5.3, step 1).

    eye = eyeballs not covered by the face. head = the simplified head from both sides, so that the open mouth shows the
    back of the head. mouth = head not covered by `outer_mouth`: the hole of the mouth and the inner band of the lips.
    Arguments as in `render_region_mask`.
    """
    vertices = _vertices(head, posed)
    eyeballs, face, outer_mouth = (
        render_region_mask(head, vertices, camera, size, region, True, fov_deg)
        for region in ("eyes", "face_without_eyes", "outer_mouth")
    )
    silhouette = _rasterize(
        head.coarse_vertices(vertices), head.coarse_faces, camera, size, cull_backfaces=False, fov_deg=fov_deg
    ).mask
    return PartMasks(eye=eyeballs * (1 - face), mouth=silhouette * (1 - outer_mouth), head=silhouette)


def render_features(
    head: HeadModel,
    posed: PosedHead,
    camera: Tensor,
    size: int,
    features: Tensor,
    cull_backfaces: bool = True,
    fov_deg: float = MESH_FOV_DEG,
) -> MeshMap:
    """Render given features (B or 1, V, C) of all vertices on the whole mesh; the image is differentiable in them.

    Other arguments as in `render_region_mask`.

    Raises:
        ValueError: if the features are not those of V vertices.
    """
    vertices = _vertices(head, posed)
    if features.ndim != 3 or features.shape[1] != vertices.shape[1]:
        raise ValueError(f"features: expected shape (B, {vertices.shape[1]}, C), got {tuple(features.shape)}")
    fragments = _rasterize(vertices, head.faces, camera, size, cull_backfaces, fov_deg)
    return _mesh_map(fragments, head.faces, features)


@torch.no_grad()
def render_normals(
    head: HeadModel, posed: PosedHead, camera: Tensor, size: int, fov_deg: float = MESH_FOV_DEG
) -> MeshMap:
    """Render the whole mesh coloured with the unit normals of the canonical head, a preview for fitting.

    The image is in [-1, 1], world axes of the canonical head. Arguments as in `render_region_mask`.
    """
    normals = vertex_normals(head.canonical_vertices[None], head.faces)
    return render_features(head, posed, camera, size, normals, fov_deg=fov_deg)


def _vertices(head: HeadModel, posed: PosedHead) -> Tensor:
    return posed if isinstance(posed, Tensor) else pose_vertices(head, posed)


def _rasterize(
    vertices: Tensor, faces: Tensor, camera: Tensor, size: int, cull_backfaces: bool, fov_deg: float
) -> Fragments:
    with torch.autocast(vertices.device.type, enabled=False):
        points_camera = points_to_camera(vertices, split_camera(camera).cam2world)
    return rasterize_perspective(points_camera, faces, size, fov_deg, cull_backfaces)


def _mesh_map(fragments: Fragments, faces: Tensor, features: Tensor) -> MeshMap:
    """Interpolate features (V, C) or (B or 1, V, C) over fragments."""
    features = features.expand(len(fragments.depth), *features.shape[-2:])
    return MeshMap(interpolate_vertices(fragments, faces, features), fragments.mask, fragments.depth[:, None])
