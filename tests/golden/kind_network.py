"""network-*.pkl with its .json: the safe reader lists every name, shape and type, and restores every value."""

import json
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np

from portrait4d.models.upstream_pickles import read_network_pickle
from tests.golden.comparison import Context, Result, compare, everywhere


def hollow_value(name: str, dtype: str) -> float:
    """Return the value all elements of a hollow tensor have (a truth value is the number's)."""
    if dtype == "bool":
        return float(hollow_value(name, "float32") != 0)
    if "int" in dtype:
        return crc32(name.encode()) % 97
    return float(np.float32(((crc32(name.encode()) % 2001) - 1000) / 1000))


def check(path: Path, context: Context) -> Iterator[Result]:
    """Compare the listing of each network, then all values of it."""
    listing = json.loads(context.find(path.with_suffix(".json").name).read_text())
    records = read_network_pickle(path)
    for network, expected in listing.items():
        tensors = records[network].tensors if records.get(network) else {}
        found = {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()}
        different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        remark = f"differ: {different[:3]}" if different else f"{len(expected)} names, shapes and types"
        yield Result(path.name, f"{network}.listing", len(different), len(different), not different, remark)
        names = [name for name in expected if name in tensors]
        ours = np.array([[tensors[n].min().item(), tensors[n].max().item()] for n in names], dtype=np.float64)
        golden = np.array([[hollow_value(n, expected[n][1])] * 2 for n in names])
        yield compare(path, f"{network}.values", ours, golden, everywhere(0))
