"""Heads of the open world from landmarks: pose, identity, expression, jaw and gaze, and the crop that frames them.

The frame of that world's pictures is not that of published landmarks' alignment: its cameras keep the neck joint in one
place and at one distance, about which the head turns (`synthetic_heads/portraits.py`). So the crop follows from the
fitted head.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from portrait4d.geometry.head_fit import FOCAL_PIXELS, PICTURE, HeadFit, labels_of, project_fit
from portrait4d.geometry.head_params import EXPRESSION_DIM, SHAPE_DIM
from portrait4d.geometry.pose_solver import Beliefs, solve_pose
from portrait4d.geometry.posed_points import PosedPoints, split_vertices
from portrait4d.synthetic_heads.figure import open_head_model
from portrait4d.synthetic_heads.head_template import open_head_extras
from portrait4d.synthetic_heads.motions import CAMERA_MEAN

OPEN_WORLD = Beliefs(
    landmark_pixels=6.0,
    contour_pixels=24.0,
    expression=0.35,
    jaw_rad=(0.06, 0.01, 0.01),
    gaze_rad=(0.07, 0.17, 0.01),
)
"""Errors of our landmark network, and how much people of the open world differ from their mean in stills."""
_FIRST_SHAPE, _KNOWN_SHAPE = 0.4, 0.05
"""Deviation of identity coefficients from those found so far: the former over the number of frames, at least the
latter."""
_LOST_PIXELS = 12.0
"""Mean distance of landmarks from a fit, in pixels of a 512 crop, that says that the clip shows another head now."""
_MEAN_EXPRESSION = 0.1
_MEAN_JAW_RAD = 0.05
_STEPS, _REFRAMING_STEPS = 12, 3
_FACE_SHARE = 0.44
"""Mean side of the landmarks' box in the frame that a fit begins in, as a share of its side."""


@dataclass(frozen=True)
class SquarePlace:
    """A square of whole pixels of a picture: its first column and row, which may lie outside, and its side."""

    left: int
    upper: int
    side: int

    def points_in(self, points_pixels: Tensor) -> Tensor:
        """Return points (..., 2) as fractions of the square; pixels of the picture are counted from its corner."""
        corner = points_pixels.new_tensor([self.left, self.upper])
        return (points_pixels - corner) / self.side

    def points_out(self, points: Tensor) -> Tensor:
        """Return fractions of the square (..., 2) as pixels of the picture, counted from its corner."""
        return points * self.side + points.new_tensor([self.left, self.upper])

    def crop_to_image(self, size: int) -> np.ndarray:
        """Return the map (2, 3) of pixel indices of the square resized to `size` pixels to those of the picture."""
        factor = self.side / size
        offset = 0.5 * factor - 0.5
        return np.array([[factor, 0, self.left + offset], [0, factor, self.upper + offset]])


@dataclass(frozen=True)
class FramedHead:
    """A head in its crop: where the crop is, and the frame label (437,) float32 that holds in it."""

    place: SquarePlace
    label: np.ndarray


class OpenHeadFitter:
    """Fits heads to the landmarks of one clip: each starts from the last one, and the identity settles.

    Args:
        beliefs: of landmarks and heads.
    """

    def __init__(self, beliefs: Beliefs = OPEN_WORLD) -> None:
        self.beliefs = beliefs
        self._landmarks = _landmark_points()
        self._last: tuple[SquarePlace, HeadFit] | None = None
        self._frames = 0

    def fit(self, points_pixels: Tensor) -> list[FramedHead]:
        """Fit the next heads.

        Args:
            points_pixels: (B, 70, 2) points of B frames in pixels of their pictures, y down, counted from the corner.
        """
        places, fit, gap = self._solve(points_pixels)
        if gap > _LOST_PIXELS and self._last is not None:  # another face, or the same one somewhere else
            self._last, self._frames = None, 0
            places, fit, _ = self._solve(points_pixels)
        framed = [_frame(place, translation) for place, translation in zip(places, fit.translation, strict=True)]
        moved = replace(fit, translation=_usual_translation(len(places)))
        targets, (start, free) = _targets(points_pixels, framed), self._beliefs(len(places))
        fit = solve_pose(self._landmarks, targets, start, free, _REFRAMING_STEPS, nearby=moved)
        self._last = framed[-1], HeadFit(*(value[-1:] for value in vars(fit).values()))
        self._frames += len(places)
        labels = labels_of(_whole(fit)).numpy()
        return [FramedHead(place, label) for place, label in zip(framed, labels, strict=True)]

    def _solve(self, points_pixels: Tensor) -> tuple[list[SquarePlace], HeadFit, float]:
        """Return fits in squares of the pictures, and their mean distance from the points in pixels of 512."""
        count = len(points_pixels)
        start, free = self._beliefs(count)
        if self._last is None:
            places, nearby = [_face_square(points) for points in points_pixels], None
        else:
            places, last = [self._last[0]] * count, vars(self._last[1])
            nearby = HeadFit(**{name: value.expand(count, -1) for name, value in last.items()})
        targets = _targets(points_pixels, places)
        fit = solve_pose(self._landmarks, targets, start, free, _STEPS, nearby)
        return places, fit, float((project_fit(self._landmarks, fit) - targets).norm(dim=2).mean())

    def _beliefs(self, count: int) -> tuple[HeadFit, Beliefs]:
        """Return what heads are believed to be before they are seen, and how surely."""
        shapes, expressions = _coefficients()
        start = HeadFit(
            shape=torch.zeros(1, shapes) if self._last is None else self._last[1].shape,
            expression=torch.full((count, expressions), _MEAN_EXPRESSION),
            rotation_rad=torch.zeros(count, 3),
            jaw_rad=torch.tensor([_MEAN_JAW_RAD, 0.0, 0.0]).repeat(count, 1),
            eye_rad=torch.zeros(count, 3),
            translation=_usual_translation(count),
        )
        shape = self.beliefs.shape if self._last is None else max(_FIRST_SHAPE / self._frames, _KNOWN_SHAPE)
        return start, replace(self.beliefs, shape=shape)


def _coefficients() -> tuple[int, int]:
    """Return how many coefficients of identity and of expression the open head has; the others do nothing."""
    return len(open_head_extras().shape_names), len(open_head_extras().expression_names)


@cache
def _landmark_points() -> PosedPoints:
    """Return the 70 points of the open head with the coefficients that it has."""
    head = open_head_model()
    corners = head.faces[head.landmark_faces]
    vertices = split_vertices(head, corners.flatten(), torch.float32)
    own = torch.arange(corners.numel()).view_as(corners)
    return vertices.interpolate(own, head.landmark_barycentrics).leading(*_coefficients(), SHAPE_DIM)


def _usual_translation(count: int) -> Tensor:
    return torch.from_numpy(CAMERA_MEAN).float().repeat(count, 1)


def _face_square(points_pixels: Tensor) -> SquarePlace:
    """Return a square that frames a face (70, 2) about as pictures of the open world do."""
    low, high = points_pixels.amin(dim=0), points_pixels.amax(dim=0)
    side = float((high - low).mean()) / _FACE_SHARE
    left, upper = ((low + high) / 2 - side / 2).tolist()
    return SquarePlace(round(left), round(upper), max(round(side), 1))


def _targets(points_pixels: Tensor, places: list[SquarePlace]) -> Tensor:
    """Return what a fit takes, (B, 70, 2) pixels of a 512 picture with y up, of points of pictures."""
    inside = [place.points_in(points) for place, points in zip(places, points_pixels, strict=True)]
    return (torch.stack(inside) * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])) * PICTURE


def _frame(place: SquarePlace, translation: Tensor) -> SquarePlace:
    """Return the square in which a head at `translation` (3,) in `place` is where the open world's cameras see it."""
    x, y, z = translation.tolist()
    usual_x, usual_y, usual_z = CAMERA_MEAN.tolist()
    focal = FOCAL_PIXELS / PICTURE
    side = place.side * usual_z / z
    neck_x = place.left + place.side * (0.5 - focal * x / z)
    neck_y = place.upper + place.side * (0.5 + focal * y / z)
    left, upper = neck_x - side * (0.5 - focal * usual_x / usual_z), neck_y - side * (0.5 + focal * usual_y / usual_z)
    return SquarePlace(round(left), round(upper), max(round(side), 1))


def _whole(fit: HeadFit) -> HeadFit:
    """Return a fit with all coefficients, those that do nothing being 0."""
    shape = pad(fit.shape, (0, SHAPE_DIM - fit.shape.shape[1]))
    return replace(fit, shape=shape, expression=pad(fit.expression, (0, EXPRESSION_DIM - fit.expression.shape[1])))
