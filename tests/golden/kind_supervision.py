"""sampling.npz, the parts that a training's supervision is responsible for: cameras, views, conditions."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from portrait4d.config.gan_networks import GenHeadConfig
from portrait4d.data.parameter_bank import VIEWS, SubjectViews
from portrait4d.geometry.face_alignment import motion_crop
from portrait4d.geometry.flame import NECK
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.lookat_cameras import look_at_pose, random_camera_pose
from portrait4d.geometry.neck_pose import camera_for_posed_neck
from portrait4d.training.fake_conditions import ConditionRows, FakeConditions, build_conditions
from portrait4d.training.genhead_supervision import (
    TRUNCATION,
    CameraDraws,
    GenHeadSupervisionConfig,
    PlannedViews,
    RenderedViews,
    arrange_views,
    choose_samples,
    plan_views,
)
from tests.golden.cases import standin_head
from tests.golden.comparison import Result, compare, everywhere
from tests.helpers.loss_stubs import named_tensor, pictures, stub_motion

Golden = np.lib.npyio.NpzFile
CLOSE, LOOK_AT, EXACT = everywhere(1e-4), everywhere(5e-4), everywhere(0)
INPUTS = (
    r"lookat/(?!cam2world)|decompose/(c_compose|pose$)|synth/(draw/|camera_in|landmarks)|random_camera/draw|"
    r"conditions/(labels_|.*/row)|triplane_points/(eye_mask|mouth_mask|permutation|selected_image)"
)
"""Names of arrays that are inputs, as a regular expression."""
PER_PHASE = 4
ROW_KINDS = {
    "shape": "shape",
    "expression": "expression_jaw",
    "eye_pose": "eye",
    "camera": "camera",
    "neck": "pose",
}


def cameras(path: Path, golden: Golden) -> Iterator[Result]:
    """Compare look-at poses, random cameras, and cameras for posed necks."""
    horizontal, vertical, roll, radius = (
        _tensor(golden, f"lookat/{name}")[:, 0] for name in ("horizontal", "vertical", "roll", "radius")
    )
    ours = look_at_pose(horizontal, vertical, roll, _tensor(golden, "lookat/pivot"), radius)
    yield compare(path, "lookat/cam2world", ours.numpy(), golden["lookat/cam2world"], LOOK_AT)
    ours = random_camera_pose(_tensor(golden, "random_camera/draws").T).flatten(1)
    yield compare(path, "random_camera/cam2world", ours.numpy(), golden["random_camera/cam2world"], LOOK_AT)
    pose, head = _tensor(golden, "decompose/pose"), standin_head()
    shape, expression = (
        named_tensor("decompose/shape", (6, 300), 0.6),
        named_tensor("decompose/expression", (6, 100), 0.5),
    )
    params = HeadParams(shape, expression, pose, torch.zeros_like(pose))
    ours = camera_for_posed_neck(head, params, _tensor(golden, "decompose/c_compose")).numpy()
    for case in ("free", "limited"):
        yield compare(path, f"decompose/{case}/c", ours, golden[f"decompose/{case}/c"], CLOSE)
    joint = head.posed_joints(head.rest(shape, expression), params.without_neck_rotation())[:, NECK]
    yield compare(path, "decompose/neck_joint", joint.numpy(), golden["decompose/neck_joint"], CLOSE)


def synthesis(path: Path, golden: Golden) -> Iterator[Result]:
    """Compare what GenHead is asked for, and the motion read from its pictures."""
    pose = named_tensor("synth/pose", (2, VIEWS, 6), 0.2)
    pose[..., :3] = 0
    views = SubjectViews(
        _tensor(golden, "synth/camera_in"),
        named_tensor("synth/shape", (2, 1, 300), 0.6).repeat(1, VIEWS, 1),
        named_tensor("synth/expression", (2, VIEWS, 100), 0.5),
        pose,
        torch.zeros_like(pose),
    )
    poses = [_tensor(golden, f"synth/draw/{name}") for name in golden["random_camera/draw_order"]]
    coins = _tensor(golden, "synth/draw/use_random_camera")
    planned = plan_views(standin_head(), views, CameraDraws(torch.stack(poses, dim=1), coins))
    crops, _ = motion_crop(pictures("synth/image", 512, batch=6), _tensor(golden, "synth/landmarks"), reverse_y=True)
    found = {
        "c_compose": planned.camera_upright,
        "c": planned.camera,
        "condition_camera": planned.condition_camera,
        "condition_shape_sub": planned.params.shape[:, ::10],
        "motions_sub": stub_motion(crops)[:, ::4],
    }
    for name, ours in found.items():
        criterion = LOOK_AT if name.startswith("c") else CLOSE
        yield compare(path, f"synth/{name}", ours.numpy(), golden[f"synth/{name}"], criterion)
    # The second truncation, to the average, is of styles for super-resolution, which has none of its own here.
    for name, value in (("truncations", (TRUNCATION.psi, 0)), ("truncation_cutoffs", (TRUNCATION.cutoff,) * 2)):
        yield compare(path, f"synth/{name}", np.array(value), golden[f"synth/{name}"], EXACT)
    sizes = {"resolution": GenHeadSupervisionConfig().resolution, "half_size": GenHeadConfig().image_resolution // 2}
    for name, value in sizes.items():
        yield compare(path, f"synth/{name}", np.int64(value), golden[f"synth/{name}"], EXACT)


def views(path: Path, golden: Golden) -> Iterator[Result]:
    """Compare which view feeds which input, with views that are their own numbers."""
    number = torch.arange(6.0)[:, None]
    params = HeadParams(*(number + offset for offset in (100, 200, 300, 400)))
    planned = PlannedViews(params, number, number, number)
    batch = arrange_views(RenderedViews(*[number] * len(RenderedViews._fields)), planned, torch.zeros(2).bool())
    found = {
        "image_source": batch.source_image,
        "image_driving": batch.driving_image,
        "image_target": batch.target_image,
        "seg": batch.target_mask,
        "uv": batch.target_correspondence,
        "c": batch.camera,
        "c_compose": batch.camera_upright,
        "motion_source": batch.source_motion,
        "motion_driving": batch.driving_motion,
        "depth": batch.depth,
        "feature": batch.features,
        "background": batch.background,
        "shape": batch.params.shape,
        "expression": batch.params.expression,
        "pose": batch.params.pose,
        "eye": batch.params.eye_pose,
    }
    for name, ours in found.items():
        yield compare(path, f"views/{name}", ours[:, 0].numpy(), golden[f"views/{name}"], EXACT)


def plane_samples(path: Path, golden: Golden) -> Iterator[Result]:
    """Compare the samples chosen for the comparison of planes."""
    covered = (
        _tensor(golden, "triplane_points/eye_mask").float() + _tensor(golden, "triplane_points/mouth_mask").float()
    )
    usable = covered == 0
    counts = usable.sum(dim=1).numpy()
    yield compare(path, "triplane_points/kept_counts", counts, golden["triplane_points/kept_counts"], EXACT)
    images = golden["triplane_points/selected_image"].astype(int).tolist()
    ours = [choose_samples(usable[i], _tensor(golden, f"triplane_points/permutation_{i}").long()) for i in images]
    yield compare(
        path, "triplane_points/selected", torch.stack(ours).numpy(), golden["triplane_points/selected"], EXACT
    )


def conditions(path: Path, golden: Golden) -> Iterator[Result]:
    """Compare the heads that GenHead's training asks for."""
    motion = _tensor(golden, "conditions/labels_exp_to_eye")
    labels = torch.cat([_tensor(golden, f"conditions/labels_{part}") for part in ("camera", "shape")] + [motion], dim=1)
    for case in ("joint", "combined"):
        rows = _tensor(golden, f"conditions/{case}/rows").long()
        if case == "joint":
            split = ConditionRows(rows, rows, rows, rows, None)
        else:
            kinds = golden["conditions/combined/row_kinds"]
            split = ConditionRows(**{ours: rows[torch.from_numpy(kinds == kind)] for ours, kind in ROW_KINDS.items()})
        asked = build_conditions(standin_head(), split, labels.__getitem__)
        for name, ours in _condition_arrays(asked).items():
            ours = ours.unflatten(0, (-1, PER_PHASE)).numpy()
            yield compare(path, f"conditions/{case}/{name}", ours, golden[f"conditions/{case}/{name}"], CLOSE)


def _condition_arrays(asked: FakeConditions) -> dict[str, Tensor]:
    params = asked.params
    return {
        "c": asked.camera,
        "c_compose": asked.camera_upright,
        "pose": params.pose,
        "eye": params.eye_pose,
        "shape_sub": params.shape[:, :4],
        "expression_sub": params.expression[:, :4],
    }


def _tensor(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(golden[name])


PARTS: tuple[Callable[[Path, Golden], Iterator[Result]], ...] = (cameras, synthesis, views, plane_samples, conditions)
