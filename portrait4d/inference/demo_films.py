"""Pictures of the demonstration's films: six tiles a frame, strips over time, colours of errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from portrait4d.data.image_io import VideoWriter, image_grid, save_image
from portrait4d.geometry.cameras import FOV_DEG, points_to_camera, split_camera
from portrait4d.inference.exports import ColouredSurface
from portrait4d.ops.rasterize import interpolate_vertices, rasterize_perspective

TILE, STRIP_TILE = 256, 128
"""Pixels a side of a tile of films and of strips."""
STRIP_COLUMNS = 8
ORBIT_TILES = 3
_MOST_ERROR = 0.5
"""What is shown white, as a part of the range from black to white."""
_CRF = 22


@dataclass(frozen=True)
class DemoFrame:
    """One result beside what it was made of: pictures (3, H, H) in [-1, 1] on the CPU, of any sizes."""

    source: Tensor
    driver: Tensor
    result: Tensor
    truth: Tensor
    normals: Tensor

    @property
    def error(self) -> Tensor:
        """The difference of result and truth as colours, see `error_picture`."""
        return error_picture(self.result, self.truth)


def error_picture(result: Tensor, truth: Tensor) -> Tensor:
    """Colour the mean difference of two pictures (3, H, W): black none, then red and yellow, white a half or more.

    Returns:
        (3, H, W) in [-1, 1].
    """
    error = ((result - truth).abs().mean(0) / (2 * _MOST_ERROR)).clamp(0, 1)
    return 2 * torch.stack([(3 * error - k).clamp(0, 1) for k in range(3)]) - 1


def fit(picture: Tensor, size: int) -> Tensor:
    """Resize a picture (3, H, W) to (3, size, size), smoothly."""
    if picture.shape[1:] == (size, size):
        return picture
    return functional.interpolate(picture[None], (size, size), mode="bicubic", antialias=True)[0].clamp(-1, 1)


def pair_tiles(frame: DemoFrame) -> Tensor:
    """Return source | driver | result over normals | truth | error: (3, 2 `TILE`, 3 `TILE`)."""
    tiles = (frame.source, frame.driver, frame.result, frame.normals, frame.truth, frame.error)
    return image_grid([fit(tile, TILE) for tile in tiles], 3)


def orbit_tiles(frame: DemoFrame) -> Tensor:
    """Return result | truth | normals: (3, `TILE`, 3 `TILE`)."""
    return image_grid([fit(tile, TILE) for tile in (frame.result, frame.truth, frame.normals)], ORBIT_TILES)


def surface_picture(surface: ColouredSurface, camera: Tensor) -> Tensor:
    """Draw a coloured mesh in world units before black, as a camera (1, 25) with the usual field of view sees it.

    Returns:
        (3, `TILE`, `TILE`).
    """
    vertices, faces, colours = (torch.from_numpy(np.ascontiguousarray(array)) for array in surface)
    points_camera = points_to_camera(vertices.float()[None], split_camera(camera.cpu()).cam2world)
    fragments = rasterize_perspective(points_camera, faces.long(), 2 * TILE, FOV_DEG)
    drawn = interpolate_vertices(fragments, faces.long(), colours[None])[0]
    return fit(2 * drawn - 1, TILE)


def save_film(path: Path, pictures: Sequence[Tensor], fps: float, there_and_back: bool) -> Path:
    """Write a film for a loop and, as a .jpg beside it, the picture that stands until it plays.

    Args:
        path: .mp4 file.
        pictures: of equal size.
        fps: frames per second.
        there_and_back: play backwards from the end, so that the loop does not jump.

    Returns:
        The .jpg file.
    """
    back = pictures[-2:0:-1] if there_and_back else []
    with VideoWriter(path, fps, _CRF) as writer:
        for picture in [*pictures, *back]:
            writer.write(picture)
    poster = path.with_suffix(".jpg")
    save_image(poster, pictures[len(pictures) // 2], quality=85)
    return poster


def save_strip(path: Path, frames: Sequence[DemoFrame]) -> None:
    """Write driver, result and truth below each other, at most `STRIP_COLUMNS` moments across."""
    columns = min(len(frames), STRIP_COLUMNS)
    chosen = [frames[number * len(frames) // columns] for number in range(columns)]
    rows = [[getattr(frame, name) for frame in chosen] for name in ("driver", "result", "truth")]
    save_image(path, image_grid([fit(tile, STRIP_TILE) for row in rows for tile in row], columns), quality=88)


def save_overview(path: Path, rows: Sequence[Sequence[DemoFrame]]) -> None:
    """Write one row for each source: the source, then driver | result | truth | normals of its frame of each clip."""
    tiles = []
    for row in rows:
        tiles.append(row[0].source)
        for frame in row:
            tiles += [frame.driver, frame.result, frame.truth, frame.normals]
    save_image(path, image_grid([fit(tile, STRIP_TILE) for tile in tiles], len(tiles) // len(rows), 2), quality=90)
