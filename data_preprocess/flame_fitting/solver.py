"""The published schedule: Adam on the translation, then on identity, expression, gaze and translation.

Rotation and jaw stay as they are (`geometry/pose_solver.py` finds them where that is wanted).
Source: flame-fitting.md §5-6.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_preprocess.flame_fitting.energies import departure_energy, placement_energy, refinement_energy
from data_preprocess.flame_fitting.fitting_head import FittedParts
from portrait4d.geometry.cameras import FOV_DEG
from portrait4d.geometry.head_fit import HeadFit, params_of, project
from portrait4d.geometry.rotations import axis_angle_to_matrix

MESH_WEIGHT = 1e6
START_TRANSLATION = (0.0, 0.0, -3 / (math.tan(math.radians(FOV_DEG) / 2) * 6.2189))


@dataclass(frozen=True)
class Schedule:
    """Steps of both stages and Adam's learning rate."""

    placement_steps: int = 1500
    refinement_steps: int = 3000
    learning_rate: float = 1e-3

    @property
    def steps(self) -> int:
        """All steps together."""
        return self.placement_steps + self.refinement_steps


def fit_head(
    parts: FittedParts,
    targets: Tensor,
    start: HeadFit,
    schedule: Schedule | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> HeadFit:
    """Fit B heads together; of each stage the iterate with the smallest energy of the whole batch is kept.

    Args:
        parts: the head model, on the tensors' device.
        targets: (B, 70, 2) pixels of a 512 picture, y up.
        start: rotation and jaw stay; a shape of (1, 300) is one identity of all pictures and stays one.
        schedule: None for the published one.
        on_step: called after each step.

    Returns:
        The fit; its shape has the rows that `start` had.
    """
    schedule = schedule or Schedule()
    rotation = axis_angle_to_matrix(start.rotation_rad)
    head = params_of(start.shape, start.expression, start.jaw_rad, start.eye_rad)
    still = parts.landmarks.points(head).detach()

    def placement(translation: Tensor) -> Tensor:
        return placement_energy(project(still, rotation, translation), targets)

    mesh_term = parts.mesh_term(head)

    def refinement(shape: Tensor, expression: Tensor, eye: Tensor, translation: Tensor) -> Tensor:
        fit = replace(start, shape=shape, expression=expression, eye_rad=eye, translation=translation)
        params = params_of(shape, expression, start.jaw_rad, eye)
        points = project(parts.landmarks.points(params), rotation, translation)
        return refinement_energy(points, targets) + MESH_WEIGHT * mesh_term(params) + departure_energy(fit, start)

    run = _Descent(schedule.learning_rate, on_step)
    (translation,) = run.minimise(placement, [start.translation], schedule.placement_steps)
    variables = [start.shape, start.expression, start.eye_rad, translation]
    shape, expression, eye, translation = run.minimise(refinement, variables, schedule.refinement_steps)
    return replace(start, shape=shape, expression=expression, eye_rad=eye, translation=translation)


@dataclass(frozen=True)
class _Descent:
    learning_rate: float
    on_step: Callable[[], object]

    def minimise(self, energy: Callable[..., Tensor], start: Sequence[Tensor], steps: int) -> list[Tensor]:
        """Take Adam steps and return the iterate of least energy; the one after the last step is not looked at."""
        variables = [tensor.detach().clone().requires_grad_() for tensor in start]
        best = [tensor.detach().clone() for tensor in start]
        least = torch.full((), torch.inf, device=best[0].device)
        adam = torch.optim.Adam(variables, lr=self.learning_rate)
        for _ in range(steps):
            value = energy(*variables)
            adam.zero_grad()
            value.backward()
            with torch.no_grad():
                better = value < least
                least = torch.where(better, value, least)
                for kept, tensor in zip(best, variables, strict=True):
                    kept.copy_(torch.where(better, tensor, kept))
            adam.step()
            self.on_step()
        return best
