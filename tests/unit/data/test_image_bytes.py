"""Encoded pictures in memory."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from portrait4d.data.image_io import decode_image, decode_pixels, encode_image, read_image_size, to_uint8

PICTURE = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_png_bytes_come_back() -> None:
    data = encode_image(PICTURE)
    assert torch.equal(decode_image(data, "x"), to_uint8(PICTURE))
    assert torch.equal(decode_image(memoryview(data), "x"), to_uint8(PICTURE))
    assert read_image_size(data, "x") == (7, 5)
    assert np.array_equal(decode_pixels(data, "x"), to_uint8(PICTURE).permute(1, 2, 0).numpy())


def test_jpeg_bytes_are_near() -> None:
    flat = torch.full((3, 16, 16), 0.5)
    data = encode_image(flat, "JPEG")
    assert data[:2] == b"\xff\xd8"
    assert (decode_image(data, "x").int() - to_uint8(flat).int()).abs().max() <= 3
    with pytest.raises(ValueError, match="kind: expected PNG or JPEG, got 'GIF'"):
        encode_image(flat, "GIF")


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA"])
def test_grey_stays_grey_and_the_rest_becomes_rgb(mode: str) -> None:
    data = encoded(Image.fromarray(np.full((4, 6), 255, np.uint8)).convert(mode))
    assert decode_pixels(data, "x").shape == ((4, 6) if mode in ("L", "1") else (4, 6, 3))
    assert decode_image(data, "x").shape == (3, 4, 6) and (decode_image(data, "x") == 255).all()


def test_damage_is_named() -> None:
    with pytest.raises(ValueError, match="seg: expected an encoded picture, got 7 bytes of something else"):
        decode_image(b"nothing", "seg")
    with pytest.raises(ValueError, match="seg: expected a readable picture, got a damaged one"):
        decode_pixels(encode_image(PICTURE)[:-30], "seg")
