"""sampling.npz: data order, subsets, snapshot grids, parameters of a v1 iteration; the rest is in kind_supervision."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from portrait4d.data.parameter_bank import MotionPool, ParameterBank, ViewDraws
from portrait4d.data.sampling import grid_indices, grid_size, shuffled_order, subset_indices
from tests.golden import kind_supervision
from tests.golden.comparison import Context, Result, compare, everywhere

EXACT = everywhere(0)
CLOSE = everywhere(1e-6)
Golden = np.lib.npyio.NpzFile
DRAWS = {
    "shape": "shape_row",
    "camera": "camera_row",
    "video": "video",
    "frames": "frames",
    "eyes": "eye_rows",
    "jaw_value": "jaw_value",
    "jaw_coin": "jaw_coin",
    "still_expression": "static_exp_row",
    "still_eyes": "static_eye_row",
}
VIEW_ARRAYS = {"shape": "shape", "expression": "expression", "pose": "pose", "eye": "eye_pose", "camera": "camera"}


def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare everything, and count what is neither compared nor an input."""
    golden = np.load(path)
    checked = set()
    for part in (_orders, _grids, _params, *kind_supervision.PARTS):
        for result in part(path, golden):
            checked.add(result.array)
            yield result
    patterns = r"params/set/|params/.*/draw_|grid/v1_seed|" + kind_supervision.INPUTS
    inputs = {name for name in golden.files if re.match(patterns, name)}
    others = sorted(set(golden.files) - checked - inputs)
    if others:
        groups = sorted({name.split("/")[0] for name in others})
        print(f"# {path.name}: {len(others)} arrays not checked yet ({', '.join(groups)})", flush=True)  # noqa: T201


def _orders(path: Path, golden: Golden) -> Iterator[Result]:
    for name in golden.files:
        found = re.fullmatch(r"sampler/N(\d+)_gpus(\d+)_seed(\d+)_rank(\d+)", name)
        if found:
            count, ranks, seed, rank = map(int, found.groups())
            wanted = len(golden[name])
            ours = list(islice(shuffled_order(count, seed), rank, rank + wanted * ranks, ranks))
            yield compare(path, name, np.array(ours), golden[name], EXACT)
        found = re.fullmatch(r"subset/N(\d+)_max(\d+|None)_xflip(\d)_seed(\d+)", name)
        if found:
            most = None if found[2] == "None" else int(found[2])
            ours = subset_indices(int(found[1]), most, int(found[4]), copies=1 + int(found[3]))
            yield compare(path, name, ours, golden[name], EXACT)


def _grids(path: Path, golden: Golden) -> Iterator[Result]:
    if "grid/size" in golden:
        yield compare(path, "grid/size", np.array(grid_size(512)), golden["grid/size"], EXACT)
    for name in golden.files:
        found = re.fullmatch(r"grid/(?:genhead|v2)_N(\d+)", name)
        if found:
            ours = grid_indices(int(found[1]), len(golden[name]))
            yield compare(path, name, ours, golden[name], EXACT)
        found = re.fullmatch(r"grid/v1_static(\d)/shape", name)
        if found:
            views = _numbered_bank().grid_views(len(golden[name]), int(golden["grid/v1_seed"]), found[1] == "1")
            for key, attribute in VIEW_ARRAYS.items():
                array = f"grid/v1_static{found[1]}/{key}"
                yield compare(path, array, getattr(views, attribute)[..., 0].numpy(), golden[array], EXACT)


def _numbered_bank() -> ParameterBank:
    """Return the sets of the grid cases: arange rows of one column, +1000 for poses, +2000 for eyes."""
    numbers = torch.arange(48.0).view(6, 8, 1)
    video = MotionPool(numbers, numbers + 1000, numbers + 2000)
    return ParameterBank(torch.arange(20.0)[:, None], torch.arange(30.0)[:, None], video, video)


def _params(path: Path, golden: Golden) -> Iterator[Result]:
    if "params/set/shape" not in golden:
        return
    sets = {
        name.split("/")[2]: torch.from_numpy(golden[name]) for name in golden.files if name.startswith("params/set")
    }
    videos, frames = sets["exp2"].shape[:2]
    video = MotionPool(sets["exp2"], sets["pose2"], sets["eye2"].view(videos, frames, -1))
    bank = ParameterBank(sets["c"], sets["shape"], MotionPool(sets["exp1"], sets["pose1"], sets["eye1"]), video)
    cases = {name.split("/")[1] for name in golden.files if name.startswith("params/")} - {"set"}
    for case in sorted(cases):
        draws = {key: torch.from_numpy(golden[f"params/{case}/draw_{name}"]) for key, name in DRAWS.items()}
        draws = {key: value if value.is_floating_point() else value.long() for key, value in draws.items()}
        draws["camera"] = draws["camera"].view(-1, 3)
        draws["jaw_value"], draws["jaw_coin"] = draws["jaw_value"][..., 0], draws["jaw_coin"][..., 0]
        views = bank.compute_views(ViewDraws(**draws), case == "static", case == "dynamic")
        for key, attribute in VIEW_ARRAYS.items():
            array = f"params/{case}/{key}"
            yield compare(path, array, getattr(views, attribute).numpy(), golden[array], CLOSE)
