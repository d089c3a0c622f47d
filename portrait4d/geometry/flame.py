"""The head model (FLAME, or an open head with FLAME's interface): parameters in, vertices in world units out.

World units are metres of the head model times WORLD_PER_METRE, recentred so that the neck joint of the canonical head
(zero shape and expression, jaw opened by 0.3 rad) is the origin. Every step is a float32 matrix product in the order of
the reference (`flame.md` section 3): the last bit of a vertex decides ties of the head-pose deformation field.
Joints: 0 root (never rotated), 1 neck, 2 jaw, 3 left eye, 4 right eye.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from portrait4d.geometry.flame_assets import HeadAssets
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.meshes import interpolate_corners
from portrait4d.geometry.open_head import OpenHead, digest_assets
from portrait4d.geometry.rotations import axis_angle_to_matrix

WORLD_PER_METRE = 3.0
NECK = 1

HEAD_TENSORS = (
    "template",
    "blend_directions",
    "pose_directions",
    "joint_regressor",
    "parents",
    "skinning_weights",
    "faces",
    "landmark_faces",
    "landmark_barycentrics",
    "canonical_vertices",
    "coarse_indices",
    "coarse_barycentrics",
    "coarse_faces",
    "vertex_neighbours",
)
"""Buffers of every head model; beside them one `region_<name>` index list for each region."""


@dataclass(frozen=True)
class RestHead:
    """A head of one identity and expression before its joints turn: `vertices` (B, V, 3), `joints` (B, J, 3)."""

    vertices: Tensor
    joints: Tensor


class HeadModel(nn.Module):
    """A blend-shape head with linear blend skinning. All tensors are buffers; nothing is learnt.

    Buffers (float32 / int64): template (V, 3), blend_directions (V, 3, shapes + expressions), pose_directions
    (3V, 9(J-1)), joint_regressor (J, V), parents (J), skinning_weights (V, J), faces (T, 3), landmark_faces (K),
    landmark_barycentrics (K, 3), canonical_vertices (V, 3), coarse_indices (N, 3), coarse_barycentrics (N, 3),
    coarse_faces (t, 3), vertex_neighbours (V, 10) padded with V, region_<name> (n).
    """

    def __init__(self, tensors: dict[str, Tensor], name: str, open_head: OpenHead | None = None) -> None:
        """Build a head from its buffers, already in world units.

        Args:
            tensors: every name of HEAD_TENSORS and any number of `region_<name>` lists.
            name: which head this is, "flame" or the name of an open head.
            open_head: identity of a head that checkpoints name instead of storing it; None for a licensed one.

        Raises:
            ValueError: if a tensor is missing or unknown.
        """
        super().__init__()
        missing = [key for key in HEAD_TENSORS if key not in tensors]
        unknown = [key for key in tensors if key not in HEAD_TENSORS and not key.startswith("region_")]
        if missing or unknown:
            raise ValueError(f"head tensors: missing {missing}, unknown {unknown}")
        self.name = name
        self.open_head = open_head
        self._parents: list[int] | None = None
        for key, tensor in tensors.items():
            self.register_buffer(key, tensor)

    @classmethod
    def from_assets(cls, assets: HeadAssets, open_version: int | None = None) -> "HeadModel":
        """Rescale a head model's arrays to world units and move the canonical neck joint to the origin (`flame.md` 5).

        Args:
            assets: arrays in metres.
            open_version: version of an open head, None for a licensed one.
        """
        regions = {f"region_{key}": torch.from_numpy(value) for key, value in assets.regions.items()}
        vertex_count = len(assets.template)
        tensors = {
            "template": torch.from_numpy(assets.template) * WORLD_PER_METRE,
            "blend_directions": torch.from_numpy(assets.blend_directions) * WORLD_PER_METRE,
            "pose_directions": torch.from_numpy(assets.pose_directions).reshape(3 * vertex_count, -1) * WORLD_PER_METRE,
            "canonical_vertices": torch.zeros(vertex_count, 3),
        }
        for key in HEAD_TENSORS:
            if key not in tensors:
                tensors[key] = torch.from_numpy(getattr(assets, key))
        open_head = None if open_version is None else OpenHead(assets.name, open_version, digest_assets(assets))
        head = cls({key: value.contiguous() for key, value in (tensors | regions).items()}, assets.name, open_head)
        head._recentre(assets)
        return head

    def _recentre(self, assets: HeadAssets) -> None:
        canonical = HeadParams(
            shape=torch.from_numpy(assets.canonical_shape)[None],
            expression=torch.from_numpy(assets.canonical_expression)[None],
            pose=torch.from_numpy(assets.canonical_pose)[None],
            eye_pose=torch.zeros(1, 6),
        )
        rest = self.rest(canonical.shape, canonical.expression)
        neck = self.posed_joints(rest, canonical)[0, NECK]
        self.canonical_vertices.copy_(self.posed_vertices(rest, canonical)[0] - neck)
        self.template.sub_(neck)

    def forward(self, params: HeadParams) -> Tensor:
        """Return vertices (B, V, 3) in world units."""
        return self.posed_vertices(self.rest(params.shape, params.expression), params)

    def rest(self, shape: Tensor, expression: Tensor) -> RestHead:
        """Blend identity (B, shapes) and expression (B, expressions); joints follow from the blended vertices."""
        coefficients = torch.cat([shape, expression], dim=1)
        if coefficients.shape[1] != self.blend_directions.shape[2]:
            raise ValueError(
                f"shape and expression: expected {self.blend_directions.shape[2]} coefficients together, "
                f"got {shape.shape[1]} + {expression.shape[1]}"
            )
        vertices = self.template + torch.einsum("bl,mkl->bmk", coefficients, self.blend_directions)
        return RestHead(vertices, torch.einsum("bik,ji->bjk", vertices, self.joint_regressor))

    def posed_vertices(self, rest: RestHead, params: HeadParams) -> Tensor:
        """Turn the joints of a resting head: pose correctives, then skinning. Returns (B, V, 3)."""
        batch, vertex_count = rest.vertices.shape[:2]
        rotations = _joint_rotations(params)
        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        features = (rotations[:, 1:] - identity).reshape(batch, -1)
        correctives = torch.matmul(features, self.pose_directions.T).view(batch, vertex_count, 3)
        vertices = rest.vertices + correctives.detach()  # values only, as in the reference
        chain = self._joint_chain(rotations, rest.joints)
        turned_joint = chain[:, :, :3, :3] @ rest.joints[..., None]
        relative = torch.cat([chain[..., :3], chain[..., 3:] - _pad_row(turned_joint)], dim=-1)
        weights = self.skinning_weights.expand(batch, -1, -1)
        transforms = torch.matmul(weights, relative.view(batch, -1, 16)).view(batch, vertex_count, 4, 4)
        homogeneous = torch.cat([vertices, torch.ones_like(vertices[..., :1])], dim=-1)
        return torch.matmul(transforms, homogeneous[..., None])[:, :, :3, 0]

    def posed_joints(self, rest: RestHead, params: HeadParams) -> Tensor:
        """Return the joints (B, J, 3) after turning. The neck joint does not move under its own rotation."""
        return self._joint_chain(_joint_rotations(params), rest.joints)[..., :3, 3]

    def landmarks(self, vertices: Tensor) -> Tensor:
        """Return the landmarks (B, K, 3) of vertices (B, V, 3): 17 contour, 51 inner points, two eye centres."""
        corners = vertices[:, self.faces[self.landmark_faces]]
        return interpolate_corners(self.landmark_barycentrics, corners)

    def coarse_vertices(self, vertices: Tensor) -> Tensor:
        """Return the simplified mesh's vertices (B, N, 3) of vertices (B, V, 3)."""
        return interpolate_corners(self.coarse_barycentrics, vertices[:, self.coarse_indices])

    def region(self, name: str) -> Tensor:
        """Return the vertex indices (n,) of a region: face, eyes, lips, eyelids, ... (`flame_assets.HeadAssets`)."""
        return getattr(self, f"region_{name}")

    def _parent_list(self) -> list[int]:
        """Return the joints' parents as numbers; kept, because reading a tensor waits for the device."""
        if self._parents is None:
            self._parents = self.parents.tolist()
        return self._parents

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._parents = None

    def _joint_chain(self, rotations: Tensor, joints: Tensor) -> Tensor:
        """Chain local transforms [R_j | joint_j - joint_parent] to world transforms (B, J, 4, 4)."""
        parents = self._parent_list()
        offsets = joints.clone()
        offsets[:, 1:] -= joints[:, self.parents[1:]]
        last_row = pad(torch.ones_like(joints[..., None, :1]), (3, 0))
        local = torch.cat([torch.cat([rotations, offsets[..., None]], dim=-1), last_row], dim=-2)
        world = [local[:, 0]]
        for joint in range(1, len(parents)):
            world.append(world[parents[joint]] @ local[:, joint])
        return torch.stack(world, dim=1)


def _joint_rotations(params: HeadParams) -> Tensor:
    """Return rotations (B, 5, 3, 3) of root (identity), neck, jaw, left eye, right eye."""
    root = torch.zeros_like(params.pose[:, :3])
    return axis_angle_to_matrix(torch.cat([root, params.pose, params.eye_pose], dim=1).unflatten(1, (-1, 3)))


def _pad_row(columns: Tensor) -> Tensor:
    """Append a zero row to (..., 3, 1) columns."""
    return torch.cat([columns, torch.zeros_like(columns[..., :1, :])], dim=-2)
