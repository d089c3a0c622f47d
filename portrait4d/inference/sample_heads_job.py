"""Sampling of many heads: files and progress.

<outdir>/<seed>_<frame>.png        pictures, both numbers with four digits
<outdir>/shapes/<seed>_<frame>.ply meshes (shapes)
<outdir>/<seed>.mp4                the frames in order (video)
<outdir>/grid.jpg                  seeds down, some frames across (grid)
"""

import time
from pathlib import Path

from tqdm import tqdm

from portrait4d.config.experiments import SampleHeadsConfig
from portrait4d.data.image_io import load_image, save_image, save_video
from portrait4d.files.errors import UserError
from portrait4d.inference.picture_grids import GRID_CELL, save_picture_grid
from portrait4d.inference.reenact_job import Report, write_mesh
from portrait4d.inference.sample_heads import HeadSampler, SampledHead

_GRID_COLUMNS = 8


def run_sampling(config: SampleHeadsConfig) -> Report:
    """Sample every seed's head in every frame.

    Raises:
        UserError: if the network, the parameter sets, a seed's row or the device is not there.
    """
    sampler = HeadSampler(config)
    report = Report()
    with tqdm(total=len(config.seeds) * config.frames, unit="frame", smoothing=0.05) as progress:
        for seed in config.seeds:
            progress.set_description(f"seed {seed}")
            _run_seed(sampler, seed, report, progress)
            if config.video:
                paths = [picture_path(config, seed, frame) for frame in range(config.frames)]
                save_video(config.outdir / f"{seed:04d}.mp4", map(load_image, paths), config.fps)
    if config.grid:
        _write_grid(config)
    return report


def picture_path(config: SampleHeadsConfig, seed: int, frame: int) -> Path:
    """Return the file of a picture."""
    return config.outdir / f"{seed:04d}_{frame:04d}.png"


def mesh_path(config: SampleHeadsConfig, seed: int, frame: int) -> Path:
    """Return the file of a mesh."""
    return config.outdir / "shapes" / f"{seed:04d}_{frame:04d}.{config.shape_format}"


def _run_seed(sampler: HeadSampler, seed: int, report: Report, progress: tqdm) -> None:
    config = sampler.config
    todo = [frame for frame in range(config.frames) if not _is_done(config, seed, frame)]
    report.skipped += config.frames - len(todo)
    progress.update(config.frames - len(todo))
    if not todo:
        return
    started = time.perf_counter()
    head = sampler.sample(seed)
    report.seconds += time.perf_counter() - started
    for frame in todo:
        started = time.perf_counter()
        picture = sampler.render(head, frame).image_sr[0].float().cpu()
        report.seconds += time.perf_counter() - started
        save_image(picture_path(config, seed, frame), picture)
        report.written += 1
        if config.shapes:
            _write_shape(sampler, head, frame, report)
        progress.update(1)


def _write_shape(sampler: HeadSampler, head: SampledHead, frame: int, report: Report) -> None:
    path = mesh_path(sampler.config, head.seed, frame)
    try:
        write_mesh(path, sampler.surface(head, frame))
    except UserError as error:
        report.failures[str(path)] = f"{path}: {error}"
        tqdm.write(f"skipped: {path}: {error}")


def _is_done(config: SampleHeadsConfig, seed: int, frame: int) -> bool:
    wanted = [picture_path(config, seed, frame)]
    if config.shapes:
        wanted.append(mesh_path(config, seed, frame))
    return config.resume and all(path.exists() for path in wanted)


def _write_grid(config: SampleHeadsConfig) -> None:
    """Write seeds down, at most eight frames across, evenly spread."""
    columns = min(config.frames, _GRID_COLUMNS)
    numbers = [frame * config.frames // columns for frame in range(columns)]
    pictures = [picture_path(config, seed, frame) for seed in config.seeds for frame in numbers]
    largest_cell = min(GRID_CELL, load_image(pictures[0]).shape[-1])
    save_picture_grid(config.outdir / "grid.jpg", pictures, columns, largest_cell)
