"""Track faces of the open head world in ordinary pictures, with our own weights only.

Landmark network (two looks), head fit, crop, motion encoder: what `TrackedFrame` holds. Made-up heads look alike; real
people need the published networks (`data_preprocess`).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from portrait4d.inference.open_head_fit import FramedHead, OpenHeadFitter, SquarePlace
from portrait4d.inference.tracking import CropPlace, TrackedFrame
from portrait4d.models.checkpoints import load_compact_motion_encoder, load_landmark_network
from portrait4d.models.compact_landmarks import CompactLandmarks
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.ops.resize import resize_antialiased
from portrait4d.synthetic_heads.motion_inputs import MOTION_INPUTS
from portrait4d.synthetic_heads.motions import GAZE_SCALE_RAD

_CHUNK = 16
"""Frames that are worked on together."""
_LEAST_PRESENCE = 0.0
"""Logarithm of the odds of a face from which on it is believed."""
_OVERSAMPLING = 4
"""Of pictures that are larger than so many times what is wanted, only every n-th pixel is looked at."""
_LONG = 1.25
"""Pictures longer than so many times their other side are also searched part by part."""
_CLOSE_SIDE = 1.9
"""Side of the square around a face for the second look, in sides of its landmarks' box."""
_CLOSE_PIXELS = 160


class OpenTracker:
    """Follows the face of one clip.

    Args:
        landmarks, motion: the networks, on one device.
        size: pixels a side of the crops.
    """

    def __init__(self, landmarks: CompactLandmarks, motion: CompactMotionEncoder, size: int) -> None:
        self.landmarks, self.motion, self.size = landmarks, motion, size
        self._fitter = OpenHeadFitter()

    @torch.no_grad()
    def track(self, pictures: Sequence[np.ndarray]) -> list[TrackedFrame | None]:
        """Track the next pictures of the clip, uint8 (H, W, 3) RGB, in order; None where there is no face.

        Raises:
            ValueError: a picture of another shape or type.
        """
        frames: list[TrackedFrame | None] = []
        for first in range(0, len(pictures), _CHUNK):
            frames += self._track_chunk([_checked(picture) for picture in pictures[first : first + _CHUNK]])
        return frames

    @torch.no_grad()
    def find(self, pictures: Sequence[np.ndarray]) -> list[Tensor | None]:
        """Find the 68 points and the pupils of pictures: (70, 2) pixels from their corners, y down, or None."""
        if not pictures:
            return []
        points, first_presence = self._first_look(pictures)
        places = [(number, _close_place(found)) for number, found in enumerate(points)]
        nearby = torch.stack([place.points_in(found) for (_, place), found in zip(places, points, strict=True)])
        squares = self._cut(pictures, places, _CLOSE_PIXELS)
        second = self.landmarks.look_closer(squares, nearby.to(squares.device))
        presence = torch.minimum(first_presence, second.presence).tolist()
        found = [place.points_out(inside) for (_, place), inside in zip(places, second.points.cpu(), strict=True)]
        return [one if odds > _LEAST_PRESENCE else None for one, odds in zip(found, presence, strict=True)]

    def _first_look(self, pictures: Sequence[np.ndarray]) -> tuple[list[Tensor], Tensor]:
        """Return where each picture most probably shows a face, as `find`, and its presence (B,)."""
        tries = [(number, place) for number, picture in enumerate(pictures) for place in _search_places(picture)]
        reading = self.landmarks(self._cut(pictures, tries, self.landmarks.config.picture_size))
        best: dict[int, int] = {}
        for k, (number, _) in enumerate(tries):
            if number not in best or reading.presence[k] > reading.presence[best[number]]:
                best[number] = k
        chosen = list(best.values())
        return [tries[k][1].points_out(reading.points[k].cpu()) for k in chosen], reading.presence[chosen]

    def _track_chunk(self, pictures: Sequence[np.ndarray]) -> list[TrackedFrame | None]:
        found = self.find(pictures)
        seen = [number for number, points in enumerate(found) if points is not None]
        frames: list[TrackedFrame | None] = [None] * len(pictures)
        if not seen:
            return frames
        points = torch.stack([found[number] for number in seen])
        heads = self._fitter.fit(points)
        detail = max(self.size, self.motion.config.picture_size)
        crops = self._cut(pictures, [(n, head.place) for n, head in zip(seen, heads, strict=True)], detail)
        inside = torch.stack([head.place.points_in(p) for head, p in zip(heads, points, strict=True)])[:, :68]
        indices = inside.to(crops.device) * detail - 0.5
        inputs = self.motion(self.motion.crop(crops, indices))
        motions = (inputs @ self.motion.projection).cpu().numpy()
        crops = resize_antialiased(crops, self.size).cpu()
        landmarks = (inside * self.size).numpy()
        for k, number in enumerate(seen):
            head = replace(heads[k], label=_with_gaze(heads[k].label, inputs[k].cpu().numpy()))
            frames[number] = self._frame(pictures[number], head, crops[k], landmarks[k], motions[k])
        return frames

    def _frame(
        self, picture: np.ndarray, head: FramedHead, crop: Tensor, landmarks: np.ndarray, motion: np.ndarray
    ) -> TrackedFrame:
        height, width = picture.shape[:2]
        place = CropPlace((width, height), head.place.crop_to_image(self.size))
        return TrackedFrame(crop, head.label, landmarks, motion, place)

    def _cut(self, pictures: Sequence[np.ndarray], places: Sequence[tuple[int, SquarePlace]], size: int) -> Tensor:
        """Cut squares, given with the numbers of their pictures: (N, 3, size, size) in [-1, 1] on our device."""
        squares = torch.cat([cut_square(pictures[number], place, size) for number, place in places])
        return squares.to(self.landmarks.mean_face.device)


def load_open_tracker(device: str = "cpu", size: int = 128) -> OpenTracker:
    """Make a tracker for a new clip; its networks are loaded once.

    Args:
        device: of the networks.
        size: pixels a side of the crops, a reconstructor's picture size.
    """
    return OpenTracker(*_networks(device), size)


def cut_square(picture: np.ndarray, place: SquarePlace, size: int) -> Tensor:
    """Cut a square out of a picture (H, W, 3) uint8 and resize it: (1, 3, size, size) in [-1, 1]; edges go on."""
    height, width = picture.shape[:2]
    step = max(1, place.side // (_OVERSAMPLING * size))
    rows = np.arange(place.upper, place.upper + place.side, step).clip(0, height - 1)
    columns = np.arange(place.left, place.left + place.side, step).clip(0, width - 1)
    part = torch.from_numpy(picture[rows[:, None], columns])
    return resize_antialiased(part.permute(2, 0, 1)[None].float() / 127.5 - 1, size)


@cache
def _networks(device: str) -> tuple[CompactLandmarks, CompactMotionEncoder]:
    return load_landmark_network().to(device), load_compact_motion_encoder().to(device)


def _checked(picture: np.ndarray) -> np.ndarray:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"pictures: expected uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
    return picture


def _with_gaze(label: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Return a label whose eyes look as the motion encoder reads them: it sees them better than the pupils' points do.

    Args:
        label: (437,).
        inputs: (27,) see `synthetic_heads/motion_inputs.py`.
    """
    pitch, yaw = (inputs[MOTION_INPUTS.index(name)] * GAZE_SCALE_RAD for name in ("gaze_pitch", "gaze_yaw"))
    return np.concatenate([label[:-6], [pitch, yaw, 0, pitch, yaw, 0]]).astype(np.float32)


def _search_places(picture: np.ndarray) -> list[SquarePlace]:
    """Return squares to look for a face in: the whole picture, and the parts of a long one."""
    height, width = picture.shape[:2]
    long, short = max(height, width), min(height, width)
    places = [SquarePlace((width - long) // 2, (height - long) // 2, long)]
    if long > _LONG * short:
        along = [round((long - short) * share) for share in (0, 0.5, 1)]
        places += [SquarePlace(at, 0, short) if width > height else SquarePlace(0, at, short) for at in along]
    return places


def _close_place(points_pixels: Tensor) -> SquarePlace:
    """Return the square around a face (70, 2) that the second look takes its view from."""
    low, high = points_pixels.amin(dim=0), points_pixels.amax(dim=0)
    side = max(_CLOSE_SIDE * float((high - low).max()), 8.0)
    left, upper = ((low + high) / 2 - side / 2).tolist()
    return SquarePlace(round(left), round(upper), round(side))
