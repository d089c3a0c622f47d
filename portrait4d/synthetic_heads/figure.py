"""Put one person together: the head model, hair, shoulders, teeth and glasses as one mesh with paint coordinates.

`build_figure` does everything that stays for a person, `pose_figure` what changes from frame to frame. Positions are in
world units (neck joint at the origin), paint coordinates in millimetres of the neutral head.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache

import numpy as np
import torch
from torch import Tensor

from portrait4d.geometry.flame import NECK, HeadModel
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.meshes import vertex_normals
from portrait4d.geometry.rotations import axis_angle_to_matrix
from portrait4d.synthetic_heads import bodies
from portrait4d.synthetic_heads.appearance import Appearance
from portrait4d.synthetic_heads.hair_knots import tie_bun, tie_tail
from portrait4d.synthetic_heads.hair_roots import NECK_TO_ORIGIN, neutral_millimetres
from portrait4d.synthetic_heads.head_mechanics import JAW_JOINT, NECK_JOINT, neck_weight
from portrait4d.synthetic_heads.head_sculpt import EYE_CENTRE
from portrait4d.synthetic_heads.head_template import VERSION, open_head_assets, open_head_extras
from portrait4d.synthetic_heads.skin_mesh import (
    HEAD_COUNT,
    UNIT,
    head_refinement,
    lip_closing,
    skin_coordinates,
    slim_neck,
    torso_ambient,
    upper_lid_vertices,
)
from portrait4d.synthetic_heads.smooth_mesh import Subdivision
from portrait4d.synthetic_heads.strands import Strands, grow_beard, grow_brows, grow_lashes, grow_scalp_hair

Turn = Callable[[Tensor, Tensor], Tensor]
"""Points (..., 3) and their heights (...) in mm on the neutral head to where the neck's rotation takes them."""


class Material(IntEnum):
    """What a triangle is made of."""

    SKIN = 0
    EYE = 1
    TEETH = 2
    TONGUE = 3
    HAIR = 4
    BROW = 5
    LASH = 6
    BEARD = 7
    TORSO = 8
    COLLAR = 9
    GLASSES = 10


@dataclass(frozen=True)
class Detail:
    """How finely a figure is built: `subdivide` the head, count hair and beard strands, points and width of hair."""

    subdivide: bool
    strands: int
    beard: int
    points: int
    width: float = 1.0

    @classmethod
    def for_size(cls, size: int) -> "Detail":
        """Return what suits pictures of `size` pixels."""
        if size <= 160:
            return cls(False, 1000, 800, 8, 1.5)
        if size <= 288:
            return cls(True, 1900, 1500, 12, 1.2)
        return cls(True, 3400, 2800, 18)


@dataclass(frozen=True)
class Figure:
    """A person ready to be posed. Tensors live on one device.

    Attributes:
        person: what was drawn.
        head: the head model.
        detail: fineness.
        refine: the head's subdivision, or None.
        head_paint: (V or V', 9) rest position | lip, lid, ring sine, ear, ambient light, blemish-free flag.
        strands: material and strands, with everything as tensors.
        solids: material and rigid bodies.
    """

    person: Appearance
    head: HeadModel
    detail: Detail
    refine: Subdivision | None
    head_paint: Tensor
    strands: list[tuple[Material, dict[str, Tensor]]]
    solids: list[tuple[Material, bodies.Body, Tensor, Tensor]]


@dataclass(frozen=True)
class PosedFigure:
    """One frame's triangles.

    Attributes:
        vertices: (N, 3) world units.
        faces: (T, 3); `material` (T,) int64; `closed` (T,) whether back faces can be left out.
        paint: (N, 3) rest position in mm; for hair the direction of the strand, world axes.
        normals: (N, 3) world axes, unit.
        aux: (N, 6) by material, see `skin_coordinates` and `_strand_part`; of eyes the upright position.
        upper_lids: (2, 17, 3) upper lid margins of the left and right eye before the neck turns, world units.
        head_rotation: (3, 3) of the neck joint.
        mouth_open: distance of the lips in mm.
        brow_raise, smile: how far brows and the corners of the mouth have moved up, in mm.
    """

    vertices: Tensor
    faces: Tensor
    material: Tensor
    closed: Tensor
    paint: Tensor
    normals: Tensor
    aux: Tensor
    upper_lids: Tensor
    head_rotation: Tensor
    mouth_open: float
    brow_raise: float
    smile: float


@cache
def open_head_model() -> HeadModel:
    """Return the open head as a head model, built once, on the CPU."""
    return HeadModel.from_assets(open_head_assets(), VERSION).requires_grad_(False)


def build_figure(person: Appearance, detail: Detail, device: torch.device | str = "cpu") -> Figure:
    """Grow hair and collect the parts of a person."""
    device = torch.device(device)
    head = open_head_model() if device.type == "cpu" else _model_on(device)
    rng = np.random.default_rng([person.seed, 5])
    refine = head_refinement() if detail.subdivide else None
    paint = skin_coordinates() if refine is None else refine.refine(skin_coordinates())
    if refine is not None:
        refine = Subdivision(refine.matrix.to(device), refine.faces.to(device))
    grown = [(Material.BROW, grow_brows(person.face.brow_thickness, person.face.brow_length, 330, rng))]
    grown.append((Material.LASH, grow_lashes(person.face.lash_length, rng)))
    if person.hair is not None:
        count = int(detail.strands * (0.65 if person.hair.length_side > 100 else 1))
        cut = replace(person.hair, width=person.hair.width * detail.width)
        grown.append((Material.HAIR, grow_scalp_hair(cut, count, rng, detail.points)))
    if person.hair_name in ("bun", "ponytail"):
        grown.append((Material.HAIR, _knot(person, detail, rng)))
    if person.beard:
        grown.append((Material.BEARD, grow_beard(person.beard, person.beard_length, detail.beard, rng)))
    strands = [(material, _tensors(part, device)) for material, part in grown]
    solids = [(Material.TORSO, bodies.build_torso()), (Material.COLLAR, bodies.build_collar(person.neckline))]
    solids += [(Material.TEETH, bodies.build_teeth(True)), (Material.TEETH, bodies.build_teeth(False))]
    solids.append((Material.TONGUE, bodies.build_tongue()))
    if person.glasses:
        solids += [(Material.GLASSES, part) for part in bodies.build_glasses(person.glasses)]
    placed = [
        (m, b, torch.from_numpy(b.vertices).float().to(device), torch.from_numpy(b.faces).to(device)) for m, b in solids
    ]
    return Figure(person, head, detail, refine, paint.to(device), strands, placed)


@cache
def _model_on(device: torch.device) -> HeadModel:
    return HeadModel.from_assets(open_head_assets(), VERSION).requires_grad_(False).to(device)


def _knot(person: Appearance, detail: Detail, rng: np.random.Generator) -> Strands:
    """Return a bun or a pony tail: strands wound on a ball, or hanging from the back of the head."""
    count = detail.strands // 4
    return tie_bun(count, detail.points, rng) if person.hair_name == "bun" else tie_tail(count, detail.points, rng)


def _tensors(part: Strands, device: torch.device) -> dict[str, Tensor]:
    tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in vars(part).items()}
    return {k: (v.float() if v.is_floating_point() else v).to(device) for k, v in tensors.items()}


def pose_figure(figure: Figure, params: HeadParams) -> PosedFigure:
    """Pose a figure.

    Args:
        figure: the person.
        params: one frame (batch of 1); its shape coefficients are used as they are.
    """
    head = figure.head
    upright = params.without_neck_rotation()
    still = head(upright)[0]
    rest = head.rest(params.shape, params.expression)
    neck_rotation = axis_angle_to_matrix(params.pose[:, :3])[0]
    turning = bool(params.pose[:, :3].abs().max() > 0)
    posed = head(params)[0] if turning else still
    pivot = rest.joints[0, NECK]
    parts = [_head_part(figure, posed), *_eye_parts(figure, posed, still)]
    jaw_rotation = axis_angle_to_matrix(params.pose[:, 3:])[0]

    def turn(points: Tensor, height_mm: Tensor) -> Tensor:
        if not turning:
            return points
        weight = torch.from_numpy(neck_weight(height_mm.cpu().double().numpy())).to(points)[..., None]
        return points + weight * ((points - pivot) @ neck_rotation.T + pivot - points)

    for material, strands in figure.strands:
        parts.append(_strand_part(figure, material, strands, still, turn))
    identity = head.template + torch.einsum("mkl,l->mk", head.blend_directions[..., :300], params.shape[0])
    shift = _accessory_shifts(figure, identity)
    girth = _neck_girth(figure, identity)
    for material, body, vertices, faces in figure.solids:
        placed = shift[_anchor(material)] + _placed(vertices, body.follows, girth)
        parts.append(_solid_part(material, body.follows, (vertices, faces, placed), (jaw_rotation, turn)))
    counts = np.cumsum([0] + [len(part["vertices"]) for part in parts])
    lids = torch.from_numpy(upper_lid_vertices()).to(still.device)
    extras = open_head_extras()
    lips = still[[int(np.nonzero((extras.lip_row == 6) & (extras.ring_sin == s))[0][0]) for s in (1.0, -1.0)]]
    return PosedFigure(
        **{key: torch.cat([part[key] for part in parts]) for key in ("vertices", "paint", "normals", "aux")},
        faces=torch.cat([part["faces"] + int(start) for part, start in zip(parts, counts, strict=False)]),
        material=torch.cat([torch.full((len(p["faces"]),), int(p["material"])) for p in parts]).to(still.device),
        closed=torch.cat([torch.full((len(p["faces"]),), p["closed"]) for p in parts]).to(still.device),
        upper_lids=still[lids],
        head_rotation=neck_rotation,
        brow_raise=_lift(still, identity, (24.0, 20.0)),
        smile=_lift(still, identity, (25.0, -67.0)),
        mouth_open=float((lips[0] - lips[1]).norm() / UNIT),
    )


def _part(material: Material, closed: bool, **tensors: Tensor) -> dict:
    return {"material": material, "closed": closed, **tensors}


def _lift(still: Tensor, identity: Tensor, place: tuple[float, float]) -> float:
    """Return how far in mm an expression raises the skin near |x|, y of the neutral face."""
    rest = neutral_millimetres()[0][:HEAD_COUNT]
    gap = (np.abs(rest[:, 0]) - place[0]) ** 2 + (rest[:, 1] - place[1]) ** 2
    near = torch.from_numpy(np.nonzero((gap < 25) & (rest[:, 2] > 50))[0]).to(still.device)
    return float((still[near, 1] - identity[near, 1]).mean() / UNIT)


def _head_part(figure: Figure, posed: Tensor) -> dict:
    whole = posed[:HEAD_COUNT]
    slim = slim_neck(whole, whole.device)
    if figure.refine is None:
        faces, vertices = figure.head.faces[: len(figure.head.faces) - 2 * 1088], slim
    else:
        closed = lip_closing(whole.device)  # refinement rounds the lips' edges apart
        vertices, whole = figure.refine.refine(slim + closed), figure.refine.refine(whole + closed)
        faces = figure.refine.faces
    normals = vertex_normals(whole[None], faces)[0]  # of the unslimmed neck, so that it meets the torso without an edge
    paint = figure.head_paint
    return _part(
        Material.SKIN, True, vertices=vertices, faces=faces, normals=normals, paint=paint[:, :3], aux=paint[:, 3:]
    )


def _eye_parts(figure: Figure, posed: Tensor, still: Tensor) -> list[dict]:
    parts = []
    rest, _ = neutral_millimetres()
    for number in range(2):
        ball = slice(HEAD_COUNT + 546 * number, HEAD_COUNT + 546 * (number + 1))
        first = len(figure.head.faces) - 1088 * (2 - number)
        faces = figure.head.faces[first : first + 1088] - ball.start
        vertices = posed[ball]
        centre = EYE_CENTRE * (1 if number == 0 else -1, 1, 1)
        local = torch.from_numpy(rest[ball] - centre).to(vertices)
        number_column = torch.full((546, 1), float(number), device=vertices.device)
        aux = torch.cat([still[ball], number_column, torch.ones(546, 2, device=vertices.device)], dim=1)
        normals = vertex_normals(vertices[None], faces)[0]
        parts.append(_part(Material.EYE, True, vertices=vertices, faces=faces, normals=normals, paint=local, aux=aux))
    return parts


def _strand_part(figure: Figure, material: Material, strands: dict[str, Tensor], still: Tensor, turn: Turn) -> dict:
    """Place ribbons: aux = place from root to tip, side -1 or 1, random number, layer, length in mm, rest height."""
    corners = figure.head.faces[strands["face"]]
    root = (still[corners] * strands["weights"][..., None]).sum(1)
    middle = root[:, None] + UNIT * strands["offset"]
    count, points = middle.shape[:2]
    sides = torch.stack([middle - UNIT * strands["across"], middle + UNIT * strands["across"]], dim=2)
    height = (strands["root"][:, None, 1] + strands["offset"][..., 1])[:, :, None].expand(-1, -1, 2)
    vertices = turn(sides, height)
    place = torch.linspace(0, 1, points, device=middle.device)[None, :, None].expand(count, points, 2)
    side = torch.tensor([-1.0, 1.0], device=middle.device).expand(count, points, 2)
    random, layer, length = (strands["shade"][:, k, None, None].expand(count, points, 2) for k in range(3))
    aux = torch.stack([place, side, random, layer, length, height], dim=-1)
    number = torch.arange(count * points * 2, device=middle.device).view(count, points, 2)
    a, b, c, d = number[:, :-1, 0], number[:, :-1, 1], number[:, 1:, 1], number[:, 1:, 0]
    faces = torch.stack([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)], 2).reshape(-1, 3)
    spread = {k: strands[k][:, :, None].expand(-1, -1, 2, -1).reshape(-1, 3) for k in ("normal", "tangent")}
    return _part(
        material,
        False,
        vertices=vertices.reshape(-1, 3),
        faces=faces,
        normals=spread["normal"],
        paint=spread["tangent"],
        aux=aux.reshape(-1, 6),
    )


def _placed(rest: Tensor, follows: str, girth: tuple[Tensor, Tensor]) -> Tensor:
    points = _widen_neck(rest, girth) if follows == "body" else rest
    return (points + rest.new_tensor(NECK_TO_ORIGIN)) * UNIT


def _anchor(material: Material) -> str:
    return {Material.GLASSES: "eyes", Material.TEETH: "mouth", Material.TONGUE: "mouth"}.get(material, "none")


def _accessory_shifts(figure: Figure, identity: Tensor) -> dict[str, Tensor]:
    """Return how far the person's eyes and mouth lie from the neutral head's, world units."""
    change = identity - figure.head.template
    extras = open_head_extras()
    seam = torch.from_numpy(np.nonzero((extras.lip_row == 6) & (np.abs(extras.ring_sin) > 0.5))[0]).to(change.device)
    mouth = change[seam].mean(0)
    mouth = mouth * mouth.new_tensor([0.5, 1.0, 1.0])
    eyes = change[HEAD_COUNT:].mean(0)
    return {"none": torch.zeros_like(eyes), "mouth": mouth, "eyes": eyes}


def _neck_girth(figure: Figure, identity: Tensor) -> tuple[Tensor, Tensor]:
    """Return the person's neck width and depth as shares of the neutral neck's, at the collar."""
    ring = torch.from_numpy(np.nonzero(np.abs(neutral_millimetres()[0][:HEAD_COUNT, 1] + 150) < 14)[0])
    ring = ring.to(identity.device)
    spread = [points[ring].amax(0) - points[ring].amin(0) for points in (identity, figure.head.template)]
    return spread[0][0] / spread[1][0], spread[0][2] / spread[1][2]


def _widen_neck(rest: Tensor, girth: tuple[Tensor, Tensor]) -> Tensor:
    """Scale the torso's neck about its axis, fading out on the shoulders."""
    y = rest[:, 1]
    share = ((y + 205) / 45).clamp(0, 1)
    axis_z = -24 - 0.09 * (-80 - y)
    x = rest[:, 0] * (1 + share * (girth[0] - 1))
    z = axis_z + (rest[:, 2] - axis_z) * (1 + share * (girth[1] - 1))
    return torch.stack([x, y, z], dim=1)


def _solid_part(
    material: Material, follows: str, mesh: tuple[Tensor, Tensor, Tensor], motion: tuple[Tensor, Turn]
) -> dict:
    rest, faces, points = mesh
    jaw_rotation, turn = motion
    if follows == "jaw":
        pivot = rest.new_tensor((JAW_JOINT - NECK_JOINT) * UNIT)
        points = points + 0.95 * ((points - pivot) @ jaw_rotation.T + pivot - points)
    if follows != "body":
        points = turn(points, torch.zeros_like(rest[:, 1]))
    normals = vertex_normals(points[None], faces)[0]
    aux = torch.zeros(len(rest), 6, device=rest.device)
    if material == Material.TORSO:
        aux[:, 4] = torch.from_numpy(torso_ambient()).to(aux)
    return _part(material, False, vertices=points, faces=faces, normals=normals, paint=rest, aux=aux)
