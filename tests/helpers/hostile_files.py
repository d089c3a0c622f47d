"""Files that pictures-only programs stumble over: odd ones that can be used, and ones that cannot."""

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from portrait4d.data.image_io import save_image, save_video

SIDE = 96


def face_rows(channels: int = 3) -> np.ndarray:
    """Return uint8 rows of a dark picture with a bright, shaded square in its middle."""
    rows = np.zeros((SIDE, SIDE, channels), np.uint8)
    rows[30:62, 20:52] = np.linspace(140, 255, 32, dtype=np.uint8)[:, None]
    return rows


def write_usable(folder: Path) -> set[str]:
    """Write six odd pictures with a face; return their names without suffix."""
    rows = face_rows()
    Image.fromarray(rows[..., 0]).save(folder / "grey.png")
    Image.fromarray(np.dstack([rows, np.full((SIDE, SIDE), 255, np.uint8)])).save(folder / "alpha.png")
    Image.fromarray(rows).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rows[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    frames = [Image.fromarray(face_rows()), Image.new("RGB", (SIDE, SIDE))]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpeg", exif=exif)
    (folder / "cmyk.jpg").rename(folder / "cmyk.JPG")
    return {"grey", "alpha", "cmyk", "sixteen", "animated", "turned"}


def write_unusable(folder: Path) -> set[str]:
    """Write twenty files that cannot be used; return their names."""
    before = set(folder.iterdir())
    picture = Image.fromarray(face_rows())
    for suffix in ("jpg", "png", "webp"):
        picture.save(folder / "whole", format={"jpg": "JPEG"}.get(suffix, suffix.upper()))
        data = (folder / "whole").read_bytes()
        (folder / f"cut-{suffix}.{suffix}").write_bytes(data[: len(data) * 2 // 3])
    (folder / "whole").unlink()
    for suffix in ("jpg", "png", "gif", "tif", "mp4"):
        (folder / f"empty-{suffix}.{suffix}").touch()
    (folder / "text.jpg").write_text("no picture at all\n" * 20)
    (folder / "page.png").write_text("<!doctype html><title>404</title>")
    (folder / "noise.bmp").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "archive.jpeg").write_bytes(b"PK\x03\x04" + bytes(300))
    (folder / "bomb.png").write_bytes(png_header(60000, 60000))
    Image.fromarray(np.zeros((SIDE, SIDE), np.float32)).save(folder / "floats.tiff")
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("RGB", (900, 2), "white").save(folder / "line.png")
    Image.new("RGB", (SIDE, SIDE), (9, 9, 9)).save(folder / "nobody.png")
    (folder / "text.mp4").write_text("no film at all\n" * 20)
    generator = torch.Generator().manual_seed(0)
    save_video(folder / "cut.mp4", (torch.rand(3, 32, 32, generator=generator) - 2 for _ in range(30)), 25)
    data = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    _write_sound(folder / "sound.mov")
    return {path.name for path in set(folder.iterdir()) - before}


def write_faces(folder: Path, count: int) -> None:
    """Write pictures 000.png, 001.png, ... with a face."""
    for number in range(count):
        save_image(folder / f"{number:03d}.png", torch.from_numpy(face_rows()).permute(2, 0, 1) / 127.5 - 1)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that promises that many pixels and holds none."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    body = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def _write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
