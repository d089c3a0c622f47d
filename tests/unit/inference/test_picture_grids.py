"""Grids of pictures: where each goes, what stays black, how far they shrink, and how few are in memory."""

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from portrait4d.data.image_io import load_image, save_image
from portrait4d.files.errors import UserError
from portrait4d.inference import picture_grids
from portrait4d.inference.picture_grids import save_picture_grid

JPEG_LIMIT = 65500


@pytest.fixture
def white(tmp_path: Path) -> Path:
    save_image(tmp_path / "white.png", torch.ones(3, 32, 32))
    return tmp_path / "white.png"


def test_pictures_are_laid_out_in_rows_and_what_is_not_there_stays_black(white: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    pictures = [None, white, white, tmp_path / "text.png", tmp_path / "absent.png", white]
    save_picture_grid(tmp_path / "grid.jpg", pictures, columns=3, largest_cell=30)
    grid = load_image(tmp_path / "grid.jpg")
    assert grid.shape == (3, 2 * 32 + 2, 3 * 32 + 2)
    centres = grid[:, 17::32, 17::32].mean(0)
    torch.testing.assert_close(centres, torch.tensor([[-1.0, 1, 1], [-1, -1, 1]]), atol=0.02, rtol=0)


@pytest.mark.parametrize(("count", "columns"), [(400, 400), (400, 1), (2000, 2000)])
def test_many_cells_shrink_until_a_jpeg_holds_them(white: Path, tmp_path: Path, count: int, columns: int) -> None:
    save_picture_grid(tmp_path / "grid.jpg", [white] * count, columns)
    sides = load_image(tmp_path / "grid.jpg").shape[1:]
    assert JPEG_LIMIT - count < max(sides) <= JPEG_LIMIT
    assert min(sides) == (JPEG_LIMIT - 2) // count + 2


def test_the_area_is_bounded_too(white: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_grids, "_MAX_AREA", 10_000)
    save_picture_grid(tmp_path / "grid.jpg", [white] * 20, columns=5)
    assert load_image(tmp_path / "grid.jpg").shape == (3, 4 * 22 + 2, 5 * 22 + 2)  # 22 * 22 * 20 = 9680


def test_more_cells_than_pixels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grid\.jpg: 1 x 30000 pictures do not fit"):
        save_picture_grid(tmp_path / "grid.jpg", [None] * 30_000, columns=30_000)
    assert not list(tmp_path.iterdir())


def test_one_picture_at_a_time_is_in_memory_at_full_size(
    white: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref] = []
    most_alive = 0

    def watched(path: Path) -> Tensor:
        nonlocal most_alive
        most_alive = max(most_alive, sum(reference() is not None for reference in loaded))
        image = load_image(path)
        loaded.append(weakref.ref(image))
        return image

    monkeypatch.setattr(picture_grids, "load_image", watched)
    save_picture_grid(tmp_path / "grid.jpg", [white] * 6, columns=3, largest_cell=8)
    assert len(loaded) == 6 and most_alive == 0
