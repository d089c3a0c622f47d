"""Render portraits of the open head world: picture, mask, labels, depth, normals, correspondence map and landmarks.

Camera and picture conventions are those of `geometry.cameras`; depth is in world units along the view axis. All maps of
one portrait come from the same triangles, so they agree with the picture.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from portrait4d.geometry.cameras import FOV_DEG, invert_rigid, project_points, split_camera
from portrait4d.geometry.face_alignment import LANDMARKS_98_TO_70
from portrait4d.geometry.flame import HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.meshes import interpolate_corners
from portrait4d.ops.rasterize import rasterize_perspective
from portrait4d.rendering.mesh_maps import render_correspondence
from portrait4d.synthetic_heads.appearance import Appearance, Backdrop
from portrait4d.synthetic_heads.figure import Figure, Material, PosedFigure, pose_figure
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.synthetic_heads.lighting import Lamps, Shadow, cast_shadow, tone_map
from portrait4d.synthetic_heads.paint import (
    Pixels,
    hairline_depth_tensor,
    paint_eyes,
    paint_skin,
    paint_teeth,
    paint_tongue,
)
from portrait4d.synthetic_heads.paint_hair import HAIR_PAINTERS, cloth_share
from portrait4d.synthetic_heads.skin_mesh import UNIT

PAINTERS = HAIR_PAINTERS | {
    Material.SKIN: paint_skin,
    Material.EYE: paint_eyes,
    Material.TEETH: paint_teeth,
    Material.TONGUE: paint_tongue,
}


class Label(IntEnum):
    """Face-parsing labels."""

    BACKGROUND = 0
    SKIN = 1
    BROWS = 2
    EYES = 3
    GLASSES = 4
    EARS = 5
    NOSE = 6
    MOUTH = 7
    UPPER_LIP = 8
    LOWER_LIP = 9
    NECK = 10
    CLOTH = 11
    HAIR = 12


@dataclass(frozen=True)
class Portrait:
    """One rendered person, S x S pixels, row 0 on top.

    Attributes:
        image: (3, S, S) RGB in [-1, 1].
        mask: (1, S, S) share of the foreground in [0, 1], anti-aliased like the picture.
        labels: (S, S) int64 face-parsing labels, see `Label`; of the pixel's centre.
        depth: (1, S, S) world units along the view axis, 0 in the background.
        normals: (3, S, S) unit normals in camera axes, 0 in the background.
        uv: (3, S, S) correspondence map, see `rendering.mesh_maps`.
        landmarks98: (98, 2) pixels, x right, y **down**, in WFLW's order.
        landmarks68: (68, 2) likewise; the same points as in `landmarks98`.
    """

    image: Tensor
    mask: Tensor
    labels: Tensor
    depth: Tensor
    normals: Tensor
    uv: Tensor
    landmarks98: Tensor
    landmarks68: Tensor


@torch.no_grad()
def render_portrait(
    figure: Figure,
    params: HeadParams,
    camera: Tensor,
    size: int,
    oversampling: float | None = None,
    maps: bool = True,
) -> Portrait:
    """Render one frame of a person.

    Args:
        figure: the person, see `figure.build_figure`.
        params: batch of 1, on the figure's device.
        camera: (1, 25) camera vector with a field of view of 12 degrees.
        size: S, pixels per side.
        oversampling: the picture is rendered this many times finer and averaged; None: 2, or 1.5 above 256 pixels.
        maps: whether the correspondence map is rendered; zeros otherwise.

    Raises:
        ValueError: if the batch is not one frame.
    """
    if len(params.shape) != 1 or camera.shape != (1, 25):
        raise ValueError(f"frame: expected one, got {len(params.shape)} heads and a camera {tuple(camera.shape)}")
    posed = pose_figure(figure, params)
    fine = round(size * (oversampling or (2 if size <= 256 else 1.5)))
    view = split_camera(camera)
    world2camera = invert_rigid(view.cam2world)[0]
    points = posed.vertices @ world2camera[:3, :3].T + world2camera[:3, 3]
    faces, material = _visible_faces(posed, points, world2camera)
    fragments = rasterize_perspective(points[None], faces, fine, FOV_DEG, cull_backfaces=False)
    lamps = Lamps.of(figure.person.light, points.device)
    shadow = cast_shadow(posed.vertices, posed.faces[_casts_shadow(posed)], lamps, 192 if size <= 160 else 384)
    features = torch.cat([posed.paint, posed.normals, posed.aux, posed.vertices], dim=1)
    seen = _Seen(fragments.face_index[0].flatten(), fragments.barycentrics[0].flatten(0, 1), faces, material, features)
    colour = paint_backdrop(figure.person.backdrop, min(fine, 256), points.device).T.view(1, 3, min(fine, 256), -1)
    colour = interpolate(colour, size=(fine, fine), mode="bilinear", align_corners=False)[0].flatten(1).T.contiguous()
    _paint_all(colour, seen, (figure.person, lamps, posed, shadow), view.cam2world[0, :3, 3])
    mask = (seen.face >= 0).float().view(1, fine, fine)
    image = interpolate(colour.T.view(1, 3, fine, fine), size=(size, size), mode="area")[0] * 2 - 1
    centre = ((torch.arange(size, device=points.device) + 0.5) * fine / size).long()
    sampled = (centre[:, None] * fine + centre).flatten()
    pixels, kind = seen.attributes(sampled), seen.materials(sampled)
    normals = normalize(pixels[:, 3:6] @ world2camera[:3, :3].T, dim=1) * (kind >= 0)[:, None]
    landmarks = project_landmarks98(figure.head, figure.head(params), camera, size)[0]
    uv = render_correspondence(figure.head, params, camera, size).image[0] if maps else image.new_zeros(3, size, size)
    return Portrait(
        image=image,
        mask=interpolate(mask[None], size=(size, size), mode="area")[0],
        labels=_labels(pixels, kind, figure.person).view(size, size),
        depth=fragments.depth[:, centre][:, :, centre],
        normals=normals.T.reshape(3, size, size),
        uv=uv,
        landmarks98=landmarks,
        landmarks68=landmarks[LANDMARKS_98_TO_70[:68]],
    )


def project_landmarks98(head: HeadModel, vertices: Tensor, camera: Tensor, size: int) -> Tensor:
    """Project the 98 points of posed vertices (B, V, 3): (B, 98, 2) pixels, x right, y **down**."""
    extras = open_head_extras()
    weights = torch.from_numpy(extras.landmark98_barycentrics).to(vertices)
    corners = vertices[:, head.faces[torch.from_numpy(extras.landmark98_faces).to(vertices.device)]]
    flat = project_points(interpolate_corners(weights, corners), camera)
    return torch.stack([flat[..., 0], 1 - flat[..., 1]], dim=-1) * size


def _visible_faces(posed: PosedFigure, points: Tensor, world2camera: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out back faces of closed parts and hair behind the skull; `points` (N, 3) are camera coordinates."""
    a, b, c = (points[posed.faces[:, k]] for k in range(3))
    toward = (torch.linalg.cross(b - a, c - a) * a).sum(1) < 0
    neck_end = ~((posed.material == Material.SKIN) & (posed.paint[posed.faces[:, 0], 1] < NECK_CUT))
    keep = (toward | ~posed.closed) & neck_end
    for centre_mm, radius_mm in SKULL_BALLS:
        centre = posed.head_rotation @ points.new_tensor(centre_mm) * UNIT
        centre = world2camera[:3, :3] @ centre + world2camera[:3, 3]
        off_axis = torch.linalg.cross(a, centre.expand_as(a)).norm(dim=1) / a.norm(dim=1)
        hidden = (off_axis < radius_mm * UNIT) & (a[:, 2] < centre[2])
        keep &= ~(hidden & (posed.material == Material.HAIR))
    return posed.faces[keep], posed.material[keep]


SKULL_BALLS = (((0.0, 59.0, 3.0), 66.0), ((0.0, 0.0, 18.0), 56.0), ((0.0, -46.0, 36.0), 40.0))
"""Balls inside the head, centres from the neck joint and radii in mm: what lies behind them cannot be seen."""
SHADOW_BIAS = {Material.HAIR: 0.022, Material.BEARD: 0.022, Material.SKIN: 0.009, Material.TORSO: 0.011}
"""World units by which a surface must lie behind another one to be in its shadow; 0.014 for other materials."""
NECK_CUT = -172.0
"""Height in mm below which the torso takes the neck's place in pictures."""


def _casts_shadow(posed: PosedFigure) -> Tensor:
    kind = posed.material
    number = torch.arange(len(kind), device=kind.device)
    small = (kind == Material.BROW) | (kind == Material.LASH) | (kind == Material.BEARD) | (kind == Material.EYE)
    mouth = (kind == Material.TEETH) | (kind == Material.TONGUE)
    return ~(small | mouth) & ((kind != Material.HAIR) | (number % 4 < 2))


@dataclass(frozen=True)
class _Seen:
    """What P pixels show: face (P,) or -1, barycentrics (P, 3), faces (T, 3), material (T,), features (N, 15)."""

    face: Tensor
    barycentrics: Tensor
    faces: Tensor
    material: Tensor
    features: Tensor

    def materials(self, index: Tensor) -> Tensor:
        """Return the material of pixels, -1 in the background."""
        face = self.face[index]
        return torch.where(face >= 0, self.material[face.clamp_min(0)], -1)

    def attributes(self, index: Tensor) -> Tensor:
        """Return the interpolated features (n, 15) of pixels."""
        corners = self.faces[self.face[index].clamp_min(0)]
        weights = self.barycentrics[index]
        first = self.features.index_select(0, corners[:, 0]) * weights[:, :1]
        second = self.features.index_select(0, corners[:, 1]) * weights[:, 1:2]
        return first + second + self.features.index_select(0, corners[:, 2]) * weights[:, 2:]


PIXELS_AT_ONCE = 1 << 15
"""Pixels that a CPU paints at a time: few enough for its caches."""


def _paint_all(
    colour: Tensor, seen: _Seen, world: tuple[Appearance, Lamps, PosedFigure, Shadow], origin: Tensor
) -> None:
    """Paint every material's pixels over the backdrop (P, 3), in place."""
    person, lamps, posed, shadow = world
    covered = (seen.face >= 0).nonzero()[:, 0]
    kind = seen.materials(covered)
    step = PIXELS_AT_ONCE if colour.device.type == "cpu" else len(covered) + 1
    jobs = [(m, part) for m in PAINTERS for part in covered[kind == int(m)].split(step) if len(part)]
    for material, index in jobs:
        values = seen.attributes(index)
        position = values[:, 12:15]
        view = normalize(origin - position, dim=1)
        normal = normalize(values[:, 3:6], dim=1)
        bias = SHADOW_BIAS.get(material, 0.014)
        visible = shadow.visibility(position + 0.006 * normal, bias)
        visible = 0.14 + 0.86 * visible if material in (Material.SKIN, Material.TORSO) else visible
        px = Pixels(values[:, :3], normal, view, values[:, 6:12], visible)
        colour[index] = tone_map(PAINTERS[material](px, person, lamps, posed))


def paint_backdrop(backdrop: Backdrop, size: int, device: torch.device | str) -> Tensor:
    """Return the background (size * size, 3) in [0, 1]: a gradient, a vignette and blurred discs."""
    axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    along = 0.5 + 0.5 * (x * np.cos(backdrop.angle_rad) + y * np.sin(backdrop.angle_rad)) / 1.42
    first, second = (torch.tensor(c, device=device) for c in (backdrop.first, backdrop.second))
    colour = first + (along * along * (3 - 2 * along))[..., None] * (second - first)
    rng = np.random.default_rng(backdrop.seed)
    for _ in range(backdrop.discs):
        cx, cy, radius, gain = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0.1, 0.34), rng.uniform(0.04, 0.2)
        distance = ((x - cx) ** 2 + (y - cy) ** 2).sqrt()
        colour = colour * (1 + gain * ((radius - distance) / 0.04).clamp(0, 1)[..., None])
    glow = torch.exp(-((x * x + (y - 0.1) ** 2) / 0.9))
    return tone_map((colour * (0.8 + 0.4 * glow[..., None])).reshape(-1, 3))


def _labels(pixels: Tensor, kind: Tensor, person: Appearance) -> Tensor:
    """Return labels (P,) from materials and paint coordinates."""
    p, lip, sine, ear = pixels[:, :3], pixels[:, 6], pixels[:, 8], pixels[:, 9]
    labels = torch.full_like(kind, int(Label.BACKGROUND))
    skin = kind == Material.SKIN
    plain = {
        Material.SKIN: Label.SKIN,
        Material.EYE: Label.EYES,
        Material.TEETH: Label.MOUTH,
        Material.TONGUE: Label.MOUTH,
        Material.HAIR: Label.HAIR,
        Material.BROW: Label.BROWS,
        Material.LASH: Label.EYES,
        Material.BEARD: Label.SKIN,
        Material.COLLAR: Label.CLOTH,
        Material.GLASSES: Label.GLASSES,
    }
    for material, label in plain.items():
        labels[kind == int(material)] = int(label)
    u = (p[:, 0].abs() / 25.5).clamp(0, 1)
    lips = skin & (lip < 7.6 * (1 - u**4))
    labels[lips & (sine > 0)] = int(Label.UPPER_LIP)
    labels[lips & (sine <= 0)] = int(Label.LOWER_LIP)
    labels[skin & (lip < -0.2)] = int(Label.MOUTH)
    labels[skin & (ear > 0.5)] = int(Label.EARS)
    nose = (p[:, 0].abs() < 10 + 9 * ((-p[:, 1] - 8) / 28).clamp(0, 1)) & (p[:, 1] < 4) & (p[:, 1] > -50.5)
    labels[skin & nose & (p[:, 2] > 82) & (lip > 16)] = int(Label.NOSE)
    neck = skin & (p[:, 1] < -102) & (p[:, 1] < -112 + 0.4 * (60 - p[:, 2]))
    labels[neck] = int(Label.NECK)
    torso = kind == Material.TORSO
    labels[torso] = torch.where(cloth_share(p[torso], person) > 0.5, int(Label.CLOTH), int(Label.NECK))
    if person.hair_name != "bald":
        recession = person.hair.recession if person.hair is not None else 0.0
        labels[skin & (hairline_depth_tensor(p, recession) > 4) & (ear < 0.5)] = int(Label.HAIR)
    return labels


def frame_of(
    person: Appearance,
    expression: Tensor,
    jaw_rad: Tensor | None = None,
    eye_pose: Tensor | None = None,
    neck_rad: Tensor | None = None,
) -> HeadParams:
    """Return one frame's parameters (batch of 1) of a person.

    Args:
        person: gives the identity.
        expression: (100,) coefficients.
        jaw_rad, neck_rad: (3,) axis-angles; zero if omitted.
        eye_pose: (6,) axis-angles of both eyes; zero if omitted.
    """
    zero = torch.zeros(3)
    pose = torch.cat([zero if neck_rad is None else neck_rad, zero if jaw_rad is None else jaw_rad])
    shape = torch.from_numpy(np.asarray(person.shape))[None]
    eyes = torch.zeros(6) if eye_pose is None else eye_pose
    return HeadParams(shape, expression[None], pose[None], eyes[None])
