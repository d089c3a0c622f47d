"""Films with the sound of others, at the times of others, and with transparent backgrounds."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from torch import Tensor

from portrait4d.data.image_io import VideoWriter, to_uint8
from portrait4d.files.errors import InputFileError

_CLOCK = Fraction(1, 90000)
_EARLIEST_S = -0.1  # encoders' lead-in before the first sample; players skip it
_VP9 = {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1", "auto-alt-ref": "0"}
_COPIED = {
    ".mp4": {"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"},
    ".mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_f32le"},
    ".webm": {"opus", "vorbis"},
}
_ENCODERS = {".mp4": "aac", ".mov": "aac", ".webm": "libopus"}
_SOUND_RATE = 48000


@dataclass(frozen=True)
class FilmSettings:
    """How to write a film.

    Attributes:
        rate: frames per second, on average where frames have times.
        alpha: whether frames are (4, H, W): red, green and blue, not multiplied by it, and opacity.
        sound: film whose sound is taken over, from its first picture to the last frame written; None: silence.
    """

    rate: Fraction
    alpha: bool = False
    sound: Path | None = None


class FilmWriter(VideoWriter):
    """Write a film as `VideoWriter` does, with sound, times and opacity.

    .mp4 is H.264; .mov too, with opacity ProRes 4444; .webm is VP9. Sound is copied where the format takes it, else
    encoded again.

    Attributes:
        sound_problem: why the sound ends before the pictures do, None if it does not.

    Args:
        path: file to write, suffix .mp4, .mov or .webm.
        settings: see `FilmSettings`.

    Raises:
        ValueError: another suffix or frame rate, or opacity in .mp4.
    """

    suffixes = tuple(_ENCODERS)

    def __init__(self, path: str | Path, settings: FilmSettings) -> None:
        super().__init__(path, settings.rate)
        self.settings = settings
        self.sound_problem: str | None = None
        suffix = self.path.suffix.lower()
        if suffix == ".webm":
            self._codec, self._options, self._muxing = "libvpx-vp9", _VP9, {}
            self._pixels = "yuva420p" if settings.alpha else "yuv420p"
        elif settings.alpha:
            if suffix != ".mov":
                raise ValueError(f"path: expected .mov or .webm for a film with opacity, got {self.path.name!r}")
            self._codec, self._options, self._pixels = "prores_ks", {"profile": "4444"}, "yuva444p10le"
        self._sound: _Sound | None = None
        self._time_s = Fraction(0)

    @property
    def sound_codec(self) -> str | None:
        """Name of the sound's encoding, None without sound."""
        return None if self._sound is None else self._sound.codec

    def __enter__(self) -> "FilmWriter":
        if self.settings.sound is not None:
            self._sound = _Sound(self.settings.sound)
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            if self._sound is not None:
                self._sound.close()

    def write(self, frame: Tensor, time_s: Fraction | None = None) -> None:
        """Append a frame (3 or 4, H, W) in [-1, 1].

        Args:
            frame: all must have the size of the first.
            time_s: when to show it, in seconds, later than the frame before; None: by the frame rate.

        Raises:
            ValueError: as `VideoWriter.write`.
        """
        self._time_s = self.frames_written / self._rate if time_s is None else time_s
        super().write(frame)
        self._copy_sound(self._time_s)

    def _to_rows(self, frame: Tensor) -> np.ndarray:
        if not self.settings.alpha:
            return super()._to_rows(frame)
        if frame.ndim != 3 or frame.shape[0] != 4 or 0 in frame.shape:
            raise ValueError(f"frame: expected shape (4, H, W), got {tuple(frame.shape)}")
        return to_uint8(frame.detach()).cpu().permute(1, 2, 0).contiguous().numpy()

    def _to_picture(self, rows: np.ndarray) -> av.VideoFrame:
        picture = av.VideoFrame.from_ndarray(rows, format="rgba" if self.settings.alpha else "rgb24")
        picture = picture.reformat(format=self._pixels, dst_colorspace="ITU709", dst_color_range="MPEG")
        picture.pts, picture.time_base = round(self._time_s / _CLOCK), _CLOCK
        return picture

    def _start(self, height: int, width: int) -> None:
        super()._start(height, width)
        self._stream.codec_context.time_base = _CLOCK
        if self._sound is not None:
            self._sound.attach(self._container, self.path.suffix.lower())

    def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self.frames_written:
            self._copy_sound(self._time_s + 1 / self._rate, is_last=True)
        super()._finish(kind, error, traceback)

    def _copy_sound(self, end_s: Fraction, is_last: bool = False) -> None:
        if self._sound is None or self.sound_problem is not None:
            return
        try:
            self._sound.copy(end_s, is_last)
        except av.error.FFmpegError as error:
            self.sound_problem = f"sound ends after {float(end_s):.1f} s ({error.strerror})"


class _Sound:
    """The first sound track of a film on its way into another."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            try:
                self._film = stack.enter_context(av.open(str(path), metadata_errors="replace"))
            except (av.error.FFmpegError, OSError) as error:
                raise InputFileError(path, f"its sound cannot be read ({error.strerror})", "use --no-audio") from error
            if not self._film.streams.audio:
                raise InputFileError(path, "has no sound", "use --no-audio")
            self._source = self._film.streams.audio[0]
            self._close = stack.pop_all().close
        pictures = self._film.streams.video[0]
        self._start_s = (pictures.start_time or 0) * pictures.time_base
        self.codec = self._source.codec_context.name
        self._resampler: av.AudioResampler | None = None
        self._waiting: av.Packet | av.AudioFrame | None = None

    def attach(self, container: av.container.OutputContainer, suffix: str) -> None:
        """Add the track to a film of the format `suffix`, before its first picture is written."""
        self._container = container
        if self.codec in _COPIED[suffix]:
            self._target = container.add_stream_from_template(self._source)
            self._items: Iterator[av.Packet | av.AudioFrame] = self._film.demux(self._source)
            return
        self.codec = _ENCODERS[suffix]
        self._target = container.add_stream(self.codec, rate=_SOUND_RATE, layout="stereo")
        self._resampler = av.AudioResampler(self._target.codec_context.format, "stereo", _SOUND_RATE)
        self._items = self._film.decode(self._source)

    def copy(self, end_s: Fraction, is_last: bool) -> None:
        """Write what sounds before `end_s`; at last also what encoders still hold."""
        while (item := self._waiting or next(self._items, None)) is not None:
            self._waiting = None
            if item.pts is None:  # the packet that ends a film
                continue
            time_s = item.pts * item.time_base - self._start_s
            if time_s >= end_s:
                self._waiting = item
                break
            if time_s >= _EARLIEST_S:
                self._write(item)
        if is_last and self._resampler is not None:
            self._container.mux(self._target.encode(None))

    def close(self) -> None:
        """Close the film that the sound comes from."""
        self._close()

    def _write(self, item: av.Packet | av.AudioFrame) -> None:
        shift = round(self._start_s / item.time_base)
        item.pts -= shift
        if self._resampler is not None:
            for frame in self._resampler.resample(item):
                self._container.mux(self._target.encode(frame))
            return
        if item.dts is not None:
            item.dts -= shift
        item.stream = self._target
        self._container.mux(item)
