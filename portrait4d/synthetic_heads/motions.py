"""Draw motions of the open head: stills and smooth clips, and the 548-number motion vector of a motion.

A motion says nothing about who moves. Everything follows from a seed; a longer clip begins like a shorter one.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from portrait4d.geometry.head_params import EXPRESSION_DIM
from portrait4d.synthetic_heads.head_expressions import FULL_EXPRESSION, MIXTURES
from portrait4d.synthetic_heads.head_template import open_head_extras

CLIP_FPS = 25.0
NECK_STD_RAD, NECK_LIMIT_RAD = np.array([0.10, 0.24, 0.055]), np.array([0.30, 0.60, 0.22])
GAZE_MEAN_RAD = np.array([-0.02, 0.0])
GAZE_STD_RAD, GAZE_LIMIT_RAD = np.array([0.06, 0.14]), np.array([0.20, 0.34])
CAMERA_MEAN, CAMERA_STD = np.array([0.0, -0.03, -4.25]), np.array([0.015, 0.012, 0.09])
"""World-to-camera translation of labels, within what fitted labels of photos measure (`flame-fitting.md` section 1)."""
GAZE_SCALE_RAD, JAW_SCALE_RAD = 0.3, 0.2
"""Angles that count as one unit in motion vectors."""

LID_SLOTS = ("blink_left", "blink_right", "squint", "wide")
FEELING_SLOTS = ("smile", "frown", "brows_up", "brows_down", "inner_brows_up", "sneer", "puff", "squint", "wide")
FEELING_SLOTS += ("upper_lip_up", "smile_left", "smile_right", *MIXTURES)
MOUTH_SLOTS = ("smile", "lips_apart", "frown", "pucker", "press", "jaw_side", "puff", "upper_lip_up", "lower_lip_down")
MOUTH_SLOTS += ("smile_left", "smile_right", *MIXTURES)
BLOCKS = (("eye", 6, LID_SLOTS), ("emotion", 30, FEELING_SLOTS), ("mouth", 512, MOUTH_SLOTS))
"""Parts of a motion vector: name, width, expression slots that enter."""
_PROJECTION_SEED = 548


@dataclass(frozen=True)
class Motion:
    """One frame's motion, float32.

    Attributes:
        expression: (100,) coefficients of the open head.
        neck_rad, jaw_rad: (3,) axis-angles.
        gaze_rad: (3,) axis-angle of both eyes.
        camera_translation: (3,) of the label's world-to-camera transform, world units.
    """

    expression: np.ndarray
    neck_rad: np.ndarray
    jaw_rad: np.ndarray
    gaze_rad: np.ndarray
    camera_translation: np.ndarray


def sample_still_motion(seed: int, index: int) -> Motion:
    """Draw the motion of a single portrait; equal numbers give equal motions."""
    rng = _stream(seed, index, 0)
    expression = _sample_expression(rng)
    if rng.random() < 0.04:
        expression[_slots(("blink_left", "blink_right"))] = FULL_EXPRESSION * rng.uniform(0.8, 1.0)
    neck = np.clip(rng.normal(0, NECK_STD_RAD), -NECK_LIMIT_RAD, NECK_LIMIT_RAD)
    jaw = rng.uniform(0.05, 0.24) if rng.random() < 0.25 else rng.uniform(0, 0.04)
    return _motion(expression, neck, jaw, rng.normal(GAZE_MEAN_RAD, GAZE_STD_RAD), rng.normal(CAMERA_MEAN, CAMERA_STD))


def sample_clip_motions(seed: int, index: int, frames: int, fps: float = CLIP_FPS) -> list[Motion]:
    """Draw smooth motions of a clip: turning, talking, looking about, blinking.

    Args:
        seed, index: equal numbers give equal motions.
        frames: how many.
        fps: frames per second; fewer show the same motion in larger steps.

    Raises:
        ValueError: if there is less than one frame, or `fps` is not positive.
    """
    if frames < 1:
        raise ValueError(f"frames: expected 1 or more, got {frames}")
    if fps <= 0:
        raise ValueError(f"fps: expected above 0, got {fps}")
    time_s = np.arange(frames) / fps
    waves = [_waves(_stream(seed, index, 10 + k), time_s, 0.45 if k < 3 else 0.8) for k in range(5)]
    rng = _stream(seed, index, 1)
    neck = rng.normal(0, 0.5 * NECK_STD_RAD) + 1.1 * NECK_STD_RAD * np.stack(waves[:3], 1)
    gaze = 0.7 * GAZE_STD_RAD * np.stack(waves[3:], 1)
    talk = 1 + np.tanh(_waves(_stream(seed, index, 20), time_s, 2.8))
    talk *= np.clip(0.5 + _waves(_stream(seed, index, 21), time_s, 0.5), 0, 1)
    translation = rng.normal(CAMERA_MEAN, CAMERA_STD)
    expressions = _blend_expressions(_stream(seed, index, 22), time_s)
    expressions[:, _slots(("lips_apart",))] += 0.18 * FULL_EXPRESSION * talk[:, None]
    blinks = FULL_EXPRESSION * _blinks(_stream(seed, index, 23), time_s)
    lids = _slots(("blink_left", "blink_right"))
    expressions[:, lids] = np.maximum(expressions[:, lids], blinks[:, None])
    neck = np.clip(neck, -NECK_LIMIT_RAD, NECK_LIMIT_RAD)
    return [
        _motion(expressions[k], neck[k], 0.015 + 0.055 * talk[k], gaze[k], translation.copy()) for k in range(frames)
    ]


def sample_lively_motion(seed: int, index: int) -> Motion:
    """Draw the motion of a still or of a moment of a clip, in which lids and mouth are more often moved than in either.

    What moves a face covers few pixels, and shut eyes are rare: whoever learns from this sees them in three of ten
    pictures, half shut as often as shut, and in another three of ten a jaw anywhere between closed and wide open.
    """
    rng = _stream(seed, index, 30)
    if rng.random() < 0.5:
        motion = sample_still_motion(seed, index)
    else:
        motion = sample_clip_motions(seed, index, frames=2, fps=1 / rng.uniform(0.5, 6))[1]
    expression, jaw = motion.expression.copy(), motion.jaw_rad.copy()
    if rng.random() < 0.3:
        expression[_slots(("blink_left", "blink_right"))] = FULL_EXPRESSION * rng.uniform(0, 1)
    if rng.random() < 0.3:
        jaw[0] = rng.uniform(0, 0.24)
    return replace(motion, expression=expression, jaw_rad=jaw)


def motion_vector(motion: Motion) -> np.ndarray:
    """Return the motion vector (548,) float32 = eye 6 | emotion 30 | mouth 512 of a motion.

    Each part is inputs @ projection / sqrt(number of inputs). Inputs of every part are its expression slots (`BLOCKS`)
    divided by FULL_EXPRESSION, in that order; then the gaze's three angles / 0.3 rad for the eyes, and the jaw's three
    / 0.2 rad for the mouth. Projections: `motion_projection`. Neither head pose nor identity enters.
    """
    angles = {"eye": motion.gaze_rad / GAZE_SCALE_RAD, "emotion": np.zeros(0), "mouth": motion.jaw_rad / JAW_SCALE_RAD}
    parts = []
    for name, _, slots in BLOCKS:
        inputs = np.concatenate([motion.expression[_slots(slots)] / FULL_EXPRESSION, angles[name]]).astype(np.float64)
        parts.append((inputs[:, None] * motion_projection(name)).sum(0) / np.sqrt(len(inputs)))
    return np.concatenate(parts).astype(np.float32)


@cache
def motion_projection(name: str) -> np.ndarray:
    """Return the fixed matrix (inputs, width) of a part of the motion vector, "eye", "emotion" or "mouth".

    Standard-normal numbers of numpy's frozen `RandomState(548)`, drawn row by row, part after part.

    Raises:
        ValueError: if there is no such part.
    """
    rng = np.random.RandomState(_PROJECTION_SEED)
    for part, width, slots in BLOCKS:
        matrix = rng.standard_normal((len(slots) + (0 if part == "emotion" else 3), width))
        if part == name:
            return matrix
    raise ValueError(f"part: expected one of {', '.join(block[0] for block in BLOCKS)}, got {name}")


def _motion(
    expression: np.ndarray, neck: np.ndarray, jaw_open_rad: float, gaze: np.ndarray, translation: np.ndarray
) -> Motion:
    """Join the parts; the eyes partly stay on the camera when the head turns."""
    looking = np.clip(gaze - 0.4 * neck[:2], -GAZE_LIMIT_RAD, GAZE_LIMIT_RAD)
    arrays = (expression, neck, np.array([jaw_open_rad, 0, 0]), np.append(looking, 0.0), translation)
    return Motion(*(np.asarray(array, np.float32) for array in arrays))


def _sample_expression(rng: np.random.Generator) -> np.ndarray:
    """Draw coefficients (100,): almost neutral, a feeling, or a mixture of a few movements."""
    expression = np.zeros(EXPRESSION_DIM)
    small = _slots(("smile", "lips_apart", "brows_up", "brows_down", "wide", "press", "smile_left", "smile_right"))
    expression[small] = np.abs(rng.normal(0, 0.07 * FULL_EXPRESSION, len(small)))
    kind = rng.random()
    if kind < 0.5:
        feeling = rng.choice(list(MIXTURES), p=[0.44, 0.16, 0.14, 0.14, 0.12])
        expression[_slots((str(feeling),))] += FULL_EXPRESSION * rng.uniform(0.2, 0.9)
    elif kind < 0.8:
        free = ("smile", "frown", "pucker", "press", "jaw_side", "brows_up", "brows_down", "squint", "puff", "sneer")
        for name in rng.choice(free, 2, replace=False):
            sign = rng.choice([-1.0, 1.0]) if name == "jaw_side" else 1.0
            expression[_slots((str(name),))] += sign * FULL_EXPRESSION * rng.uniform(0.15, 0.7)
    return expression


def _blend_expressions(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    """Pass from one drawn expression to the next in 1.5 s, smoothly: (frames, 100)."""
    place = time_s / 1.5
    keys = np.stack([_sample_expression(rng) for _ in range(int(place[-1]) + 2)])
    number = place.astype(int)
    share = place - number
    share = (share * share * (3 - 2 * share))[:, None]
    return (1 - share) * keys[number] + share * keys[number + 1]


def _blinks(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    """Return how far the lids are closed, 0 to 1, in blinks of a quarter of a second every few seconds."""
    closed, moment = np.zeros_like(time_s), float(rng.uniform(0.2, 1.6))
    while moment < time_s[-1] + 0.2:
        closed = np.maximum(closed, np.clip(1.25 - np.abs(time_s - moment) / 0.1, 0, 1))
        moment += float(rng.uniform(1.6, 4.5))
    return closed


def _waves(rng: np.random.Generator, time_s: np.ndarray, highest_hz: float) -> np.ndarray:
    """Return a smooth signal of about unit variance: five sines up to `highest_hz`."""
    frequency, phase = rng.uniform(0.15, 1, 5) * highest_hz, rng.uniform(0, 2 * np.pi, 5)
    return np.sin(2 * np.pi * frequency * time_s[:, None] + phase).sum(1) * np.sqrt(2 / 5)


def _slots(names: tuple[str, ...]) -> list[int]:
    return [open_head_extras().expression_slot(name) for name in names]


def _stream(seed: int, index: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, index, number, 437])
