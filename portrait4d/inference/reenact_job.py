"""Reenactment of whole folders: pairs, files, progress, and what could not be done.

<outdir>/<source>/%05d.jpg        source | result | driver, numbered by driving portrait (and orbit view)
<outdir>/<source>/frames/%05d.png the result alone
<outdir>/<source>/shapes/%05d.ply meshes (shape)
<outdir>/<source>.mp4             the results in order (video)
<outdir>/grid.jpg                 sources down, driving portraits across (grid)
<outdir>/results.jsonl            one line for each result or failure
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Lock

from torch import Tensor
from tqdm import tqdm

from portrait4d.config.experiments import ReenactConfig
from portrait4d.data.image_io import load_image, save_image, save_video, side_by_side
from portrait4d.data.portrait_folder import PortraitFolder, PreparedPortrait
from portrait4d.files.atomic import atomic_path
from portrait4d.files.errors import UserError
from portrait4d.files.read_ahead import map_in_order, write_behind
from portrait4d.inference.picture_grids import save_picture_grid
from portrait4d.inference.reenact import Frame, Reenactor, View
from portrait4d.models.outputs import HeadRender, SourceFeatures
from portrait4d.rendering.marching_cubes import Surface

_WAITING = 4  # driving frames that are read ahead, and results that wait to be written


@dataclass(frozen=True)
class Task:
    """One result to make: numbered `index` in its source's folder, view `step` of the source's `steps`."""

    driver: PreparedPortrait
    driver_index: int
    index: int
    steps: int


@dataclass
class Report:
    """What a job did: results written, seconds spent rendering them, failures by file."""

    written: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)

    def summary(self, outdir: Path) -> str:
        """Return a few lines for the terminal."""
        lines = [f"{self.written} results in {outdir}"]
        if self.written:
            lines[0] += f", {self.seconds / self.written:.3g} s per frame"
        if self.skipped:
            lines[0] += f"; {self.skipped} were there already"
        if self.failures:
            lines.append(f"{len(self.failures)} could not be done:")
            lines += [f"  {error}" for error in self.failures.values()]
        return "\n".join(lines)


def run_reenactment(config: ReenactConfig) -> Report:
    """Reenact every pair, go on past bad items, and say at the end which those were.

    Raises:
        UserError: if nothing can be done at all: no network, no portraits, no device.
    """
    sources, drivers = PortraitFolder(config.srcdir).items(), PortraitFolder(config.tardir).items()
    if config.pairs == "zip" and len(sources) != len(drivers):
        raise UserError(f"--pairs zip: expected equally many portraits, got {len(sources)} and {len(drivers)}")
    reenactor = Reenactor(config)
    if reenactor.needs_motion_encoder(sources + drivers):
        reenactor.load_motion_encoder()
    return _Job(config, reenactor, sources, drivers).run()


@dataclass(frozen=True)
class _Source:
    """A loaded source: its number, and its features unless they are to be computed for every frame."""

    number: int
    portrait: PreparedPortrait
    frame: Frame
    features: SourceFeatures | None


class _Job:
    def __init__(
        self,
        config: ReenactConfig,
        reenactor: Reenactor,
        sources: list[PreparedPortrait],
        drivers: list[PreparedPortrait],
    ) -> None:
        self.config = config
        self.reenactor = reenactor
        self.sources = sources
        self.drivers = drivers
        self.report = Report()
        self._log_lock = Lock()

    def run(self) -> Report:
        if not self.config.resume:
            (self.config.outdir / "results.jsonl").unlink(missing_ok=True)
        total = sum(len(list(self._tasks(number))) for number in range(len(self.sources)))
        with tqdm(total=total, unit="frame", smoothing=0.05) as progress:
            for number, portrait in enumerate(self.sources):
                progress.set_description(portrait.stem[:24])
                self._run_source(number, portrait, progress)
        if self.config.grid:
            self._write_grid()
        return self.report

    def _tasks(self, source_number: int) -> Iterator[Task]:
        """Yield the results of one source in the order of the driving frames, orbit views innermost."""
        config = self.config
        numbers = range(len(self.drivers)) if config.pairs == "all" else [source_number]
        views = config.orbit_frames if config.camera == "orbit" else 1
        for place, number in enumerate(numbers):
            for view in range(views):
                index = place * views + view if views > 1 else number
                yield Task(self.drivers[number], number, index, len(numbers) * views)

    def _run_source(self, number: int, portrait: PreparedPortrait, progress: tqdm) -> None:
        tasks = [task for task in self._tasks(number) if not self._is_done(portrait, task)]
        skipped = len(list(self._tasks(number))) - len(tasks)
        self.report.skipped += skipped
        progress.update(skipped)
        for path in (path for task in tasks for path in self._files(portrait, task)):
            path.unlink(missing_ok=True)  # what fails now must not show an older run's result
        source = self._load(portrait) if tasks else None
        if source is not None:
            self._render_tasks(number, portrait, source, tasks, progress)
        elif tasks:
            progress.update(len(tasks))
        if self.config.video:
            self._write_video(portrait)

    def _load(self, portrait: PreparedPortrait) -> Frame | None:
        """Load a portrait; note a failure once and give None for it from then on."""
        return self._accept(portrait, self._read(portrait))

    def _read(self, portrait: PreparedPortrait) -> Frame | UserError | None:
        """Load a portrait, in whatever thread; None if that failed before."""
        if str(portrait.image_path) in self.report.failures:
            return None
        try:
            return self.reenactor.load_frame(portrait)
        except UserError as error:
            return error

    def _accept(self, portrait: PreparedPortrait, read: Frame | UserError | None) -> Frame | None:
        if isinstance(read, UserError):
            self._fail(str(portrait.image_path), read)
            return None
        return read

    def _fail(self, key: str, error: UserError) -> None:
        self.report.failures[key] = str(error)
        tqdm.write(f"skipped: {error}")
        self._log({"failed": key, "error": str(error)})

    def _render_tasks(
        self, number: int, portrait: PreparedPortrait, source: Frame, tasks: list[Task], progress: tqdm
    ) -> None:
        """Render while another thread reads the next driving frames and a third writes the last results."""
        features = self.reenactor.encode_source(source) if self.config.source_cache else None
        known = _Source(number, portrait, source, features)
        groups = [list(group) for _, group in groupby(tasks, key=lambda task: task.driver_index)]
        readers = 1 if self.reenactor.loads_beside_rendering else 0
        frames = map_in_order(self._read, [group[0].driver for group in groups], readers, _WAITING)
        with write_behind(lambda write: write(), _WAITING) as put, closing(frames):
            for group, read in zip(groups, frames, strict=True):
                driver = self._accept(group[0].driver, read)
                for task in group:
                    if driver is not None:
                        put(self._render_task(known, task, driver))
                    progress.update(1)

    def _render_task(self, source: "_Source", task: Task, driver: Frame) -> Callable[[], None]:
        """Render one result and return what writes its files."""
        started = time.perf_counter()
        frame, features = source.frame, source.features
        if features is None:
            frame = self.reenactor.load_frame(source.portrait)
            features = self.reenactor.encode_source(frame)
        view = self.reenactor.view(driver, task.index, task.steps)
        render = self.reenactor.render(frame, features, driver, view, self.reenactor.jitter(source.number, task.index))
        result = render.image_sr[0].float().cpu()
        seconds = time.perf_counter() - started
        self.report.written += 1
        self.report.seconds += seconds
        pictures = [frame.image[0].cpu(), result, driver.image[0].cpu()]
        surface = self._surface(source, task, render, view) if self.config.shape else None
        return partial(self._write, source.portrait, task, pictures, surface, seconds)

    def _surface(self, source: "_Source", task: Task, render: HeadRender, view: View) -> Surface | None:
        try:
            return self.reenactor.surface(source.frame, render, view)
        except UserError as error:
            self._fail(str(self._mesh_path(source.portrait, task)), error)
            return None

    def _write(
        self, portrait: PreparedPortrait, task: Task, pictures: list[Tensor], surface: Surface | None, seconds: float
    ) -> None:
        """Write the files of a result: `pictures` are source, result and driver."""
        strip_path, frame_path = self._paths(portrait, task)
        save_image(frame_path, pictures[1])
        save_image(strip_path, side_by_side(pictures))
        if surface is not None:
            write_mesh(self._mesh_path(portrait, task), surface)
        self._log(
            {
                "source": portrait.stem,
                "driver": task.driver.stem,
                "index": task.index,
                "strip": str(strip_path.relative_to(self.config.outdir)),
                "seconds": round(seconds, 4),
            }
        )

    def _paths(self, portrait: PreparedPortrait, task: Task) -> tuple[Path, Path]:
        folder = self.config.outdir / portrait.stem
        return folder / f"{task.index:05d}.jpg", folder / "frames" / f"{task.index:05d}.png"

    def _mesh_path(self, portrait: PreparedPortrait, task: Task) -> Path:
        return self.config.outdir / portrait.stem / "shapes" / f"{task.index:05d}.{self.config.shape_format}"

    def _files(self, portrait: PreparedPortrait, task: Task) -> list[Path]:
        files = list(self._paths(portrait, task))
        if self.config.shape:
            files.append(self._mesh_path(portrait, task))
        return files

    def _is_done(self, portrait: PreparedPortrait, task: Task) -> bool:
        return self.config.resume and all(path.exists() for path in self._files(portrait, task))

    def _log(self, entry: dict) -> None:
        self.config.outdir.mkdir(parents=True, exist_ok=True)
        with self._log_lock, (self.config.outdir / "results.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _frames(self, portrait: PreparedPortrait, number: int) -> Iterator[Path]:
        for task in self._tasks(number):
            path = self._paths(portrait, task)[1]
            if path.exists():
                yield path

    def _write_video(self, portrait: PreparedPortrait) -> None:
        film = self.config.outdir / f"{portrait.stem}.mp4"
        paths = list(self._frames(portrait, self.sources.index(portrait)))
        if paths:
            save_video(film, map(load_image, paths), self.config.fps)
        else:
            film.unlink(missing_ok=True)

    def _write_grid(self) -> None:
        """Write drivers across, sources down, results between; what failed stays black."""
        grid = self.config.outdir / "grid.jpg"
        if self.config.pairs == "zip":
            results = [path for number, source in enumerate(self.sources) for path in self._frames(source, number)]
            if results:
                save_picture_grid(grid, results, round(len(results) ** 0.5))
            else:
                grid.unlink(missing_ok=True)
            return
        drivers = [task.driver.image_path for task in self._tasks(0)]
        pictures = [None, *drivers]
        for number, source in enumerate(self.sources):
            pictures += [source.image_path, *(self._paths(source, task)[1] for task in self._tasks(number))]
        save_picture_grid(grid, pictures, len(drivers) + 1)


def write_mesh(path: Path, surface: Surface) -> None:
    """Write a mesh atomically; the suffix (.ply, .obj, .glb) chooses the format."""
    import trimesh

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    with atomic_path(path) as temporary:
        mesh.export(temporary)
