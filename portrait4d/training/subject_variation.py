"""More persons than were rendered: subjects whose pictures change colour together, half of them mirrored.

What a reconstructor must learn, to take colours from the source, is the same for any colours; so a few hundred rendered
persons serve as many more. Mirrored pictures come with mirrored labels and the motion vectors that belong to them.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from portrait4d.geometry.head_params import split_label
from portrait4d.geometry.mirroring import HeadMirror
from portrait4d.training.subject_frames import PortraitFrame, SubjectFrames, SubjectSource
from portrait4d.training.supervision import synthetic_motion

GAIN_RANGE, OFFSET_RANGE, MIXING_MOST = (0.75, 1.2), (-0.08, 0.08), 0.3
"""Factors on colours, what is added to them (white is 1), and how much of each may come from the next channel."""


@dataclass(frozen=True)
class VariedSubjects:
    """Another source's subjects, varied; everything follows from the seed."""

    source: SubjectSource
    mirror: HeadMirror

    @property
    def has_motions(self) -> bool:
        """As the source's."""
        return self.source.has_motions

    @property
    def has_views(self) -> bool:
        """As the source's."""
        return self.source.has_views

    def load(self, seed: int, still: bool) -> SubjectFrames:
        """Load the subject of a seed and vary it."""
        subject = self.source.load(seed, still)
        rng = np.random.default_rng([seed, 7])
        colours, offset = _draw_colours(rng), rng.uniform(*OFFSET_RANGE) * 255
        frames = [replace(frame, image=recolour(frame.image, colours, offset)) for frame in subject[:3]]
        depth = subject.depth
        if rng.random() < 0.5:
            frames = [self._mirrored(frame) for frame in frames]
            depth = None if depth is None else depth[..., ::-1].copy()
        return SubjectFrames(*frames, depth)

    def _mirrored(self, frame: PortraitFrame) -> PortraitFrame:
        label = self.mirror.label(torch.from_numpy(frame.label)[None])
        nothing = torch.empty(0)
        motion = synthetic_motion(nothing, nothing, split_label(label)[1])[0].numpy()
        return PortraitFrame(frame.image[..., ::-1].copy(), frame.mask[..., ::-1].copy(), label[0].numpy(), motion)


def recolour(image: np.ndarray, colours: np.ndarray, offset: float) -> np.ndarray:
    """Return a picture (3, H, W) uint8 with each pixel's colour multiplied by a matrix (3, 3), `offset` added."""
    mixed = np.tensordot(colours, image.astype(np.float32), axes=1) + offset
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _draw_colours(rng: np.random.Generator) -> np.ndarray:
    gains = rng.uniform(*GAIN_RANGE, size=(3, 1))
    share, shift = rng.uniform(0, MIXING_MOST), int(rng.integers(1, 3))
    return (gains * ((1 - share) * np.eye(3) + share * np.roll(np.eye(3), shift, axis=1))).astype(np.float32)
