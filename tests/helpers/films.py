"""Films to test with: pictures at given times, a sine as sound, turned cameras."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SOUND_RATE = 16000
TONE_HZ = 440


def write_film(
    path: Path,
    pictures: Sequence[np.ndarray],
    times_s: Sequence[Fraction] | Fraction = Fraction(1, 25),
    sound: str | None = None,
    turn_deg: int = 0,
) -> None:
    """Write pictures, uint8 (H, W, 3), as H.264.

    Args:
        path: .mp4, .mov or .mkv.
        pictures: of even sizes.
        times_s: of each picture, or how long each is shown.
        sound: encoder of a sine of 440 Hz that is as long as the film.
        turn_deg: how players turn the pictures, counter-clockwise.
    """
    if isinstance(times_s, Fraction):
        times_s = [times_s * k for k in range(len(pictures))]
    clock = Fraction(1, 90000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "4"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", clock
        if turn_deg:
            stream.set_display_rotation(turn_deg)
        track = None if sound is None else container.add_stream(sound, rate=SOUND_RATE, layout="mono")
        for rows, time_s in zip(pictures, times_s, strict=True):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rows), format="rgb24")
            picture.pts, picture.time_base = round(time_s / clock), clock
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if track is not None:
            _write_sine(container, track, float(times_s[-1]) + 0.04)


def read_sound(path: Path) -> tuple[str, np.ndarray, int]:
    """Return the encoding of a film's sound, its samples of the first channel, and their rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = [frame.to_ndarray() for frame in container.decode(stream)]
        rate = stream.codec_context.sample_rate
        return stream.codec_context.name, np.concatenate([frame[0] for frame in frames]).astype(float), rate


def loudest_hz(samples: np.ndarray, rate: int) -> float:
    """Return the strongest frequency of samples."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def read_times(path: Path) -> list[float]:
    """Return when the pictures of a film are shown, in seconds."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def _write_sine(container: av.container.OutputContainer, track: av.AudioStream, seconds: float) -> None:
    samples = np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE)
    whole = (samples * 20000).astype(np.int16)[None]
    for first in range(0, whole.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(whole[:, first : first + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, first, Fraction(1, SOUND_RATE)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))
