"""Export of one reenacted head: load, render, write, and compare what was written with what the network gives."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from portrait4d.config.experiments import ReenactConfig
from portrait4d.config.exporting import FORMAT_SUFFIXES, ExportConfig, ExportFormat
from portrait4d.data.portrait_folder import ALIGNED_IMAGES, PortraitFolder, PreparedPortrait
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.files.outputs import refuse_to_replace
from portrait4d.inference.exports import head_surface, save_glb, save_ply
from portrait4d.inference.onnx_export import frame_inputs, require_onnx, save_frame_network
from portrait4d.inference.plane_cache import build_plane_cache, load_plane_cache, save_plane_cache
from portrait4d.inference.reenact import Frame, Reenactor, View
from portrait4d.models.outputs import HeadRender, SourceFeatures


@dataclass(frozen=True)
class ExportedHead:
    """A rendered head and all that it was made of."""

    reenactor: Reenactor
    source: Frame
    features: SourceFeatures
    driver: Frame
    view: View
    render: HeadRender


def run_export(config: ExportConfig) -> str:
    """Write one head, and return what to tell the user: the file and how good it is.

    Raises:
        UserError: the network, a portrait or a package is missing or damaged; the suffix is not that of the format; the
            file to write is one of those to read, or cannot be written.
    """
    kind = _choose_format(config)
    refuse_to_replace("--out", config.out, [config.network, config.source, config.driving])
    if kind == "onnx":
        require_onnx()
    source = find_portrait(config.source)
    driver = find_portrait(config.driving or config.source)
    summary = _WRITERS[kind](config, _render(config, source, driver))
    return f"{config.out} ({_size(config.out)}): {source.stem} driven by {driver.stem}; {summary}"


def find_portrait(path: Path) -> PreparedPortrait:
    """Return the first portrait of a prepared folder, or the one whose picture lies at a path.

    Raises:
        InputFileError: there is none.
    """
    if path.is_dir():
        return PortraitFolder(path).items()[0]
    if path.parent.name == ALIGNED_IMAGES:
        for portrait in PortraitFolder(path.parent.parent).items():
            if portrait.image_path.name == path.name:
                return portrait
    raise InputFileError(path, "no prepared portrait", f"give a prepared folder, or a picture in its {ALIGNED_IMAGES}")


def _choose_format(config: ExportConfig) -> ExportFormat:
    suffix = config.out.suffix.lower()
    kinds = {suffix: kind for kind, suffix in FORMAT_SUFFIXES.items()}
    if config.format is None and suffix in kinds:
        return kinds[suffix]
    if config.format is None or FORMAT_SUFFIXES[config.format] != suffix:
        expected = FORMAT_SUFFIXES.get(config.format, " or ".join(kinds))
        raise UserError(f"--out {config.out}: expected the suffix {expected}, got {suffix!r}")
    return config.format


def _render(config: ExportConfig, source: PreparedPortrait, driver: PreparedPortrait) -> ExportedHead:
    reenactor = Reenactor(
        ReenactConfig(
            network=config.network,
            srcdir=source.root,
            tardir=driver.root,
            outdir=config.out.parent,
            motion=config.motion,
            shape_res=config.shape_res,
            shape_level=config.shape_level,
            camera="frontal" if config.upright else "driver",
            device=config.device,
        )
    )
    resolution = config.render_size or reenactor.network.config.render_resolution
    reenactor.options = replace(reenactor.options, resolution=resolution)
    if reenactor.needs_motion_encoder([source, driver]):
        reenactor.load_motion_encoder()
    frames = reenactor.load_frame(source), reenactor.load_frame(driver)
    features, view = reenactor.encode_source(frames[0]), reenactor.view(frames[1])
    render = reenactor.render(frames[0], features, frames[1], view)
    return ExportedHead(reenactor, frames[0], features, frames[1], view, render)


def _write_mesh(config: ExportConfig, head: ExportedHead) -> str:
    surface = head_surface(head.reenactor, head.source, head.render, head.view)
    save = save_glb if config.out.suffix.lower() == FORMAT_SUFFIXES["glb"] else save_ply
    save(config.out, surface)
    return f"{len(surface.vertices)} vertices, {len(surface.faces)} triangles"


def _write_planes(config: ExportConfig, head: ExportedHead) -> str:
    cache = build_plane_cache(head.reenactor, head.source, head.features, head.render, head.view)
    try:
        save_plane_cache(config.out, cache, "float16" if config.float16 else "float32")
    except ValueError as error:
        raise UserError(f"{config.out}: {error}; export it without --float16") from None
    again = load_plane_cache(config.out, head.reenactor.device).render()
    difference = (again.image_sr - head.render.image_sr).abs().max().item()
    return f"rendered from the file it differs from the network's picture by {difference:.2g} at most"


def _write_onnx(config: ExportConfig, head: ExportedHead) -> str:
    inputs = frame_inputs(head.reenactor, head.source, head.features, head.driver, head.view)
    network, image = head.reenactor.network, head.render.image_sr
    difference = save_frame_network(config.out, network, head.reenactor.options.resolution, inputs, image)
    arrays = config.out.with_suffix(".npz")
    _save_arrays(arrays, inputs | {"image": image})
    return f"onnxruntime's picture differs from PyTorch's by {difference:.2g} at most; {arrays} has this frame's inputs"


def _save_arrays(path: Path, tensors: dict[str, Tensor]) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, **{name: tensor.cpu().numpy() for name, tensor in tensors.items()})


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"


_WRITERS: dict[ExportFormat, Callable[[ExportConfig, ExportedHead], str]] = {
    "glb": _write_mesh,
    "ply": _write_mesh,
    "planes": _write_planes,
    "onnx": _write_onnx,
}
