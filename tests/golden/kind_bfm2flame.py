"""bfm2flame-*.npz: the published mapper on made-up Basel coefficients, the head pose, and the labels."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from data_preprocess.bfm_model import rotation_from_angles
from data_preprocess.bfm_to_flame.parameter_mapper import (
    head_pose,
    load_parameter_mapper,
    simplified_labels,
    unmapped_head,
)
from tests.golden.comparison import Context, Result, compare, everywhere


@torch.no_grad()
def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare both layers, rotation, head pose and labels with and without the mapper."""
    golden = np.load(path)
    weights = context.real / "bfm2flame_mapper" / "model-iter200000.pth"
    if not weights.is_file():
        yield Result(path.name, "weights", np.inf, np.inf, False, f"{weights} is not there: give --real")
        return
    mapper = load_parameter_mapper(weights)
    identity, expression = torch.from_numpy(golden["id"]), torch.from_numpy(golden["exp"])
    mapped = mapper(identity, expression)
    ours = {
        "hidden": mapper.hidden(torch.cat([identity, expression], dim=1)).numpy(),
        "mapped": torch.cat(mapped, dim=1).numpy(),
        "rotation": rotation_from_angles(torch.from_numpy(golden["angle"]).double()).mT.numpy(),
        "head_pose": head_pose(golden["angle"]),
        "parameters": simplified_labels(mapped, golden["angle"]).numpy(),
        "parameters_without_mapper": simplified_labels(unmapped_head(3), golden["angle"]).numpy(),
    }
    for array, value in ours.items():
        yield compare(path, array, value, golden[array], everywhere(1e-6))
