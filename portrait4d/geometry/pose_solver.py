"""Find head rotation, translation and, where wanted, identity, expression, jaw and gaze of landmarks (our addition).

Levenberg-Marquardt on the most probable head: independent normal errors of the landmarks and normal priors about the
start. First the pose alone, then everything that is free. Identity is eliminated last (a Schur complement), so that a
clip's frames, which share it, cost what single pictures cost. Coefficients are the first ones of identity and
expression, as many as the start has.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from portrait4d.geometry.head_fit import FOCAL_PIXELS, HeadFit, params_of, project
from portrait4d.geometry.head_params import HeadParams
from portrait4d.geometry.posed_points import EYES, JAW, PosedPoints, part_rotations, turn_parts
from portrait4d.geometry.rotations import axis_angle_derivatives, axis_angle_to_matrix

_POSE, _CONTOUR = 6, 17
_LEAST_GAIN, _MOST_DAMPING = 1e-4, 1e4
"""A picture is done when a step lowers its cost by less than this share, or only tiny steps could."""


@dataclass(frozen=True)
class Beliefs:
    """Standard deviations: of landmarks in pixels, and of what the head may differ from the start.

    Attributes:
        landmark_pixels: of detected landmarks.
        contour_pixels: of those of the contour, which detectors know less well; None: as the others.
        shape, expression: of coefficients.
        jaw_rad: opening, turning, tilting.
        gaze_rad: up and down, to the sides, and about the view axis.
    """

    landmark_pixels: float = 1.0
    contour_pixels: float | None = None
    shape: float = 1.0
    expression: float = 1.0
    jaw_rad: tuple[float, float, float] = (0.15, 0.02, 0.02)
    gaze_rad: tuple[float, float, float] = (0.2, 0.3, 0.01)


@torch.no_grad()
def solve_pose(
    landmarks: PosedPoints,
    targets: Tensor,
    start: HeadFit,
    free: Beliefs | None = None,
    steps: int = 40,
    nearby: HeadFit | None = None,
) -> HeadFit:
    """Find the pose of B heads, and their geometry if `free` says how much it may vary.

    Args:
        landmarks: the head model's 70 points, on the tensors' device.
        targets: (B, 70, 2) pixels of a 512 picture, y up.
        start: where to begin, and what the head is believed to be; a shape of (1, 300) is one identity of all.
        free: None leaves identity, expression, jaw and gaze at the start.
        steps: most steps of each of the two stages.
        nearby: a solution of almost the same targets, such as the last frame's: the place to begin instead of `start`,
            without the first stage.

    Returns:
        The solution; its shape has the rows that `start` had.
    """
    problem = _Problem(landmarks, targets, start)
    begin = problem.pack(start if nearby is None else nearby)
    solution = _minimise(problem, begin, None, steps) if nearby is None else begin
    if free is not None:
        solution = _minimise(problem, solution, free, steps)
    return problem.unpack(solution)


@dataclass(frozen=True)
class _Problem:
    landmarks: PosedPoints
    targets: Tensor
    start: HeadFit

    @property
    def sections(self) -> tuple[int, ...]:
        """Columns of the unknowns: rotation, translation, jaw, gaze, expression; identity last."""
        return 3, 3, 3, 3, self.start.expression.shape[1], self.start.shape.shape[1]

    @property
    def frame(self) -> int:
        """How many unknowns a picture has of its own, all but the identity."""
        return sum(self.sections[:-1])

    @property
    def is_shared(self) -> bool:
        """Whether all pictures show one identity."""
        return len(self.start.shape) < len(self.targets)

    def pack(self, fit: HeadFit) -> Tensor:
        shape = fit.shape.expand(len(self.targets), -1)
        return torch.cat([fit.rotation_rad, fit.translation, fit.jaw_rad, fit.eye_rad, fit.expression, shape], dim=1)

    def unpack(self, unknowns: Tensor) -> HeadFit:
        rotation, translation, jaw, eye, expression, shape = unknowns.split(self.sections, dim=1)
        shape = shape[:1] if self.is_shared else shape
        return HeadFit(shape, expression, rotation, jaw, eye, translation)

    def head(self, unknowns: Tensor) -> tuple[HeadParams, Tensor, Tensor]:
        """Return the head's parameters, rotation vectors (B, 3) and translations (B, 3)."""
        rotation, translation, jaw, eye, expression, shape = unknowns.split(self.sections, dim=1)
        return params_of(shape, expression, jaw, eye), rotation, translation

    def points(self, unknowns: Tensor) -> Tensor:
        """Return the projected landmarks (B, 70, 2) of unknowns (B, U)."""
        params, rotation, translation = self.head(unknowns)
        return project(self.landmarks.points(params), axis_angle_to_matrix(rotation), translation)

    def derivatives(self, unknowns: Tensor) -> Tensor:
        """Return the projected landmarks' derivatives (B, 140, U)."""
        params, rotation, translation = self.head(unknowns)
        turn = axis_angle_to_matrix(rotation)
        parts = self.landmarks.parts(params)
        joints = [
            torch.einsum("bxyr,bky->bkxr", axis_angle_derivatives(vector), parts[:, part])
            for part, vector in ((JAW, params.pose[:, 3:]), (EYES, params.eye_pose[:, :3]))
        ]
        shape, expression = self.landmarks.derivatives(params).split(self.sections[:-3:-1], dim=3)
        inner = turn[:, None] @ torch.cat([*joints, expression, shape], dim=3)
        points = turn_parts(parts, part_rotations(params))
        outer = torch.einsum("bxyr,bky->bkxr", axis_angle_derivatives(rotation), points)
        still = torch.eye(3, device=points.device).expand(*points.shape, 3)
        camera = points @ turn.mT + translation[:, None]
        return (_projection(camera) @ torch.cat([outer, still, inner], dim=3)).flatten(1, 2)

    def precision(self, beliefs: Beliefs) -> Tensor:
        """Return the weights (U,) of squared differences from the start; position and rotation are free."""
        deviations = [torch.inf] * _POSE + [*beliefs.jaw_rad, *beliefs.gaze_rad]
        deviations += [beliefs.expression] * self.sections[-2] + [beliefs.shape] * self.sections[-1]
        return torch.tensor(deviations, dtype=torch.float64, device=self.targets.device) ** -2

    def pool(self, values: Tensor) -> Tensor:
        """Add up over the pictures of one identity: (B, ...) to (B, ...), or to (1, ...)."""
        return values.sum(0, keepdim=True) if self.is_shared else values


def _minimise(problem: _Problem, unknowns: Tensor, free: Beliefs | None, steps: int) -> Tensor:
    centre = problem.pack(problem.start)
    precision = torch.zeros(centre.shape[1], dtype=torch.float64, device=centre.device)
    sharpness = torch.ones_like(problem.targets[:1])
    if free is not None:
        precision = problem.precision(free)
        sharpness = sharpness / free.landmark_pixels
        sharpness[:, :_CONTOUR] = 1 / (free.contour_pixels or free.landmark_pixels)
    sharpness = sharpness.flatten().double()

    def cost(candidate: Tensor) -> Tensor:
        """Return the costs (B,) of pictures, or (1,) of all if they share an identity, which then counts once."""
        gap = (problem.points(candidate) - problem.targets).flatten(1).double()
        prior = (candidate - centre).double().square() * precision
        own = (sharpness * gap).square().sum(1) + prior[:, : problem.frame].sum(1)
        if free is None:
            return own
        pooled = problem.pool(own)
        return pooled + prior[: len(pooled), problem.frame :].sum(1)

    value = cost(unknowns)
    damping, settled = torch.full_like(value, 1e-3), torch.zeros_like(value, dtype=torch.bool)
    for _ in range(steps):
        gap = sharpness * (problem.targets - problem.points(unknowns)).flatten(1).double()
        derivatives = sharpness[:, None] * problem.derivatives(unknowns).double()
        linear = _Linear(derivatives, gap, (centre - unknowns).double())
        step = _solve_pose(linear, damping) if free is None else _solve(problem, linear, precision, damping)
        candidate = (unknowns + step).float()
        trial = cost(candidate)
        better = trial < value
        settled |= (better & (value - trial < _LEAST_GAIN * value)) | (damping > _MOST_DAMPING)
        unknowns = torch.where(better[:, None], candidate, unknowns)
        value = torch.where(better, trial, value)
        damping = torch.where(better, damping / 5, damping * 4)
        if settled.all():
            break
    return unknowns


@dataclass(frozen=True)
class _Linear:
    """A linearised problem: derivatives (B, 140, U) and gaps (B, 140) to targets in units of their deviations, and
    leanings (B, U) to the prior's mean."""

    derivatives: Tensor
    gap: Tensor
    lean: Tensor


def _solve_pose(linear: _Linear, damping: Tensor) -> Tensor:
    """Return the damped step (B, U) of rotation and translation alone."""
    pose = linear.derivatives[..., :_POSE]
    step = solve_positive(_damp(pose.mT @ pose, damping), pose.mT @ linear.gap[..., None])[..., 0]
    return torch.nn.functional.pad(step, (0, linear.derivatives.shape[2] - _POSE))


def _solve(problem: _Problem, linear: _Linear, precision: Tensor, damping: Tensor) -> Tensor:
    """Return the damped step (B, U), each picture's own unknowns eliminated first."""
    rows, coefficients = problem.start.shape.shape
    sections = [problem.frame, coefficients]
    own, identity = linear.derivatives.split(sections, dim=2)
    own_precision, identity_precision = precision.split(sections)
    own_lean, identity_lean = linear.lean.split(sections, dim=1)
    own_form = _damp(own.mT @ own + torch.diag(own_precision), damping)
    mixed = own.mT @ identity
    identity_form = problem.pool(identity.mT @ identity) + torch.diag(identity_precision)
    pull = linear.gap[..., None]
    own_pull = own.mT @ pull + (own_precision * own_lean)[..., None]
    identity_pull = problem.pool(identity.mT @ pull) + (identity_precision * identity_lean)[:rows, :, None]
    eliminated = solve_positive(own_form, torch.cat([mixed, own_pull], dim=2))
    reduced = problem.pool(mixed.mT @ eliminated)
    form = _damp(identity_form, damping) - reduced[..., :coefficients]
    identity_step = solve_positive(form, identity_pull - reduced[..., coefficients:])
    own_step = eliminated[..., coefficients:] - eliminated[..., :coefficients] @ identity_step
    return torch.cat([own_step, identity_step.expand(len(own_step), -1, -1)], dim=1)[..., 0]


def solve_positive(form: Tensor, right: Tensor) -> Tensor:
    """Solve form (..., n, n) x = right (..., n, k) for positive definite forms; of others the result is meaningless.

    By Cholesky's factors, which is also a way around `torch.linalg.solve`: PyTorch 2.13 returns wrong numbers for
    batches of 300 x 300 on a CPU with two threads.
    """
    return torch.cholesky_solve(right, torch.linalg.cholesky_ex(form).L)


def _projection(points_camera: Tensor) -> Tensor:
    """Return the derivatives (B, K, 2, 3) of projected points in pixels by their camera coordinates (B, K, 3)."""
    x, y, z = points_camera.unbind(-1)
    zero = torch.zeros_like(z)
    rows = [torch.stack([-1 / z, zero, x / z**2], dim=-1), torch.stack([zero, -1 / z, y / z**2], dim=-1)]
    return FOCAL_PIXELS * torch.stack(rows, dim=-2)


def _damp(form: Tensor, damping: Tensor) -> Tensor:
    """Scale the diagonal of forms (B, n, n) by 1 + damping (B,) or (1,)."""
    diagonal = form.diagonal(dim1=1, dim2=2)
    return form + torch.diag_embed(diagonal * damping[:, None])
