"""The demonstration: bundled persons driven by bundled clips, one from all sides, a mesh, made-up heads, and a page.

<outdir>/index.html        the page, written at last
<outdir>/films/*.mp4|jpg   films, and the pictures that stand until they play
<outdir>/strips/*.jpg      driver, result and truth over time
<outdir>/head.glb|jpg      a mesh, and what it looks like
<outdir>/made-up-heads.jpg pictures of GenHead
"""

import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from portrait4d.config.demo import DemoConfig
from portrait4d.config.experiments import SampleHeadsConfig
from portrait4d.data.image_io import image_grid, save_image
from portrait4d.data.portrait_folder import PreparedPortrait
from portrait4d.files.atomic import write_text
from portrait4d.files.errors import UserError
from portrait4d.inference import demo_cast as cast
from portrait4d.inference.demo_films import (
    STRIP_TILE,
    DemoFrame,
    fit,
    orbit_tiles,
    pair_tiles,
    save_film,
    save_overview,
    save_strip,
    surface_picture,
)
from portrait4d.inference.demo_page import build_page
from portrait4d.inference.demo_results import PAGE, DemoResults, Film, Mesh, Orbit, Pair, measure
from portrait4d.inference.demo_stage import Angles, Stage, turn_camera
from portrait4d.inference.exports import head_surface, save_glb
from portrait4d.inference.sample_heads import HeadSampler
from portrait4d.models.pretrained.bundled import bundled_network

_HEADS, _HEAD_COLUMNS = 8, 4
_MESH_YAWS_RAD = (-0.7, 0.0, 0.7)
_OVERVIEW_MOMENTS = (0.4, 0.65)
"""Which frame of each clip the overview shows, as a part of its length."""


def run_demo(config: DemoConfig) -> DemoResults:
    """Make everything, then the page; what cannot be made is named in `failures` and on the page.

    Raises:
        AssetMissingError, InputFileError: the reconstructor is missing or damaged.
        UserError: the device is not there, or a file cannot be written.
    """
    try:
        return _Job(config).run()
    except OSError as error:
        raise UserError(f"{error.filename or config.outdir}: cannot be written ({error.strerror or error})") from error


class _Job:
    def __init__(self, config: DemoConfig) -> None:
        self.started = time.perf_counter()
        self.config, self.stage = config, Stage(config)
        parameters = sum(value.numel() for value in self.stage.network.parameters())
        self.results = DemoResults(parameters, self.stage.network.config.image_resolution)
        self.moments: dict[tuple[int, int], DemoFrame] = {}

    def run(self) -> DemoResults:
        parts: dict[str, Callable[[], None]] = {
            f"person {person}, clip {clip}": lambda person=person, clip=clip: self._make_pair(person, clip)
            for person in cast.SOURCES
            for clip in cast.CLIPS
        }
        parts |= {"from all sides": self._make_orbit, "mesh": self._make_mesh, "made-up heads": self._make_heads}
        with tqdm(parts.items(), unit="part") as progress:
            for name, make in progress:
                progress.set_description(name)
                try:
                    make()
                except UserError as error:
                    self.results.failures[name] = str(error)
        self._finish()
        return self.results

    def _finish(self) -> None:
        """Write the overview if it is wanted, and the page."""
        rows = [[self.moments.get((person, clip)) for clip in cast.CLIPS] for person in cast.SOURCES]
        rows = [row for row in rows if None not in row]
        if self.config.picture is not None and rows:
            save_overview(self.config.picture, rows)
        self.results.frame_s = self.stage.frame_s
        self.results.total_s = time.perf_counter() - self.started
        write_text(self.config.outdir / PAGE, build_page(self.results))

    def _make_pair(self, person: int, clip: int) -> None:
        steps = [(portrait, (0.0, 0.0)) for portrait in cast.clip_portraits(clip)[: self.config.frames]]
        frames, masks = self._frames(person, steps, cast.truth_folder(person, clip))
        name = f"person{person}-clip{clip}"
        film = self._save(name, [pair_tiles(frame) for frame in frames], cast.CLIP_FPS, there_and_back=True)
        strip = Path("strips") / f"{name}.jpg"
        save_strip(self.config.outdir / strip, frames)
        self.results.pairs.append(Pair(person, clip, film, strip, measure(frames, masks)))
        self.moments[person, clip] = frames[int(_OVERVIEW_MOMENTS[clip] * len(frames))]

    def _make_orbit(self) -> None:
        person = cast.ORBIT_SOURCE
        count = min(self.config.frames or cast.ORBIT_FRAMES, cast.ORBIT_FRAMES)
        portrait = cast.source_portrait(person)
        steps = [(portrait, cast.orbit_angles_rad(number)) for number in range(count)]
        frames, masks = self._frames(person, steps, cast.truth_folder(person, None))
        film = self._save(f"person{person}-orbit", [orbit_tiles(frame) for frame in frames], cast.ORBIT_FPS)
        self.results.orbit = Orbit(film, measure(frames, masks))

    def _frames(
        self, person: int, steps: list[tuple[PreparedPortrait, Angles]], truths: Path
    ) -> tuple[list[DemoFrame], list[Tensor]]:
        """Reenact step by step: driving picture, and how far the camera is turned; and the masks of the true heads."""
        frames, masks, size = [], [], self.results.size
        source = self.stage.source(person)[0].image[0].cpu()
        for number, (portrait, turn_rad) in enumerate(steps):
            truth, mask = cast.load_truth(truths, number)
            view, render = self.stage.reenact(person, portrait, turn_rad)
            result, normals = _picture(render.image_sr), self.stage.normals(person, view, render)
            frames.append(DemoFrame(source, portrait.load_image(), result, fit(truth, size), normals))
            masks.append(fit(mask, size).clamp(0, 1))
        return frames, masks

    def _make_mesh(self) -> None:
        person, path = cast.ORBIT_SOURCE, Path("head.glb")
        view, render = self.stage.reenact(person, cast.source_portrait(person))
        surface = head_surface(self.stage.reenactor, self.stage.source(person)[0], render, view)
        save_glb(self.config.outdir / path, surface)
        cameras = [turn_camera(view.camera, (yaw_rad, 0.0)) for yaw_rad in _MESH_YAWS_RAD]
        picture = path.with_suffix(".jpg")
        save_image(self.config.outdir / picture, image_grid([surface_picture(surface, each) for each in cameras], 3))
        self.results.mesh = Mesh(path, picture, len(surface.vertices), len(surface.faces))

    def _make_heads(self) -> None:
        """Write a grid of made-up heads, each in another moment of the same motion."""
        config, path = self.config, Path("made-up-heads.jpg")
        seeds = range(min(config.frames or _HEADS, _HEADS))
        network = config.genhead or bundled_network("genhead")
        sampler = HeadSampler(SampleHeadsConfig(network, config.outdir, (*seeds,), frames=_HEADS, device=config.device))
        tiles = [fit(_picture(sampler.render(sampler.sample(seed), seed).image_sr), STRIP_TILE) for seed in seeds]
        save_image(config.outdir / path, image_grid(tiles, _HEAD_COLUMNS), quality=88)
        self.results.heads = path

    def _save(self, name: str, pictures: list[Tensor], fps: float, there_and_back: bool = False) -> Film:
        path = Path("films") / f"{name}.mp4"
        poster = save_film(self.config.outdir / path, pictures, fps, there_and_back)
        return Film(path, poster.relative_to(self.config.outdir))


def _picture(rendered: Tensor) -> Tensor:
    """Return a rendered picture (1, 3, S, S) as (3, S, S) in [-1, 1] on the CPU."""
    return rendered[0].float().clamp(-1, 1).cpu()
