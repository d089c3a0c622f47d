"""A reconstructor in the published form, a pickle: reference names, stand-in head inside, weights made from names."""

import json
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from portrait4d.geometry.flame import HeadModel
from portrait4d.models.upstream_head import FACE_ONLY, NAMES, PREFIX
from portrait4d.ops.upfirdn2d import build_filter
from tests.golden import weights

MANIFEST = Path(__file__).parents[1] / "golden" / "manifest-reconstructor.json"

RENDERING_KWARGS = {
    "image_resolution": 512,
    "superresolution_module": "models.stylegan.superresolution.SuperresolutionHybrid8XDC",
    "superresolution_noise_mode": "none",
    "sr_antialias": True,
    "depth_resolution": 48,
    "depth_resolution_importance": 48,
    "ray_start": "auto-plane",
    "ray_end": "auto-plane",
    "box_warp": 1.3,
}
INIT_KWARGS = {
    "img_resolution": 512,
    "mot_dims": 548,
    "w_dim": 512,
    "sr_num_fp16_res": 4,
    "has_background": True,
    "rendering_kwargs": RENDERING_KWARGS,
    "sr_kwargs": {"channel_base": 32768, "channel_max": 512, "use_ws_ones": False},
}


def published_tensors(head: HeadModel, manifest_path: Path = MANIFEST) -> dict[str, Tensor]:
    """Return every tensor of a published network: the filled ones and what follows from definitions."""
    manifest = json.loads(manifest_path.read_text())
    tensors = {name: torch.from_numpy(array) for name, array in weights.fill(manifest_path).items()}
    known = {PREFIX + theirs: getattr(head, ours) for theirs, ours in NAMES.items()}
    known[PREFIX + "flame_model.posedirs"] = head.pose_directions.T
    known[PREFIX + FACE_ONLY] = head.canonical_vertices[head.region("face")]
    for name, shape, dtype in manifest["derived"]:
        if name.endswith("resample_filter"):
            tensors[name] = build_filter()
        elif name in known:
            tensors[name] = known[name].reshape(shape)
        else:
            tensors[name] = torch.zeros(shape, dtype=getattr(torch, dtype))
    tensors["dataset_label_std"] = torch.tensor(0)  # registered by the published training loop
    return tensors


class _Module:
    """Stands for a persistent object while the pickle is written: reduces to the published call."""

    def __init__(self, class_name: str, reconstruct: object, **extra: object) -> None:
        self.class_name, self.reconstruct = class_name, reconstruct
        self.state: dict = {"training": False, "_parameters": {}, "_buffers": OrderedDict(), "_modules": {}, **extra}

    def __reduce__(self) -> tuple:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise RuntimeError('source text of a checkpoint was run')",
            "class_name": self.class_name,
            "state": self.state,
        }
        return self.reconstruct, (meta,)

    def child(self, name: str) -> "_Module":
        return self.state["_modules"].setdefault(name, _Module("Part", self.reconstruct))


def write_published_pickle(
    path: Path,
    tensors: dict[str, Tensor],
    class_name: str = "TriPlaneReconstructorNeutralize",
    init_kwargs: dict = INIT_KWARGS,
) -> None:
    """Write tensors by published name as a network pickle with G_ema, as the reference's training loop would."""
    package, module = ModuleType("torch_utils"), ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: dict) -> None:
        raise RuntimeError("the pickle was run")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    root = _Module(
        class_name,
        _reconstruct_persistent_obj,
        _init_args=(),
        _init_kwargs=init_kwargs,
        rendering_kwargs=init_kwargs["rendering_kwargs"],
        neural_rendering_resolution=128,
    )
    for name, tensor in tensors.items():
        *parents, leaf = name.split(".")
        part = root
        for parent in parents:
            part = part.child(parent)
        part.state["_buffers"][leaf] = tensor
    sys.modules |= {"torch_utils": package, "torch_utils.persistence": module}
    try:
        with path.open("wb") as file:
            pickle.dump({"G": None, "D": None, "G_ema": root, "D_patch": None, "augment_pipe": None}, file, protocol=4)
    finally:
        del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]
