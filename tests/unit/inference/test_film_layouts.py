"""Pictures side by side, above each other, and fitted into places."""

import pytest
import torch

from portrait4d.config.animation import Layout
from portrait4d.inference.film_layouts import arrange, fit_into


def even(level: float, height: int = 8, width: int = 8, channels: int = 3) -> torch.Tensor:
    return torch.full((channels, height, width), level)


SOURCES, RESULTS = [even(0.1), even(0.2), even(0.3)], [even(0.5), even(0.6), even(0.7)]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("result", [[0.5, 0.6, 0.7]]),
        ("side-by-side", [[0.1, 0.5, 0.9], [0.2, 0.6, 0.9], [0.3, 0.7, 0.9]]),
        ("grid", [[0.9, 0.5], [0.6, 0.7]]),
    ],
)
def test_layouts(layout: Layout, expected: list[list[float]]) -> None:
    frame = arrange(layout, SOURCES, RESULTS, even(0.9, 20, 20))
    torch.testing.assert_close(frame[0, 4::8, 4::8], torch.tensor(expected), atol=1e-5, rtol=0)


def test_no_place_is_kept_for_a_driver_without_pictures() -> None:
    assert arrange("side-by-side", SOURCES[:1], RESULTS[:1], None).shape == (3, 8, 16)
    assert arrange("grid", SOURCES[:1], RESULTS[:1], None).shape == (3, 8, 8)


def test_opacity_is_kept() -> None:
    assert arrange("result", SOURCES[:2], [even(0.5, channels=4)] * 2, None).shape == (4, 8, 16)


def test_pictures_are_fitted_with_their_form() -> None:
    fitted = fit_into(even(1.0, 10, 40), (20, 20))
    assert fitted.shape == (3, 20, 20)
    assert (fitted[:, 8:12] > 0.9).all() and (fitted[:, :7] == -1).all() and (fitted[:, 13:] == -1).all()
    assert fit_into(even(1.0, 1000, 1), (8, 8)).shape == (3, 8, 8)
