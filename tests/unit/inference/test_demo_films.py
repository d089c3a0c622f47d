"""Pictures of the demonstration: tiles in their places, colours of errors, films that loop."""

from pathlib import Path

import numpy as np
import pytest
import torch

from portrait4d.data.image_io import load_image
from portrait4d.data.video_io import read_frames
from portrait4d.inference.demo_films import (
    STRIP_TILE,
    TILE,
    DemoFrame,
    error_picture,
    orbit_tiles,
    pair_tiles,
    save_film,
    save_overview,
    save_strip,
    surface_picture,
)
from portrait4d.inference.exports import ColouredSurface
from tests.helpers.cameras import frontal_camera

LEVELS = {"source": -0.8, "driver": -0.4, "result": 0.0, "truth": 0.0, "normals": 0.6}


def frame(shift: float = 0.0) -> DemoFrame:
    """A frame of even pictures, of different sizes; result and truth differ by `shift`."""
    values = LEVELS | {"result": shift}
    sizes = (64, 32, 128, 128, 16)
    pictures = [torch.full((3, size, size), value) for size, value in zip(sizes, values.values(), strict=True)]
    return DemoFrame(*pictures)


def levels(picture: torch.Tensor, tile: int, gap: int = 0) -> list[list[float]]:
    """The middle values of a grid's tiles, row by row."""
    middle = slice(gap + tile // 2, None, tile + gap)
    return [[round(float(value), 1) for value in row] for row in picture[0, middle, middle]]


def test_tiles_are_where_the_page_says() -> None:
    assert levels(pair_tiles(frame()), TILE) == [[-0.8, -0.4, 0.0], [0.6, 0.0, -1.0]]
    assert levels(orbit_tiles(frame()), TILE) == [[0.0, 0.0, 0.6]]


@pytest.mark.parametrize(
    ("difference", "colour"), [(0.0, (-1, -1, -1)), (1 / 3, (1, -1, -1)), (2 / 3, (1, 1, -1)), (1.1, (1, 1, 1))]
)
def test_errors_are_black_red_yellow_white(difference: float, colour: tuple[int, ...]) -> None:
    truth = torch.zeros(3, 2, 2)
    torch.testing.assert_close(error_picture(truth - difference, truth)[:, 0, 0], torch.tensor(colour).float())


def test_strips_and_overviews(tmp_path: Path) -> None:
    save_strip(tmp_path / "strip.jpg", [frame(0.01 * number) for number in range(20)])
    strip = load_image(tmp_path / "strip.jpg")
    assert strip.shape == (3, 3 * STRIP_TILE, 8 * STRIP_TILE)
    assert [row[0] for row in levels(strip, STRIP_TILE)] == pytest.approx([-0.4, 0.0, 0.0], abs=0.1)
    save_overview(tmp_path / "overview.jpg", [[frame(), frame()], [frame(), frame()]])
    rows = levels(load_image(tmp_path / "overview.jpg"), STRIP_TILE, 2)
    assert len(rows) == 2 and rows[0] == pytest.approx([-0.8, *2 * [-0.4, 0.0, 0.0, 0.6]], abs=0.1)


def test_a_mesh_is_drawn_in_its_colours() -> None:
    corners = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], np.float32)
    colours = np.tile(np.array([[1.0, 0.5, 0.0]], np.float32), (3, 1))
    picture = surface_picture(ColouredSurface(corners, np.array([[0, 1, 2]]), colours), frontal_camera())
    assert picture.shape == (3, TILE, TILE)
    torch.testing.assert_close(picture[:, TILE // 2, TILE // 2], torch.tensor([1.0, 0.0, -1.0]))
    assert (picture[:, 0, 0] == -1).all()


@pytest.mark.parametrize(("back", "expected"), [(False, [0, 1, 2, 3]), (True, [0, 1, 2, 3, 2, 1])])
def test_films_loop(tmp_path: Path, back: bool, expected: list[int]) -> None:
    pictures = [torch.full((3, 32, 32), 0.5 * number - 0.75) for number in range(4)]
    poster = save_film(tmp_path / "a.mp4", pictures, 8.0, back)
    assert poster == tmp_path / "a.jpg" and load_image(poster).mean() == pytest.approx(0.25, abs=0.02)
    shown = [round((float(film_frame.load().mean()) + 0.75) / 0.5) for film_frame in read_frames(tmp_path / "a.mp4")]
    assert shown == expected
