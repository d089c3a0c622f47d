"""Where a reconstructor's motion vectors come from, by the name that configurations give it."""

import torch

from portrait4d.config.recon_training import MotionSource
from portrait4d.models.checkpoints import load_compact_motion_encoder
from portrait4d.models.pretrained.motion_encoder import load_motion_encoder
from portrait4d.training.supervision import MotionOf, encoded_motion, flame_motion, synthetic_motion


def motion_reader(source: MotionSource, device: torch.device | str = "cpu") -> MotionOf:
    """Return the function that gives motion vectors.

    Raises:
        AssetMissingError: an encoder's weights are not there.
    """
    if source == "flame":
        return flame_motion
    if source == "exact":
        return synthetic_motion
    encoder = load_motion_encoder() if source == "pdfgc" else load_compact_motion_encoder()
    return encoded_motion(encoder.to(device))
