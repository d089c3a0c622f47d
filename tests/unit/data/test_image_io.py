"""Pictures and films: value ranges, the kinds of picture people have, bad files, and writing that leaves no halves."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from portrait4d.data.image_io import (
    VideoWriter,
    from_uint8,
    image_grid,
    load_image,
    resize_picture,
    save_image,
    save_video,
    side_by_side,
    to_uint8,
)
from portrait4d.files.errors import InputFileError, UserError
from tests.helpers.hash_fill import hash_tensor


def pattern(height: int = 6, width: int = 5) -> np.ndarray:
    """Return random bytes (height, width, 3)."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bytes_of(image: torch.Tensor) -> np.ndarray:
    return to_uint8(image).permute(1, 2, 0).numpy()


# ---------------------------------------------------------------------------------------------------- values


def test_every_byte_survives_the_round_trip() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(values)), values)


def test_to_uint8_floors_and_clamps() -> None:
    x = torch.tensor([-2.0, -1.0, -0.0001, 0.0, 0.0039, 0.0040, 0.9999, 1.0, 3.0, torch.inf, -torch.inf])
    assert to_uint8(x).tolist() == [0, 0, 127, 128, 128, 128, 255, 255, 255, 255, 0]


def test_to_uint8_rejects_nan_and_integers() -> None:
    with pytest.raises(ValueError, match="image: expected numbers, got 1 NaN among 2"):
        to_uint8(torch.tensor([0.0, torch.nan]))
    with pytest.raises(ValueError, match=r"image: expected floating point in \[-1, 1\], got torch.uint8"):
        to_uint8(torch.zeros(2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="image: expected uint8, got torch.float32"):
        from_uint8(torch.zeros(2))


# ---------------------------------------------------------------------------------------------------- reading


def test_load_is_rgb_channel_first(tmp_path: Path) -> None:
    Image.fromarray(pattern()).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.shape == (3, 6, 5)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.numpy(), pattern().transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.fromarray(pattern()).convert(mode).save(path)
    with Image.open(path) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(bytes_of(load_image(path)), expected)


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_sixteen_bit_grey_is_scaled_not_cut(tmp_path: Path, byte_order: str) -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=byte_order)
    Image.fromarray(values).save(tmp_path / "a.tif")
    Image.fromarray(values.astype("<u2")).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        assert to_uint8(load_image(tmp_path / name))[:, 0].tolist() == [[0, 1, 128, 255]] * 3


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[..., :3] = 200
    rgba[0, :, 3] = [0, 255, 128]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert to_uint8(load_image(tmp_path / "a.png"))[0, 0].tolist() == [0, 200, 100]


def test_transparent_palette_entry_is_black(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([250, 0, 0, 0, 250, 0])
    palette.save(tmp_path / "a.png", transparency=0)
    assert bytes_of(load_image(tmp_path / "a.png")).tolist() == [[[0, 0, 0], [0, 250, 0]]]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    grey = np.zeros((16, 32, 3), dtype=np.uint8)
    grey[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}", exif=exif)
    image = load_image(tmp_path / f"a.{suffix}")
    assert image.shape == (3, 32, 16)
    assert image[:, :14].mean() > 0.9
    assert image[:, 18:].mean() < -0.9


def test_size_resizes_with_lanczos_only_when_it_differs(tmp_path: Path) -> None:
    square = pattern(12, 12)
    Image.fromarray(square).save(tmp_path / "a.png")
    np.testing.assert_array_equal(bytes_of(load_image(tmp_path / "a.png", 12)), square)
    expected = np.asarray(Image.fromarray(square).resize((8, 8), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(bytes_of(load_image(tmp_path / "a.png", 8)), expected)


def test_size_needs_a_square(tmp_path: Path) -> None:
    Image.fromarray(pattern(6, 5)).save(tmp_path / "a.png")
    with pytest.raises(InputFileError, match=r"a\.png: expected a square picture, got 5 x 6 pixels; .*crop") as caught:
        load_image(tmp_path / "a.png", 5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("content", ["missing", "folder", "empty", "text", "cut"])
def test_bad_files(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"portrait.{suffix}"
    if content == "folder":
        path.mkdir()
    elif content == "empty":
        path.touch()
    elif content == "text":
        path.write_text("not a picture\n")
    elif content == "cut":
        Image.fromarray(pattern(40, 40)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputFileError, match=path.name) as caught:
        load_image(path)
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputFileError, match="expected 8 or 16 bits a channel, got floating point"):
        load_image(tmp_path / "a.tif")


# ---------------------------------------------------------------------------------------------------- pictures


def test_png_round_trip_is_exact(tmp_path: Path) -> None:
    image = from_uint8(torch.from_numpy(pattern(7, 9).transpose(2, 0, 1).copy()))
    save_image(tmp_path / "new folder" / "a.b.PNG", image)
    assert torch.equal(load_image(tmp_path / "new folder" / "a.b.PNG"), image)
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["a.b.PNG"]


def test_jpeg_has_the_asked_quality(tmp_path: Path) -> None:
    image = hash_tensor(0, [3, 64, 64]).requires_grad_()
    save_image(tmp_path / "fine.jpg", image)
    save_image(tmp_path / "rough.jpeg", image, quality=20)
    assert Image.open(tmp_path / "fine.jpg").format == "JPEG"
    assert (tmp_path / "fine.jpg").stat().st_size > 2 * (tmp_path / "rough.jpeg").stat().st_size


@pytest.mark.parametrize(
    ("name", "image", "quality", "message"),
    [
        ("a.bmp", torch.zeros(3, 2, 2), 95, r"path: expected the suffix .png, .jpg or .jpeg, got 'a\.bmp'"),
        ("a.jpg", torch.zeros(3, 2, 2), 0, "quality: expected 1 to 100, got 0"),
        ("a.png", torch.zeros(1, 3, 2, 2), 95, r"image: expected shape \(3, H, W\), got \(1, 3, 2, 2\)"),
        ("a.png", torch.full((3, 2, 2), torch.nan), 95, "image: expected numbers, got 12 NaN among 12"),
    ],
)
def test_save_image_rejects(tmp_path: Path, name: str, image: torch.Tensor, quality: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_image(tmp_path / name, image, quality)
    assert list(tmp_path.iterdir()) == []


def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "a.png", torch.zeros(3, 2, 2))
    before = (tmp_path / "a.png").read_bytes()

    def fail(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_image(tmp_path / "a.png", torch.ones(3, 2, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize("kernel", ["lanczos", "bilinear"])
def test_resize_is_antialiased_and_takes_parts(kernel: str) -> None:
    stripes = torch.ones(3, 8, 12) * torch.tensor([1.0, -1.0]).repeat(6)
    shrunk = resize_picture(stripes, (3, 2), kernel)
    assert shrunk.shape == (3, 2, 3) and shrunk.abs().max() < 0.3
    halves = torch.cat([torch.full((3, 8, 6), -1.0), torch.ones(3, 8, 6)], 2)
    assert (resize_picture(halves, (10, 4), kernel, box=(9, 0, 12, 8)) == 1).all()
    assert (bytes_of(resize_picture(halves, (12, 8), kernel)) == bytes_of(halves)).all()


def test_resize_refuses_wrong_arguments() -> None:
    picture = torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match="kernel: expected one of lanczos, bilinear, got 'nearest'"):
        resize_picture(picture, (4, 4), "nearest")
    with pytest.raises(ValueError, match="size: expected at least 1 x 1 pixels, got 4 x 0"):
        resize_picture(picture, (4, 0))
    with pytest.raises(ValueError, match=r"image: expected shape \(3, H, W\), got \(1, 8, 8\)"):
        resize_picture(picture[:1], (4, 4))


# ---------------------------------------------------------------------------------------------------- films


def flat_frames(count: int, height: int = 33, width: int = 47) -> Iterator[torch.Tensor]:
    for k in range(count):
        yield torch.tensor([0.8 - 0.3 * k, -0.3, 0.1])[:, None, None].expand(3, height, width)


def decode(path: Path) -> tuple[list[np.ndarray], object]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        context = stream.codec_context
        return frames, (context.name, context.pix_fmt, stream.average_rate, context.colorspace)


def test_film_has_the_frames_rate_and_colours(tmp_path: Path) -> None:
    save_video(tmp_path / "a.mp4", flat_frames(5), 25)
    frames, facts = decode(tmp_path / "a.mp4")
    assert facts == ("h264", "yuv420p", 25, 1)
    assert len(frames) == 5
    assert all(frame.shape == (34, 48, 3) for frame in frames)
    for frame, original in zip(frames, flat_frames(5), strict=True):
        np.testing.assert_allclose(frame[:33, :47].astype(int), bytes_of(original), atol=4)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_padding_repeats_the_border(tmp_path: Path) -> None:
    frames = [torch.zeros(3, 17, 17)]
    frames[0][:, 16], frames[0][:, :, 16] = 1.0, 1.0
    with VideoWriter(tmp_path / "a.mp4", 10, crf=0) as writer:
        writer.write(frames[0])
    (decoded,), _ = decode(tmp_path / "a.mp4")
    assert decoded[17, 17].min() > 245
    assert decoded[:12, :12].max() < 135


def test_fractional_rate(tmp_path: Path) -> None:
    save_video(tmp_path / "a.mp4", flat_frames(3, 16, 16), 30000 / 1001)
    assert decode(tmp_path / "a.mp4")[1][2] == pytest.approx(30000 / 1001)


def test_frames_are_taken_one_at_a_time(tmp_path: Path) -> None:
    alive: list[int] = []

    def frames() -> Iterator[torch.Tensor]:
        for k in range(4):
            alive.append(k)
            assert writer.frames_written == k
            yield torch.zeros(3, 16, 16)

    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for frame in frames():
            writer.write(frame)
    assert alive == [0, 1, 2, 3]
    assert len(decode(tmp_path / "a.mp4")[0]) == 4


@pytest.mark.parametrize("after", [0, 1, 40])
def test_error_inside_leaves_nothing_behind(tmp_path: Path, after: int) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for frame in flat_frames(after):
            writer.write(frame)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_error_keeps_the_old_film(tmp_path: Path) -> None:
    save_video(tmp_path / "a.mp4", flat_frames(1), 25)
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(
        ValueError, match=r"frame: expected height and width \(33, 47\) as the first frame, got \(8, 8\)"
    ):
        save_video(tmp_path / "a.mp4", [*flat_frames(1), torch.zeros(3, 8, 8)], 25)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("a.avi", [torch.zeros(3, 8, 8)], 25, r"path: expected the suffix .mp4, got 'a\.avi'"),
        ("a.mp4", [torch.zeros(3, 8, 8)], 0, "fps: expected from 1/1001 to 1000, got 0"),
        ("a.mp4", [torch.zeros(3, 8, 8)], float("nan"), "fps: expected from 1/1001"),
        ("a.mp4", [torch.zeros(3, 8, 8)], 0.0004, "fps: expected from 1/1001 to 1000, got 0.0004"),
        ("a.mp4", [], 25, "frames: expected at least one frame, got none"),
        ("a.mp4", [torch.zeros(8, 8)], 25, r"frame: expected shape \(3, H, W\), got \(8, 8\)"),
        ("a.mp4", [torch.full((3, 8, 8), torch.nan)], 25, "image: expected numbers, got 192 NaN among 192"),
    ],
)
def test_save_video_rejects(tmp_path: Path, name: str, frames: list, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_video(tmp_path / name, frames, fps)
    assert list(tmp_path.iterdir()) == []


def test_writer_can_be_opened_again_and_is_closed_outside(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 25)
    for count, size in ((3, 16), (2, 24)):
        with writer:
            for frame in flat_frames(count, size, size):
                writer.write(frame)
        frames, _ = decode(tmp_path / "a.mp4")
        assert (len(frames), frames[0].shape) == (count, (size, size, 3))
    with pytest.raises(ValueError, match="writer: expected to be open"):
        writer.write(torch.zeros(3, 8, 8))


def test_frames_too_large_for_the_encoder(tmp_path: Path) -> None:
    message = (
        r"a\.mp4: libx264 makes no film of 16390 x 16 pixels; show fewer or smaller pictures, or lay them in a grid"
    )
    with pytest.raises(UserError, match=message):
        save_video(tmp_path / "a.mp4", [torch.zeros(3, 16, 16390)], 25)
    assert list(tmp_path.iterdir()) == []


def test_crf_range(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crf: expected 0 to 51, got 52"):
        VideoWriter(tmp_path / "a.mp4", 25, crf=52)


# ---------------------------------------------------------------------------------------------------- layout


def test_side_by_side_of_equal_heights_copies() -> None:
    left, right = hash_tensor(0, [3, 4, 5]), hash_tensor(1, [3, 4, 2])
    assert torch.equal(side_by_side([left, right]), torch.cat([left, right], 2))


def test_side_by_side_enlarges_to_the_tallest() -> None:
    joined = side_by_side([torch.full((3, 4, 6), 0.25), torch.full((3, 8, 8), -0.5)])
    assert joined.shape == (3, 8, 12 + 8)
    torch.testing.assert_close(joined[..., :12], torch.full((3, 8, 12), 0.25))
    torch.testing.assert_close(joined[..., 12:], torch.full((3, 8, 8), -0.5))


def test_grid_places_row_by_row_on_black() -> None:
    images = [torch.full((3, 2, 3), k / 10) for k in range(3)]
    grid = image_grid(images, columns=2, margin=1)
    assert grid.shape == (3, 7, 9)
    expected = torch.full((7, 9), -1.0)
    expected[1:3, 1:4], expected[1:3, 5:8], expected[4:6, 1:4] = 0.0, 0.1, 0.2
    torch.testing.assert_close(grid, expected.expand(3, 7, 9))
    assert image_grid(images[:1], columns=5).shape == (3, 2, 3)


@pytest.mark.parametrize(
    ("images", "columns", "margin", "message"),
    [
        ([], 2, 0, "images: expected at least one picture, got none"),
        ([torch.zeros(3, 2, 2)], 0, 0, "columns: expected at least 1, got 0"),
        ([torch.zeros(3, 2, 2)], 1, -1, "margin: expected at least 0, got -1"),
        (
            [torch.zeros(3, 2, 2), torch.zeros(3, 2, 3)],
            1,
            0,
            r"images: expected one shape \(3, 2, 2\), got \(3, 2, 3\)",
        ),
        ([torch.zeros(2, 2)], 1, 0, r"images: expected shape \(3, H, W\), got \(2, 2\)"),
    ],
)
def test_grid_rejects(images: list, columns: int, margin: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_grid(images, columns, margin)


def test_side_by_side_rejects() -> None:
    with pytest.raises(ValueError, match="images: expected at least one picture, got none"):
        side_by_side([])
    with pytest.raises(ValueError, match=r"images: expected shape \(3, H, W\), got \(1, 2, 2\)"):
        side_by_side([torch.zeros(1, 2, 2)])
