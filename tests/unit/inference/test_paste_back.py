"""Heads over colours and pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from portrait4d.inference.paste_back import Layer, head_layer, old_head_mask, paste, pasted_layer
from portrait4d.inference.tracking import CropPlace

RED, BLUE = torch.tensor([1.0, -1, -1])[:, None, None], torch.tensor([-1.0, -1, 1])[:, None, None]


def render(mask: torch.Tensor, head: torch.Tensor = RED, behind: torch.Tensor = BLUE) -> SimpleNamespace:
    """Return a render of an even head before an even background; mask (S, S) in [0, 1]."""
    return SimpleNamespace(
        image_sr=(mask * head + (1 - mask) * behind)[None],
        mask=2 * mask[None, None] - 1,
        background_image=behind.expand(3, *mask.shape)[None],
    )


def ramp(size: int = 32) -> torch.Tensor:
    return torch.linspace(-0.5, 1.5, size).clamp(0, 1).expand(size, size)


def test_backgrounds_are_taken_away_where_heads_are_thin() -> None:
    layer = head_layer(render(ramp()))
    torch.testing.assert_close(layer.alpha[0], ramp(), atol=1e-6, rtol=0)
    torch.testing.assert_close(layer.colours, (RED + 1) / 2 * ramp(), atol=1e-6, rtol=0)
    green = torch.tensor([-1.0, 1, -1])[:, None, None]
    torch.testing.assert_close(layer.over(green), ramp() * RED + (1 - ramp()) * green, atol=1e-5, rtol=0)
    opaque = layer.with_opacity()
    assert opaque.shape == (4, 32, 32)
    torch.testing.assert_close(
        opaque[:3][:, ramp() > 0.1], RED[:, 0].expand(3, (ramp() > 0.1).sum()), atol=1e-3, rtol=0
    )


def test_old_heads_do_not_show() -> None:
    """Where the head was and is no more, the network's background is pasted."""
    old, new = torch.zeros(64, 64), torch.zeros(64, 64)
    old[20:44, 10:30], new[20:44, 30:50] = 1, 1
    photo = torch.full((3, 64, 64), -1.0)
    photo[:, 20:44, 10:30] = 1
    layer = pasted_layer(render(new), old_head_mask(render(old)))
    result = paste(layer, photo, CropPlace.whole(64))
    torch.testing.assert_close(result[:, 22:42, 12:28], BLUE.expand(3, 20, 16), atol=1e-4, rtol=0)
    torch.testing.assert_close(result[:, 22:42, 32:48], RED.expand(3, 20, 16), atol=1e-4, rtol=0)
    assert (result[:, :, 58:] == -1).all()


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 2.5])
def test_layers_come_to_their_place(scale: float) -> None:
    """The crop's red and green say where in it a point is; the crop's left half lies outside the picture."""
    side = round(160 * scale)
    place = CropPlace((300, 410), np.array([[1.0, 0, -side / 2], [0, 1.0, 5]])).resized(side, 160)
    along = ((torch.arange(160) + 0.5) / 160).expand(160, 160)
    layer = Layer(torch.stack([along, along.T, torch.zeros(160, 160)]), torch.ones(1, 160, 160))
    picture = torch.full((3, 410, 300), -1.0)
    result = (paste(layer, picture, place) + 1) / 2
    assert (picture == -1).all()
    inner = side // 10
    for x in range(0, side // 2 - inner, 7):
        for y in range(5 + inner, 5 + side - inner, 7):
            expected = [(x + 0.5 + side / 2) / side, (y + 0.5 - 5) / side, 0]
            assert result[:, y, x].tolist() == pytest.approx(expected, abs=2e-3)
    margin = 4  # edges are soft
    outside = [result[:, : 5 - margin], result[:, 5 + side + margin :], result[:, :, side // 2 + margin :]]
    assert all(abs(part).max() == 0 for part in outside)


def test_a_crop_beside_the_picture_changes_nothing() -> None:
    picture = torch.zeros(3, 50, 50)
    layer = Layer(torch.ones(3, 8, 8), torch.ones(1, 8, 8))
    assert paste(layer, picture, CropPlace((50, 50), np.array([[1.0, 0, 90], [0, 1.0, 0]]))) is picture


def test_edges_fade_within_a_picture_only() -> None:
    layer, picture = Layer(torch.ones(3, 100, 100), torch.ones(1, 100, 100)), torch.full((3, 100, 150), -1.0)
    whole = paste(layer, picture[:, :, :100], CropPlace.whole(100))
    assert (whole > 0.99).all()
    part = paste(layer, picture, CropPlace((150, 100), np.eye(2, 3)))
    assert (part[:, :, 10] > 0.99).all() and (part[:, :, 99] < -0.5).all()
