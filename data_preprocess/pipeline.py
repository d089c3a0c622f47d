"""Pictures and films to prepared folders: find faces, describe them, cut them out, write everything down.

Steps: files are read ahead in threads; networks see batches; portraits are cut and written in threads. Results come
in the order of the pictures, and memory does not grow with their number. Source: preprocess-pipeline.md §3, §4.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from data_preprocess.face_boxes import FaceChoice
from data_preprocess.face_networks import FaceNetworks, load_face_networks
from data_preprocess.find_faces import FaceDetector, FaceTracker, Finding, FoundFace, call_each
from data_preprocess.job_report import JobReport
from data_preprocess.media import Clip, Media, find_media
from data_preprocess.pictures import MOST_PIXELS, Picture, ReadingRules, batch_pictures, read_pictures
from data_preprocess.portrait_crop import crop_portrait
from data_preprocess.prepared_files import (
    Origin,
    PreparedFace,
    is_prepared,
    load_origin,
    numbered_name,
    remove_unfinished,
    save_prepared,
)
from portrait4d.files.errors import InputFileError, UserError
from portrait4d.files.read_ahead import map_in_order, read_ahead
from portrait4d.ops.backend import pick_device


@dataclass(frozen=True)
class PreprocessConfig:
    """What to prepare, and how.

    Attributes:
        input_dir: a picture, a film, or a folder of them.
        save_dir: see `media.find_media`.
        device: "auto", "cpu" or "cuda".
        batch: pictures at once.
        workers: threads that read, and as many that cut and write.
        video: follow the face from picture to picture instead of detecting it in each; None: in films.
        smooth: let steady faces lie still, where they are followed.
        face: which faces of a picture to keep.
        image_format: "png" or "jpg", of frames of films and of pictures in other formats than these.
        overwrite: do again what is there.
        accept_unverified: see `fan_weights.load_fan`.
    """

    input_dir: Path
    save_dir: Path
    device: str = "auto"
    batch: int = 8
    workers: int = 2
    video: bool | None = None
    smooth: bool = False
    face: FaceChoice = "largest"
    image_format: str = "png"
    overwrite: bool = False
    accept_unverified: bool = False

    def follows(self, clip: Clip) -> bool:
        """Tell whether the face of a clip is followed."""
        return clip.is_film if self.video is None else self.video


def run_preprocessing(config: PreprocessConfig, networks: FaceNetworks | None = None) -> JobReport:
    """Prepare everything, go on past bad files, and say at the end which those were.

    What is there already is kept, so that the same call finishes what a killed one left; a clip whose face is
    followed goes on as if it had not been interrupted.

    Args:
        config: what to do.
        networks: None loads the published ones.

    Raises:
        UserError: nothing can be done at all: no pictures, no weights, no device, options that contradict each other,
            or a place that cannot be written.
    """
    media, report = plan_preprocessing(config), JobReport()
    if networks is None:
        networks = load_face_networks(pick_device(config.device), config.accept_unverified)
    say_what_is_left_out(media, networks.draw is not None, report)
    with (
        explain_errors(config),
        closing(prepare_clips(config, networks, media.clips)) as results,
        tqdm(total=media.frames, unit="picture", smoothing=0.05) as progress,
    ):
        for result in results:
            report.add_item(len(result.faces), result.problems)
            progress.update(1)
    return report


def plan_preprocessing(config: PreprocessConfig) -> Media:
    """Find what there is to prepare, check that the options fit, and remove what a killed run left half-written.

    Raises:
        UserError: no pictures, options that contradict each other, or a place that cannot be written.
    """
    media = find_media(config.input_dir, config.save_dir)
    _check_options(config, media)
    with explain_errors(config):
        remove_all_unfinished(media)
    return media


def remove_all_unfinished(media: Media) -> None:
    """Remove half-written files of all prepared folders; nothing may be writing there."""
    for clip in media.clips:
        remove_unfinished(clip.output)


def say_what_is_left_out(media: Media, draws: bool, report: JobReport) -> None:
    """Tell of files that are passed over or bad, and whether faces are drawn."""
    if media.ignored:
        names = ", ".join(str(path) for path in media.ignored)
        tqdm.write(f"passed over, neither pictures nor films to prepare: {names}")
    if not draws:
        tqdm.write("no bfm_vis: the data of the Basel Face Model are not there (fetch_assets.py --list)")
    for problem in media.problems:
        report.fail(problem)


@contextmanager
def explain_errors(config: PreprocessConfig) -> Iterator[None]:
    """Turn errors that end a job, and that its options can mend, into a `UserError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"--batch {config.batch}: the device has too little memory; use a smaller one") from error
    except OSError as error:
        place = error.filename or config.save_dir
        raise UserError(f"{place}: cannot be written ({error.strerror or error})") from error


@dataclass
class Result:
    """What became of a picture: its prepared folder, faces by file name, and problems."""

    output: Path
    faces: dict[str, PreparedFace] = field(default_factory=dict)
    problems: list[UserError] = field(default_factory=list)


def prepare_clips(config: PreprocessConfig, networks: FaceNetworks, clips: Iterable[Clip]) -> Iterator[Result]:
    """Prepare clips and yield what became of each picture, in order, when its files are written.

    Close the iterator (`contextlib.closing`) where it may be left before its end.
    """
    job = _Job(config, networks)
    rules = ReadingRules(job.is_done, f".{config.image_format}", config.workers)
    waiting = 2 * config.batch  # pictures at most, small as they may be

    def weigh(picture: Picture) -> float:
        return max(picture.pixels, MOST_PIXELS / waiting)

    with (
        closing(read_ahead(read_pictures(clips, rules), weigh, MOST_PIXELS)) as pictures,
        closing(map_in_order(_write, job.prepare(pictures), config.workers, waiting)) as results,
    ):
        yield from results


class _Job:
    def __init__(self, config: PreprocessConfig, networks: FaceNetworks) -> None:
        self.config = config
        self.networks = networks

    def is_done(self, clip: Clip, file_name: str) -> bool:
        if self.config.overwrite:
            return False
        if self.config.face != "all":
            return is_prepared(clip.output, file_name)
        first = numbered_name(file_name, 0)
        if not is_prepared(clip.output, first):
            return False
        try:
            count = load_origin(clip.output, first).count
        except InputFileError:
            return False
        return all(is_prepared(clip.output, numbered_name(file_name, index)) for index in range(1, count))

    def prepare(self, pictures: Iterable[Picture]) -> Iterator[Result]:
        """Find and describe faces; a batch never spans clips whose faces are followed."""
        config = self.config
        detector = FaceDetector(self.networks, config.face)
        for clip, group in groupby(pictures, lambda one: one.clip if config.follows(one.clip) else None):
            finder = detector if clip is None else FaceTracker(detector, _recall, config.smooth)
            yield from chain.from_iterable(
                map(self._describe, map(finder.find, batch_pictures(group, config.batch, MOST_PIXELS)))
            )

    def _describe(self, findings: list[Finding]) -> list[Result]:
        results = [Result(finding.picture.clip.output, problems=finding.problems) for finding in findings]
        faces = [(face, finding.picture) for finding in findings for face in finding.faces]
        owners = [result for result, finding in zip(results, findings, strict=True) for _ in finding.faces]
        described = call_each(self._describe_faces, faces)
        cut = map_in_order(_cut, zip(faces, described, strict=True), self.config.workers)
        for (face, picture), owner, prepared in zip(faces, owners, cut, strict=True):
            if isinstance(prepared, ValueError):
                owner.problems.append(InputFileError(picture.name, f"its landmarks make no face ({prepared})"))
            else:
                several = self.config.face == "all"
                owner.faces[numbered_name(picture.file_name, face.index) if several else picture.file_name] = prepared
        return results

    def _describe_faces(self, faces: list[tuple[FoundFace, Picture]]) -> list["_Description"]:
        images = [face.image for face, _ in faces]
        landmarks68 = self.networks.landmarks68(images, torch.stack([face.box for face, _ in faces]))
        reconstruction = self.networks.reconstruct(images, torch.stack([face.landmarks98 for face, _ in faces]))
        visuals = [None] * len(faces) if self.networks.draw is None else self.networks.draw(reconstruction)
        return [
            _Description(points, reconstruction.coefficients.file_entries(row), visual)
            for row, (points, visual) in enumerate(zip(landmarks68, visuals, strict=True))
        ]


@dataclass(frozen=True)
class _Description:
    """What the networks say of a face: landmarks (68, 2), coefficients by file key, a picture of them or None."""

    landmarks68: Tensor
    coefficients: dict[str, Tensor]
    visual: Tensor | None


def _cut(work: tuple[tuple[FoundFace, Picture], _Description | ValueError]) -> PreparedFace | ValueError:
    (face, picture), description = work
    if isinstance(description, ValueError):
        return description
    try:
        crop = crop_portrait(face.image, face.landmarks98, description.landmarks68.double(), placement=face.placement)
    except ValueError as error:
        return error
    clip = picture.clip
    source = clip.source.name if clip.is_film else clip.pictures[picture.number - clip.first].name
    found = (face.index, face.count, face.box, face.landmarks98, description.landmarks68)
    origin = Origin(source, picture.number, *found, crop.transform)
    return PreparedFace(crop, description.coefficients, description.visual, origin)


def _write(result: Result) -> Result:
    for file_name, face in result.faces.items():
        save_prepared(result.output, file_name, face)
    return result


def _recall(picture: Picture) -> tuple[Tensor, int] | None:
    try:
        origin = load_origin(picture.clip.output, picture.file_name)
    except InputFileError:
        return None
    return origin.landmarks98, origin.transform.image_size[1]


def _check_options(config: PreprocessConfig, media: Media) -> None:
    followed = [clip.source for clip in media.clips if config.follows(clip)]
    if followed and config.face == "all":
        raise UserError(f"--face all: a clip is followed by one face ({followed[0]}); add --no-video")
    if config.smooth and media.clips and not followed:
        raise UserError("--smooth: no face is followed from picture to picture; add --video")
