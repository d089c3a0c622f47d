"""Short clips of held-out persons of the open head world: what a reconstructor makes of consecutive frames.

Person k shows the first frame of a clip k as source. Frames a second later drive: the person's own ("clip_self"), those
of another person with the same motion ("clip_cross"), and the own ones with a camera turned to the side
("clip_novel").
"""

import math

import numpy as np

from portrait4d.config.recon_training import ValidationConfig
from portrait4d.synthetic_heads.appearance import sample_appearance
from portrait4d.synthetic_heads.figure import Detail, Figure, build_figure
from portrait4d.synthetic_heads.motions import CLIP_FPS, Motion, sample_clip_motions
from portrait4d.synthetic_heads.portraits import plan_orbit_shot
from portrait4d.training.rendered_subjects import RenderedSubjects
from portrait4d.training.subject_frames import PortraitFrame, SubjectFrames

CLIP_SELF, CLIP_CROSS, CLIP_NOVEL = "clip_self", "clip_cross", "clip_novel"
NOVEL_YAW_DEG = 30.0
"""Of "clip_novel": to the left in one clip, to the right in the next."""
FIRST_FRAME = int(CLIP_FPS)
_STREAM = 7


def render_clips(config: ValidationConfig, size: int, kinds: tuple[str, ...]) -> dict[str, list[SubjectFrames]]:
    """Render all clips, one after the other: for each kind `clips` times `clip_frames` subjects of `size` pixels."""
    found: dict[str, list[SubjectFrames]] = {kind: [] for kind in kinds}
    for number in range(config.clips):
        for kind, subjects in _Clip(config, size, number).subjects(kinds).items():
            found[kind] += subjects
    return found


class _Clip:
    def __init__(self, config: ValidationConfig, size: int, number: int) -> None:
        self.studio, self.detail = RenderedSubjects(size), Detail.for_size(size)
        self.people = np.random.default_rng([config.seed, number, _STREAM]).integers(2**53, size=2).tolist()
        motions = sample_clip_motions(config.seed, number, FIRST_FRAME + config.clip_frames)
        self.first, self.motions = motions[0], motions[FIRST_FRAME:]
        self.yaw_rad = math.radians(NOVEL_YAW_DEG if number % 2 else -NOVEL_YAW_DEG)

    def subjects(self, kinds: tuple[str, ...]) -> dict[str, list[SubjectFrames]]:
        person = self._build(self.people[0])
        source, own = self._show(person, self.first), [self._show(person, motion) for motion in self.motions]
        drivers, targets = {kind: own for kind in kinds}, {kind: own for kind in kinds}
        if CLIP_CROSS in kinds:
            other = self._build(self.people[1])
            drivers[CLIP_CROSS] = [self._show(other, motion) for motion in self.motions]
        if CLIP_NOVEL in kinds:
            targets[CLIP_NOVEL] = [self._show(person, motion, self.yaw_rad) for motion in self.motions]
        return {
            kind: [SubjectFrames(source, *pair) for pair in zip(drivers[kind], targets[kind], strict=True)]
            for kind in kinds
        }

    def _build(self, person: int) -> Figure:
        return build_figure(sample_appearance(person), self.detail)

    def _show(self, figure: Figure, motion: Motion, yaw_rad: float = 0.0) -> PortraitFrame:
        return self.studio.photograph(figure, plan_orbit_shot(figure.person, motion, yaw_rad), motion)
