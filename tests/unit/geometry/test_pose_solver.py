"""The pose solver beyond what fits of folders use: few coefficients, a start nearby, a contour known less well."""

import pytest
import torch
from torch import Tensor

from portrait4d.geometry.head_fit import HeadFit, project_fit
from portrait4d.geometry.head_params import SHAPE_DIM
from portrait4d.geometry.pose_solver import Beliefs, solve_pose
from portrait4d.geometry.posed_points import PosedPoints
from portrait4d.synthetic_heads.head_template import open_head_extras
from tests.helpers.fitted_head import open_head_parts

SHAPES, EXPRESSIONS = 12, 6
TURN_RAD = (0.1, 0.4, -0.05)


@pytest.fixture(scope="module")
def points() -> PosedPoints:
    return open_head_parts().landmarks.leading(SHAPES, EXPRESSIONS, SHAPE_DIM)


def head(turn_rad: tuple[float, ...] = TURN_RAD, x: float = 0.02) -> HeadFit:
    """Return a head with the mean geometry."""
    zeros = torch.zeros(1, 3)
    translation = torch.tensor([[x, -0.03, -4.25]])
    return HeadFit(
        torch.zeros(1, SHAPES), torch.zeros(1, EXPRESSIONS), torch.tensor([turn_rad]), zeros, zeros, translation
    )


def turn_error(fit: HeadFit) -> float:
    return float((fit.rotation_rad - torch.tensor([TURN_RAD])).norm())


def test_leading_coefficients_are_the_first_ones_of_both_kinds(points: PosedPoints) -> None:
    whole = open_head_parts().landmarks
    assert points.directions.shape[-1] == 1 + SHAPES + EXPRESSIONS
    assert torch.equal(points.directions[..., : 1 + SHAPES], whole.directions[..., : 1 + SHAPES])
    first = 1 + SHAPE_DIM
    assert torch.equal(points.directions[..., 1 + SHAPES :], whole.directions[..., first : first + EXPRESSIONS])
    named = open_head_extras()
    assert len(named.shape_names) >= SHAPES and len(named.expression_names) >= EXPRESSIONS


def test_a_start_nearby_is_where_the_search_begins(points: PosedPoints) -> None:
    targets, start = project_fit(points, head()), head((0.0, 0.0, 0.0), 0.0)
    nearby = head((0.11, 0.37, -0.04), 0.01)
    assert torch.equal(solve_pose(points, targets, start, Beliefs(), 0, nearby).rotation_rad, nearby.rotation_rad)
    assert turn_error(solve_pose(points, targets, start, Beliefs(), 1, nearby)) < 0.01 < turn_error(nearby)


def test_a_contour_that_is_known_less_well_counts_less(points: PosedPoints) -> None:
    def with_shifted_contour() -> Tensor:
        targets = project_fit(points, head())
        targets[:, :17, 0] += 20  # pixels
        return targets

    even, careful = (
        solve_pose(points, with_shifted_contour(), head((0.0, 0.0, 0.0)), Beliefs(2.0, contour, shape=0.2))
        for contour in (None, 40.0)
    )
    assert turn_error(careful) < 0.02 < turn_error(even)
