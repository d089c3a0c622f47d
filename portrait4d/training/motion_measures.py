"""How well a motion encoder reads faces whose motions are known."""

from dataclasses import dataclass

import torch
from torch import Tensor

from portrait4d.data.image_io import from_uint8
from portrait4d.models.compact_motion_encoder import CompactMotionEncoder
from portrait4d.ops.resize import resize_antialiased
from portrait4d.synthetic_heads.motion_inputs import MOTION_INPUTS
from portrait4d.synthetic_heads.motions import BLOCKS
from portrait4d.training.motion_examples import MotionExamples

_CHUNK = 50


@dataclass(frozen=True)
class MotionErrors:
    """Errors over examples.

    Attributes:
        absolute: (27,) mean absolute error of each input.
        mean_absolute: (27,) the same of the constant answer that is best in mean square, the mean of the truths.
        deviation: (27,) standard deviation of the truths.
        explained: (27,) R^2, 1 - mean square error / variance; NaN for an input that does not vary.
        correlation: (27,) of answers and truths; NaN likewise.
        vector: root mean square error of "eye", "emotion", "mouth" and "all" of the motion vector, in units of its
            root mean square deviation from its mean: 1 is as good as answering the mean.
    """

    absolute: Tensor
    mean_absolute: Tensor
    deviation: Tensor
    explained: Tensor
    correlation: Tensor
    vector: dict[str, float]


def measure_encoder(encoder: CompactMotionEncoder, examples: MotionExamples, size: int | None = None) -> MotionErrors:
    """Measure an encoder on its device; with pictures reduced to `size` pixels a side if that is given."""
    answers = read_inputs(encoder, examples, size)
    return compare_inputs(answers, examples.examples.inputs, encoder.projection.cpu())


@torch.no_grad()
def read_inputs(encoder: CompactMotionEncoder, examples: MotionExamples, size: int | None = None) -> Tensor:
    """Return the encoder's answers (N, 27), on the CPU; arguments as `measure_encoder`."""
    answers, device = [], encoder.projection.device
    for batch in examples.batches(_CHUNK):
        images, landmarks = from_uint8(batch.image.to(device)), batch.landmarks.to(device)
        if size is not None:
            landmarks = landmarks * (size / images.shape[-1])
            images = resize_antialiased(images, size)
        answers.append(encoder(encoder.crop(images, landmarks, reverse_y=True)).float().cpu())
    return torch.cat(answers)


def compare_inputs(answers: Tensor, truths: Tensor, projection: Tensor) -> MotionErrors:
    """Compare inputs (N, 27) with the true ones; `projection` (27, 548) makes motion vectors of them."""
    answers, truths = answers.double(), truths.double()
    error, around_mean = answers - truths, truths - truths.mean(dim=0)
    variance = around_mean.square().mean(dim=0)
    spread = answers - answers.mean(dim=0)
    return MotionErrors(
        absolute=error.abs().mean(dim=0),
        mean_absolute=around_mean.abs().mean(dim=0),
        deviation=variance.sqrt(),
        explained=1 - error.square().mean(dim=0) / variance.where(variance > 0, torch.nan),
        correlation=(spread * around_mean).mean(dim=0) / (variance * spread.square().mean(dim=0)).sqrt(),
        vector=_vector_errors(error @ projection.double(), around_mean @ projection.double()),
    )


def _vector_errors(error: Tensor, around_mean: Tensor) -> dict[str, float]:
    names, widths = [name for name, _, _ in BLOCKS], [width for _, width, _ in BLOCKS]
    parts = {
        name: pair for name, *pair in zip(names, error.split(widths, 1), around_mean.split(widths, 1), strict=True)
    }
    parts["all"] = [error, around_mean]
    return {name: float(e.square().sum().sqrt() / a.square().sum().sqrt()) for name, (e, a) in parts.items()}


def format_errors(errors: MotionErrors) -> str:
    """Lay errors out as a table: a line for each input, then the motion vector's parts."""
    lines = [f"{'input':<16}{'error':>8}{'of mean':>9}{'std':>8}{'R^2':>8}{'corr.':>8}"]
    columns = (errors.absolute, errors.mean_absolute, errors.deviation, errors.explained, errors.correlation)
    for name, *values in zip(MOTION_INPUTS, *(column.tolist() for column in columns), strict=True):
        lines.append(f"{name:<16}{values[0]:8.3f}{values[1]:9.3f}" + "".join(f"{value:8.3f}" for value in values[2:]))
    lines += [f"vector {name:<9}{value:8.3f}" for name, value in errors.vector.items()]
    return "\n".join(lines)
