"""How well a landmark network finds faces whose landmarks are known."""

import torch

from portrait4d.data.image_io import from_uint8
from portrait4d.models.compact_landmarks import CompactLandmarks
from portrait4d.training.landmark_examples import LandmarkExamples
from portrait4d.training.landmark_views import draw_grounds

_CHUNK, _GROUNDS, _SEED = 50, 200, 0


@torch.no_grad()
def measure_landmarks(network: CompactLandmarks, examples: LandmarkExamples) -> dict[str, float]:
    """Measure both looks at whole pictures, on the network's device.

    Returns:
        "error", "error_95": mean distance of the points, in units of the face's size (the mean side of the points'
        box), over all faces, and its 95th percentile over faces. "missed": share of faces not seen. "false_alarms":
        share of drawn grounds in which a face is seen.
    """
    device, errors, seen = network.mean_face.device, [], []
    for images, points in zip(*(values.split(_CHUNK) for values in examples.examples), strict=True):
        reading = network.find(from_uint8(images.to(device)))
        size = (points.amax(dim=1) - points.amin(dim=1)).mean(dim=1)
        errors.append((reading.points.cpu() - points).norm(dim=2).mean(dim=1) / size)
        seen.append(reading.presence.cpu() > 0)
    error = torch.cat(errors)
    size = network.config.picture_size
    grounds = draw_grounds(_GROUNDS, size, torch.Generator(device).manual_seed(_SEED))
    return {
        "error": float(error.mean()),
        "error_95": float(error.quantile(0.95)),
        "missed": float((~torch.cat(seen)).float().mean()),
        "false_alarms": float((network.find(grounds).presence > 0).float().mean()),
    }
