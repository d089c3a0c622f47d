"""Who appears in the demonstration: bundled persons and clips that no training has seen, and the true results.

Sources are persons of the set `portraits`, drivers are the clips of the set `driving` (`examples/synthetic`). Truths
are pictures of the sources with the drivers' motion, which only a made-up world can give. They are written by

    python -c "from portrait4d.inference.demo_cast import write_truths; write_truths()"
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from portrait4d.data.image_io import load_image, save_image
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, SEGMENTATIONS, PortraitFolder, PreparedPortrait
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.figure import Detail, Figure, build_figure
from portrait4d.synthetic_heads.motions import sample_clip_motions, sample_still_motion
from portrait4d.synthetic_heads.portrait_sets import SEED_STEP
from portrait4d.synthetic_heads.portraits import Shot, plan_orbit_shot, plan_shot
from portrait4d.synthetic_heads.scene import render_portrait

SYNTHETIC = Path(__file__).parents[1] / "examples" / "synthetic"
PORTRAITS, DRIVING, TRUTH = SYNTHETIC / "portraits" / "00000", SYNTHETIC / "driving", SYNTHETIC / "truth"
SOURCES = (0, 3, 9)
"""Numbers of the persons, and of their pictures in `PORTRAITS`."""
CLIPS = (0, 1)
CLIP_FRAMES, CLIP_FPS = 16, 8.0
ORBIT_SOURCE = 3
ORBIT_FRAMES, ORBIT_FPS = 36, 12.0
ORBIT_YAW_DEG, ORBIT_PITCH_DEG = 30.0, 8.0
TRUTH_SIZE, _QUALITY = 128, 90
_PERSONS_SEED, _CLIPS_SEED = 13, 16
"""Of the sets' settings.json."""


def source_portrait(person: int) -> PreparedPortrait:
    """Return the bundled picture of a person.

    Raises:
        InputFileError: it is not there.
    """
    return PreparedPortrait(f"{person:05d}", PORTRAITS / ALIGNED_IMAGES / f"{person:05d}.jpg", PORTRAITS)


def clip_portraits(clip: int) -> list[PreparedPortrait]:
    """List the frames of a bundled clip in order.

    Raises:
        InputFileError: they are not there.
    """
    return PortraitFolder(DRIVING / f"clip-{clip:05d}").items()


def truth_folder(person: int, clip: int | None) -> Path:
    """Return the folder of a person's true pictures with a clip's motion, or (None) from all sides."""
    return TRUTH / (f"{person:05d}_orbit" if clip is None else f"{person:05d}_clip-{clip:05d}")


def load_truth(folder: Path, number: int) -> tuple[Tensor, Tensor]:
    """Load a true picture (3, S, S) in [-1, 1] and the mask (1, S, S) of its head in [0, 1].

    Raises:
        InputFileError: they are not there.
    """
    name = f"{number:05d}.jpg"
    mask = (load_image(folder / SEGMENTATIONS / name)[:1] + 1) / 2
    return load_image(folder / ALIGNED_IMAGES / name), mask


def orbit_angles_rad(frame: int) -> tuple[float, float]:
    """Return yaw and pitch of a frame of the orbit, a closed loop."""
    angle = 2 * math.pi * frame / ORBIT_FRAMES
    return math.radians(ORBIT_YAW_DEG) * math.sin(angle), math.radians(ORBIT_PITCH_DEG) * math.cos(angle)


@torch.inference_mode()
def write_truths() -> None:
    """Render the true pictures and masks of all films to `TRUTH`; what is there is written again."""
    jobs = [(person, clip) for person in SOURCES for clip in CLIPS] + [(ORBIT_SOURCE, None)]
    for person, clip in tqdm(jobs, unit="film"):
        figure = build_figure(sample_appearance(_PERSONS_SEED * SEED_STEP + person), Detail.for_size(TRUTH_SIZE))
        for number, shot in enumerate(_shots(figure, clip)):
            portrait = render_portrait(figure, shot.params, shot.render_camera, TRUTH_SIZE, maps=False)
            folder, name = truth_folder(person, clip), f"{number:05d}.jpg"
            save_image(folder / SEGMENTATIONS / name, (2 * portrait.mask - 1).expand(3, -1, -1), _QUALITY)
            save_image(folder / ALIGNED_IMAGES / name, portrait.image, _QUALITY)


def _shots(figure: Figure, clip: int | None) -> Iterator[Shot]:
    person = figure.person
    if clip is not None:
        yield from (
            plan_shot(person, motion) for motion in sample_clip_motions(_CLIPS_SEED, clip, CLIP_FRAMES, CLIP_FPS)
        )
        return
    motion = sample_still_motion(_PERSONS_SEED, person.seed - _PERSONS_SEED * SEED_STEP)
    yield from (plan_orbit_shot(person, motion, *orbit_angles_rad(frame)) for frame in range(ORBIT_FRAMES))
