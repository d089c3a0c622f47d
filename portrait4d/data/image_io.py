"""Pictures and films between disk and tensors: the one place that knows uint8.

Everywhere else a picture is float32, RGB, (3, H, W), in [-1, 1] = byte / 127.5 - 1.
"""

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError, UserError

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError)
_UNREADABLE += (MemoryError, struct.error, Image.DecompressionBombError)
"""What Pillow's readers raise for files that are no pictures, damaged or cut short."""

_KERNELS = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR}
Box = tuple[float, float, float, float]

_SAVE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def load_image(path: str | Path, size: int | None = None) -> Tensor:
    """Load a picture as (3, H, W) float32 RGB in [-1, 1].

    Greyscale, palette, CMYK and 16-bit pictures are converted to 8-bit RGB, transparent ones are laid on black, EXIF
    orientation is applied, of an animation the first frame is taken.

    Args:
        path: any format that Pillow reads.
        size: wanted side in pixels; a square picture of another size is resized (Lanczos).

    Raises:
        InputFileError: no such file, not a picture, cut short, or not square although `size` is given.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError(path, "no such file", "give the path of a picture")
    try:
        with Image.open(path) as image:
            image.load()
            rgb = _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise InputFileError(path, "not a picture of a known format", "save it again as PNG or JPEG") from error
    except _UNREADABLE as error:
        raise InputFileError(
            path, f"not a readable picture ({_one_line(error)})", "save it again as PNG or JPEG"
        ) from error
    if size is not None and rgb.width != rgb.height:
        problem = f"expected a square picture, got {rgb.width} x {rgb.height} pixels"
        raise InputFileError(path, problem, "run the preprocessing crop first (data_preprocess/preprocess_dir.py)")
    if size is not None and rgb.width != size:
        rgb = rgb.resize((size, size), Image.Resampling.LANCZOS)
    return from_uint8(torch.from_numpy(np.array(rgb).transpose(2, 0, 1).copy()))


def decode_image(data: bytes | memoryview, name: str) -> Tensor:
    """Decode an encoded picture (PNG, JPEG, ...) to (3, H, W) uint8 RGB; conversions as in `load_image`.

    Args:
        data: the bytes of the file.
        name: what errors call it.

    Raises:
        ValueError: not a picture, or damaged.
    """
    with _open_picture(data, name) as image:
        rgb = np.array(_to_rgb(ImageOps.exif_transpose(image)))
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def read_image_size(data: bytes | memoryview, name: str) -> tuple[int, int]:
    """Read (width, height) in pixels from the header of an encoded picture.

    Raises:
        ValueError: not a picture.
    """
    with _open_picture(data, name, decode=False) as image:
        return image.size


def decode_pixels(data: bytes | memoryview, name: str) -> np.ndarray:
    """Decode an encoded picture to uint8 rows: (H, W) if it is greyscale, else RGB (H, W, 3).

    Raises:
        ValueError: not a picture, or damaged.
    """
    with _open_picture(data, name) as image:
        if image.mode in ("1", "L"):
            return np.array(image.convert("L"))
        return np.array(_to_rgb(ImageOps.exif_transpose(image)))


def encode_image(image: Tensor, kind: str = "PNG", quality: int = 95) -> bytes:
    """Encode a picture (3, H, W) in [-1, 1] as the bytes of a "PNG" or "JPEG" file.

    Raises:
        ValueError: another shape or kind, or NaN in `image`.
    """
    if kind not in ("PNG", "JPEG"):
        raise ValueError(f"kind: expected PNG or JPEG, got {kind!r}")
    buffer = io.BytesIO()
    Image.fromarray(_to_rows("image", image)).save(buffer, kind, **({"quality": quality} if kind == "JPEG" else {}))
    return buffer.getvalue()


@contextmanager
def _open_picture(data: bytes | memoryview, name: str, decode: bool = True) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if decode:
                image.load()
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"{name}: expected an encoded picture, got {len(data)} bytes of something else") from error
    except _UNREADABLE as error:
        raise ValueError(f"{name}: expected a readable picture, got a damaged one ({_one_line(error)})") from error


def from_uint8(image: Tensor) -> Tensor:
    """Convert bytes (..., uint8) to float32 in [-1, 1]: byte / 127.5 - 1.

    Raises:
        ValueError: `image` is not uint8.
    """
    if image.dtype != torch.uint8:
        raise ValueError(f"image: expected uint8, got {image.dtype}")
    return image.float() / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Convert [-1, 1] to bytes of the same shape: floor(clamp(127.5 x + 128, 0, 255)); values outside are clamped.

    Raises:
        ValueError: `image` is not floating point, or holds NaN.

    Source: flame-fitting.md §7.
    """
    if not image.is_floating_point():
        raise ValueError(f"image: expected floating point in [-1, 1], got {image.dtype}")
    if image.isnan().any():
        raise ValueError(f"image: expected numbers, got {int(image.isnan().sum())} NaN among {image.numel()}")
    return (image.float() * 127.5 + 128).clamp(0, 255).floor().to(torch.uint8)


def save_image(path: str | Path, image: Tensor, quality: int = 95) -> None:
    """Save a picture (3, H, W) in [-1, 1] atomically; the suffix .png, .jpg or .jpeg chooses the format.

    Args:
        path: file to write; its folder is made.
        image: (3, H, W) floating point.
        quality: of JPEG, 1 to 100.

    Raises:
        ValueError: another suffix, shape or quality, or NaN in `image`.
    """
    path = Path(path)
    kind = _SAVE_FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"path: expected the suffix .png, .jpg or .jpeg, got {path.name!r}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    picture = Image.fromarray(_to_rows("image", image))
    with atomic_path(path) as temporary:
        picture.save(temporary, format=kind, **({"quality": quality} if kind == "JPEG" else {}))


def resize_picture(image: Tensor, size: tuple[int, int], kernel: str = "lanczos", box: Box | None = None) -> Tensor:
    """Resize a picture (3, H, W) in [-1, 1] in 8 bits, with Pillow's antialiased kernels.

    Args:
        image: (3, H, W) floating point.
        size: (width, height) of the result in pixels.
        kernel: "lanczos" or "bilinear".
        box: (left, upper, right, lower), the part of the picture to resize, in pixels from its corner; None for all.

    Returns:
        (3, height, width) float32 in [-1, 1], on the CPU.

    Raises:
        ValueError: another shape, kernel or size, NaN in `image`, or a box that is not within it.
    """
    if kernel not in _KERNELS:
        raise ValueError(f"kernel: expected one of {', '.join(_KERNELS)}, got {kernel!r}")
    if min(size) < 1:
        raise ValueError(f"size: expected at least 1 x 1 pixels, got {size[0]} x {size[1]}")
    resized = Image.fromarray(_to_rows("image", image)).resize(size, _KERNELS[kernel], box)
    return from_uint8(torch.from_numpy(np.array(resized).transpose(2, 0, 1).copy()))


class VideoWriter:
    """Write a film frame by frame as H.264 in MP4 (yuv420p, BT.709), atomically.

    Use as a context manager. When the block ends well the film appears at `path`; after an error nothing is left and
    an older film stays. Odd sizes are padded at the right and bottom by repeating the last column and row.

    Args:
        path: file to write, suffix .mp4; its folder is made.
        fps: frames per second.
        crf: constant rate factor of x264, 0 (lossless) to 51.

    Raises:
        ValueError: another suffix, frame rate or crf; and at the end of the block, if no frame was written.
    """

    suffixes: tuple[str, ...] = (".mp4",)

    def __init__(self, path: str | Path, fps: float | Fraction, crf: int = 17) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in self.suffixes:
            raise ValueError(f"path: expected the suffix {' or '.join(self.suffixes)}, got {self.path.name!r}")
        if not Fraction(1, 1001) <= fps <= 1000:
            raise ValueError(f"fps: expected from 1/1001 to 1000, got {fps}")
        if not 0 <= crf <= 51:
            raise ValueError(f"crf: expected 0 to 51, got {crf}")
        self.frames_written = 0
        self._rate = Fraction(fps).limit_denominator(1001)
        self._codec, self._options, self._pixels = "libx264", {"crf": str(crf)}, "yuv420p"
        self._muxing = {"movflags": "+faststart"}
        self._container: av.container.OutputContainer | None = None
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> "VideoWriter":
        self.frames_written, self._size = 0, None
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            self._container = stack.enter_context(av.open(str(temporary), "w", options=self._muxing))
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, error, traceback)
        finally:
            self._container = None

    def write(self, frame: Tensor) -> None:
        """Append a frame (3, H, W) in [-1, 1]; all frames must have the size of the first.

        Raises:
            UserError: the film's format has no frames that large.
            ValueError: another shape or size, NaN in `frame`, or a writer that is not open.
        """
        if self._container is None:
            raise ValueError("writer: expected to be open (`with VideoWriter(...) as writer`), got a closed one")
        rows = self._to_rows(frame)
        height, width = rows.shape[:2]
        if self._size is None:
            self._start(height, width)
        if (height, width) != self._size:
            raise ValueError(f"frame: expected height and width {self._size} as the first frame, got {(height, width)}")
        rows = np.pad(rows, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._container.mux(self._stream.encode(self._to_picture(rows)))
        except (av.error.ExternalError, av.error.ArgumentError) as error:
            if self.frames_written:
                raise
            problem = f"{self._codec} makes no film of {width} x {height} pixels"
            raise UserError(f"{self.path}: {problem}; show fewer or smaller pictures, or lay them in a grid") from error
        self.frames_written += 1

    def _to_rows(self, frame: Tensor) -> np.ndarray:
        return _to_rows("frame", frame)

    def _to_picture(self, rows: np.ndarray) -> av.VideoFrame:
        picture = av.VideoFrame.from_ndarray(rows, format="rgb24")
        picture = picture.reformat(format=self._pixels, dst_colorspace="ITU709", dst_color_range="MPEG")
        picture.pts, picture.time_base = self.frames_written, 1 / self._rate
        return picture

    def _start(self, height: int, width: int) -> None:
        self._size = (height, width)
        self._stream = self._container.add_stream(self._codec, rate=self._rate, options=self._options)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = self._pixels
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # limited

    def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        if not self.frames_written:
            raise ValueError("frames: expected at least one frame, got none")
        self._container.mux(self._stream.encode(None))


def save_video(path: str | Path, frames: Iterable[Tensor], fps: float | Fraction) -> None:
    """Save frames (3, H, W) in [-1, 1] as an H.264 film, one at a time, atomically; see `VideoWriter`.

    Raises:
        ValueError: a suffix other than .mp4, no frames, frames of different sizes, or NaN.
    """
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.write(frame)


def side_by_side(images: Sequence[Tensor]) -> Tensor:
    """Join pictures (3, H, W) in [-1, 1] from left to right; lower ones are enlarged to the height of the tallest.

    Raises:
        ValueError: no picture, or another shape.
    """
    if not images:
        raise ValueError("images: expected at least one picture, got none")
    for image in images:
        _require_picture("images", image)
    height = max(image.shape[1] for image in images)
    return torch.cat([_scale_to_height(image, height) for image in images], dim=2)


def image_grid(images: Sequence[Tensor], columns: int, margin: int = 0) -> Tensor:
    """Lay pictures (3, H, W) in [-1, 1] of one size out in rows of `columns`, on black.

    Args:
        images: at least one; the last row may stay incomplete.
        columns: pictures per row; fewer pictures than that make a narrower grid.
        margin: pixels between pictures and around them.

    Returns:
        (3, rows (H + margin) + margin, columns (W + margin) + margin).

    Raises:
        ValueError: no picture, different sizes, columns < 1 or margin < 0.
    """
    if not images:
        raise ValueError("images: expected at least one picture, got none")
    if columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}")
    if margin < 0:
        raise ValueError(f"margin: expected at least 0, got {margin}")
    _require_picture("images", images[0])
    channels, height, width = images[0].shape
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_y, step_x = height + margin, width + margin
    grid = images[0].new_full((channels, rows * step_y + margin, columns * step_x + margin), -1)
    for k, image in enumerate(images):
        if image.shape != images[0].shape:
            raise ValueError(f"images: expected one shape {tuple(images[0].shape)}, got {tuple(image.shape)}")
        top, left = margin + k // columns * step_y, margin + k % columns * step_x
        grid[:, top : top + height, left : left + width] = image
    return grid


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would cut them at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("expected 8 or 16 bits a channel, got 32")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("expected 8 or 16 bits a channel, got floating point")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_to_height(image: Tensor, height: int) -> Tensor:
    if image.shape[1] == height:
        return image
    width = max(1, round(image.shape[2] * height / image.shape[1]))
    return functional.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)[0].clamp(-1, 1)


def _to_rows(name: str, image: Tensor) -> np.ndarray:
    _require_picture(name, image)
    return to_uint8(image.detach()).cpu().permute(1, 2, 0).contiguous().numpy()


def _require_picture(name: str, image: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"{name}: expected shape (3, H, W), got {tuple(image.shape)}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
