"""Networks pickled as the reference's persistent classes do, with stand-ins for its packages; reads them back."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from portrait4d.models.upstream_pickles import NetworkRecord, read_network_pickle
from tests.helpers.pickle_cases import Call, stand_in_modules


class Options(dict):
    """Stands for dnnlib.util.EasyDict."""


def rebuild(meta: dict) -> None:
    """Stands for the reference's function that restores a module by running its source."""
    raise AssertionError("a safe reader never calls this")


class Persistent(nn.Module):
    """A module that pickles as the reference's persistent classes do."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self._init_args = (3, "text")
        self._init_kwargs = Options(options)

    def __reduce__(self) -> tuple:
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": type(self).__name__}
        return rebuild, (meta | {"state": self.__dict__},)


class Generator(Persistent):
    """Parameters, buffers and attributes of every kind, one module under two names."""

    def __init__(self) -> None:
        super().__init__(z_dim=4, nested=Options(shape=torch.Size([2, 3]), dtype=torch.float16, norm=nn.Identity))
        self.rendering_kwargs = Options(box_warp=1.3, pivot=[0, 0, 0.2])
        self.neural_rendering_resolution = 128
        self.eye_mask = np.array([5, 1, 3])
        self.ratios = np.arange(6, dtype=">f4").reshape(2, 3).T
        self.plane_axes = torch.eye(3)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.register_parameter("absent", None)
        self.register_buffer("counter", torch.tensor(7))
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ModuleList([nn.LayerNorm(3), nn.GELU()]))
        self.again = self.layers
        self.holder = Holder()


class Holder(Persistent):
    """Buffers of every type and layout."""

    def __init__(self) -> None:
        super().__init__()
        base = torch.arange(24.0)
        for name in ("float16", "bfloat16", "float64"):
            self.register_buffer(f"as_{name}", base.to(getattr(torch, name)) / 8)
        for name in ("int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "complex128"):
            self.register_buffer(f"as_{name}", base.to(getattr(torch, name)))
        self.register_buffer("transposed", base.view(4, 6).T)
        self.register_buffer("slice", base.view(4, 6)[1:3, ::2])
        self.register_buffer("expanded", base[5:6].expand(4, 3))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("large", torch.randn(200, 150, generator=torch.Generator().manual_seed(0)))


@contextmanager
def reference_packages() -> Iterator[None]:
    """Register the names under which the reference pickles its classes."""
    members = {
        "torch_utils__persistence": {"_reconstruct_persistent_obj": rebuild},
        "dnnlib__util": {"EasyDict": Options},
    }
    with stand_in_modules(**members):
        yield


def dump(value: object, protocol: int = 4) -> bytes:
    """Pickle a value under the reference's names."""
    with reference_packages():
        return pickle.dumps(value, protocol)


def read(folder: Path, data: bytes, **options: object) -> dict[str, NetworkRecord | None]:
    """Write a pickle below `folder` and read its networks."""
    path = folder / "network.pkl"
    path.write_bytes(data)
    return read_network_pickle(path, **options)


def module(**state: object) -> Call:
    """Return a persistent module with these entries of its state."""
    state = {"_parameters": {}, "_buffers": {}, "_modules": {}} | state
    return Call(rebuild, ({"type": "class", "version": 6, "module_src": "", "class_name": "Net", "state": state},))
